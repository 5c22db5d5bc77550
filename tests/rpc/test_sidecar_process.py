"""The sidecar as a process: its command line, its first start, its death and what the next start does about it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentcom.v1 import agent_pb2, agent_service_pb2
from kit import errors
from sidecar.wire import state
from tests.support import attach
from tests.support.attach import Hub, holding, proto

TOKEN = "act_" + "x" * 43
PATIENCE_S = 30.0


class Process:
    """A running sidecar and the events it logs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def event(self, name: str) -> dict[str, object]:
        """The next log record of that name."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line)
                record: dict[str, object] = json.loads(line) if line.startswith("{") else {}
                if record.get("event") == name:
                    return record
        raise AssertionError(f"the sidecar ended without {name}: {self.lines}")

    async def end(self) -> tuple[int, str]:
        """Wait for its end; returns the exit code and everything it said."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            self.lines.append((await self.process.stderr.read()).decode())
            return await self.process.wait(), "".join(self.lines)


@contextlib.asynccontextmanager
async def sidecar(folder: Path, *words: str, **variables: str) -> AsyncIterator[Process]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTCOM_")}
    environment |= {
        "AGENTCOM_SIDECAR_LOG_FORM": "json",
        "AGENTCOM_SIDECAR_TIMEOUT_RECONNECT_BASE_S": "0.01",
    } | variables
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "--state-dir", str(folder), *words,
        env=environment, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def served() -> AsyncIterator[tuple[Hub, str]]:
    hub = Hub()
    async with attach.serve(hub) as port:
        yield hub, f"127.0.0.1:{port}"


def enrolled(agent: str = "builder") -> agent_service_pb2.EnrollAgentResponse:
    return agent_service_pb2.EnrollAgentResponse(agent=agent_pb2.Agent(name=f"agents/{agent}"), token=TOKEN)


async def test_the_first_start_enrols_and_the_second_knows_who_it_is(served, tmp_path):
    hub, address = served
    hub.enrolments = [errors.Unavailable("starting"), enrolled()]
    variables = {"AGENTCOM_SIDECAR_HUB_JOIN_KEY": "one-time"}
    async with sidecar(tmp_path, "--hub", address, **variables) as process:
        line = await hub.line()
        assert (await line.next("hello")).hello.agent == "agents/builder"
        line.welcome()
        assert (await process.event("sidecar.attached"))["agent"] == "builder"
        process.process.send_signal(signal.SIGTERM)
        goodbye = await line.next("goodbye")
        line.send(ack=goodbye.seq)
        code, said = await process.end()
        assert code == 0
        assert TOKEN not in said
    first, second = hub.enrolment_requests
    assert first.join_key == "one-time"
    assert first.request_id == second.request_id, "a lost reply must give the same agent again"
    assert (tmp_path / state.IDENTITY).stat().st_mode & 0o777 == 0o600
    async with sidecar(tmp_path, "--hub", address):
        line = await hub.line()
        assert (await line.next("hello")).hello.agent == "agents/builder"
        assert hub.metadata[-1]["authorization"] == f"Bearer {TOKEN}"


async def test_killed_at_work_it_recovers_what_it_held_and_tells_it(served, tmp_path):
    hub, address = served
    hub.enrolments = [enrolled()]
    done, open_ = holding(1), holding(2)
    async with sidecar(tmp_path, "--hub", address, "--slots", "2") as process:
        line = await hub.line()
        line.welcome()
        line.assign(done, command="echo the answer is 42")
        while (await line.report()).WhichOneof("outcome") != "completed":
            pass
        line.assign(open_, command="sleep 600")
        await line.report()
        process.process.kill()
    async with sidecar(tmp_path, "--hub", address) as process:
        line = await hub.line()
        hello = (await line.next("hello")).hello
        assert {h.task for h in hello.holdings} == {proto(done).task, proto(open_).task}
        line.welcome("s2", holdings=[done, open_])
        reports = {r.holding.task: r for r in [await line.report(), await line.report()]}
        assert "42" in reports[proto(done).task].completed.result.summary
        assert reports[proto(open_).task].failed.stopped
        line.send(ack=2)
        process.process.send_signal(signal.SIGTERM)
        line.send(ack=(await line.next("goodbye")).seq)
        assert (await process.end())[0] == 0


async def test_a_second_sidecar_on_the_same_folder_says_so_and_ends(served, tmp_path):
    hub, address = served
    hub.enrolments = [enrolled()]
    async with sidecar(tmp_path, "--hub", address):
        await hub.line()
        async with sidecar(tmp_path, "--hub", address) as second:
            code, said = await second.end()
    assert code == 1
    assert said.count("\n") == 1 and "in use by another sidecar" in said


async def test_the_second_signal_stops_the_work_and_the_process(served, tmp_path):
    hub, address = served
    hub.enrolments = [enrolled()]
    async with sidecar(tmp_path, "--hub", address) as process:
        line = await hub.line()
        line.welcome()
        line.assign(holding(1), command="sleep 600")
        await process.event("holding.begun")
        process.process.send_signal(signal.SIGTERM)
        await process.event("sidecar.draining")
        process.process.send_signal(signal.SIGTERM)
        while (message := await line.next("report")).report.WhichOneof("outcome") != "failed":
            pass
        assert message.report.failed.stopped
        line.send(ack=message.seq)
        line.send(ack=(await line.next("goodbye")).seq)
        assert (await process.end())[0] == 0


async def test_a_final_word_of_the_hub_ends_the_process_with_one_clear_line(served, tmp_path):
    hub, address = served
    hub.enrolments = [enrolled()]
    async with sidecar(tmp_path, "--hub", address) as process:
        line = await hub.line()
        line.welcome()
        line.goaway("DELETED", final=True)
        code, said = await process.end()
    assert code == 3
    assert (
        said.strip()
        .splitlines()[-1]
        .startswith("agentcom-sidecar: the hub ended this agent's session for good: DELETED")
    )


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (("--slots", "999"), {}, "the command line: slots is 999, must be at most 256"),
        ((), {"AGENTCOM_SIDECAR_SLOT": "2"}, "did you mean AGENTCOM_SIDECAR_SLOTS?"),
        (("--hub", "nowhere"), {}, "hub.address: 'nowhere' is not of the form host:port"),
        (("--agent", "Bad Name"), {}, "agentcom-sidecar: the configuration: agent: 'Bad Name' is not an id"),
        (("--executors", "oracle"), {"AGENTCOM_SIDECAR_HUB_TOKEN": TOKEN, "AGENTCOM_SIDECAR_AGENT": "a"}, "oracle"),
        ((), {"AGENTCOM_SIDECAR_HUB_TOKEN": TOKEN}, "agent: is required beside a token"),
        (("--hub", "10.0.0.1:1", "--agent", "a"), {"AGENTCOM_SIDECAR_HUB_TOKEN": TOKEN}, "without TLS"),
    ],
)
async def test_a_bad_configuration_is_refused_with_one_line(tmp_path, words, variables, said):
    async with sidecar(tmp_path, *words, **variables) as process:
        code, text = await process.end()
    assert code in (1, 2)
    assert said in text
    assert text.count("\n") == 1
    assert TOKEN not in text


async def test_an_agent_that_exists_on_an_open_hub_is_taken_as_ours(served, tmp_path):
    hub, address = served
    hub.enrolments = [errors.AlreadyExists("there is an agents/builder already")]
    async with sidecar(tmp_path, "--hub", address, "--agent", "builder"):
        line = await hub.line()
        assert (await line.next("hello")).hello.agent == "agents/builder"
        assert "authorization" not in hub.metadata[-1]


async def test_a_used_join_key_is_refused_with_the_hubs_words(served, tmp_path):
    hub, address = served
    hub.enrolments = [errors.Unauthenticated("the join key is not known")]
    async with sidecar(tmp_path, "--hub", address, AGENTCOM_SIDECAR_HUB_JOIN_KEY="k") as process:
        code, said = await process.end()
    assert (code, said) == (1, "agentcom-sidecar: the join key is not known\n")
    kept = state.read_identity(tmp_path).request_id
    assert kept == hub.enrolment_requests[0].request_id, "it must be on the disk before the call, for the next try"
