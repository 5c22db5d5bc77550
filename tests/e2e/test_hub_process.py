"""`python -m hub` as a real process: it starts, it refuses, it ends; and plain grpcurl is enough to use it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import lmdb
import pytest

from hub.store import keys

ROOT = Path(__file__).resolve().parent.parent.parent
GRPCURL = Path(sys.executable).with_name("grpcurl")
PATIENCE_S = 30.0


class Hub:
    """A hub process."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.address = ""
        self.lines: list[dict[str, object]] = []

    async def line(self, event: str) -> dict[str, object]:
        """The next log line of this event."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while text := await self.process.stderr.readline():
                found: dict[str, object] = json.loads(text)
                self.lines.append(found)
                if found["event"] == event:
                    return found
        raise AssertionError(f"the hub ended before {event}: {self.lines}")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


async def launch(*words: str, env: dict[str, str] | None = None) -> asyncio.subprocess.Process:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AGENTCOM_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub", *words,
        cwd=ROOT, env=clean | (env or {}), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@asynccontextmanager
async def hub(folder: Path, *words: str) -> AsyncIterator[Hub]:
    """A hub that serves on a port of its own."""
    made = Hub(await launch("--data", str(folder), "--listen", "127.0.0.1:0", *words), folder)
    try:
        made.address = str((await made.line("hub.serving"))["address"])
        yield made
    finally:
        if made.process.returncode is None:
            made.process.kill()
            await made.process.wait()


async def refusal(*words: str, env: dict[str, str] | None = None) -> str:
    """What a hub that does not start says: one line, and exit code 2."""
    process = await launch(*words, env=env)
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert (process.returncode, out) == (2, b""), err
    text = err.decode()
    said = [line for line in text.splitlines() if not line.startswith("{")]
    assert len(said) == 1, text
    assert said[0].startswith("agentcom-hub: ")
    assert "Traceback" not in text
    return said[0]


async def grpcurl(address: str, *words: str, data: object = None) -> tuple[int, str]:
    """Run grpcurl; its exit code and what it printed."""
    given = [] if data is None else ["-d", json.dumps(data)]
    process = await asyncio.create_subprocess_exec(
        GRPCURL, "-plaintext", *given, address, *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_a_hub_starts_says_where_it_is_and_ends_well(tmp_path):
    async with hub(tmp_path / "data") as made:
        assert (made.folder / "hub.addr").read_text().strip() == made.address
        token = made.folder / "admin.token"
        assert token.stat().st_mode & 0o777 == 0o600
        assert token.read_text().startswith("act_")
        assert await made.stop() == 0
        assert not (made.folder / "hub.addr").exists()
        kept = token.read_text()
    async with hub(tmp_path / "data") as made:
        assert (made.folder / "admin.token").read_text() == kept
        assert await made.stop(signal.SIGINT) == 0


BEYOND = "[server]\nlisten = '0.0.0.0:0'\n"
BAD_FILES = {
    "a key that is not known": ("[server]\nlissten = 'x'\n", "server.lissten"),
    "a key that is no section": ("colour = 1\n", "colour"),
    "a wrong type": ("[engine]\nlease_s = 'long'\n", "engine.lease_s"),
    "a value that is too small": ("[engine]\nlease_s = 0.1\n", "at least 0.5"),
    "a value that is too large": ("[engine]\nqueue_max = 1000000000000\n", "engine.queue_max"),
    "a choice that there is not": ("[store]\nkind = 'paper'\n", "lmdb, memory"),
    "an address that is none": ("[server]\nlisten = 'nowhere'\n", "host:port"),
    "beyond the loopback without TLS": (BEYOND, "needs TLS"),
    "beyond the loopback without tokens": (f"{BEYOND}[auth]\nrequired = false\n", "auth.required"),
    "half of a TLS identity": ("[server]\ntls_key = 'x'\n", "both or not at all"),
    "a TLS file that is not there": ("[server]\ntls_key = '/none/k'\ntls_certificate = '/none/c'\n", "/none/c"),
    "heartbeats slower than the lease": ("[engine]\nlease_s = 10\nheartbeat_s = 9\n", "heartbeat_s"),
    "what is no TOML": ("listen = = 1\n", "not TOML"),
}


@pytest.mark.parametrize("what", BAD_FILES)
async def test_a_bad_configuration_is_refused_with_one_line(tmp_path, what):
    text, word = BAD_FILES[what]
    file = tmp_path / "hub.toml"
    file.write_text(f"data = '{tmp_path / 'data'}'\n{text}")
    assert word in await refusal("--config", str(file))


async def test_a_bad_environment_is_refused_with_one_line(tmp_path):
    words = ("--data", str(tmp_path))
    assert "AGENTCOM_HUB_LISTEN" in await refusal(*words, env={"AGENTCOM_HUB_LISTEN": "x"})
    assert "engine.sweep_s" in await refusal(*words, env={"AGENTCOM_HUB_ENGINE_SWEEP_S": "soon"})


async def test_a_file_that_is_not_there_is_refused_with_one_line(tmp_path):
    assert "cannot be read" in await refusal("--config", str(tmp_path / "none.toml"))


async def test_a_folder_that_cannot_be_written_is_refused_with_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in await refusal("--data", str(tmp_path / "file" / "data"))


async def test_a_port_that_is_taken_is_refused_with_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in await refusal("--data", str(tmp_path), "--listen", address)


async def test_a_folder_that_another_hub_has_is_refused_with_one_line(tmp_path):
    async with hub(tmp_path):
        line = await refusal("--data", str(tmp_path), "--listen", "127.0.0.1:0")
        assert str(tmp_path) in line
        assert (tmp_path / "hub.addr").exists()


async def test_a_store_of_a_newer_hub_is_refused_with_one_line_and_not_touched(tmp_path):
    async with hub(tmp_path) as made:
        assert await made.stop() == 0
    with lmdb.open(str(tmp_path / "store")) as environment, environment.begin(write=True) as txn:
        txn.put(keys.SCHEMA, b"agentcom store 99")
    assert "schema version 99" in await refusal("--data", str(tmp_path), "--listen", "127.0.0.1:0")
    with lmdb.open(str(tmp_path / "store")) as environment, environment.begin() as txn:
        assert txn.get(keys.SCHEMA) == b"agentcom store 99"


async def test_plain_grpcurl_lists_describes_submits_watches_explains_and_cancels(tmp_path):
    async with hub(tmp_path) as made:
        _, listed = await grpcurl(made.address, "list")
        for service in ("Task", "Agent", "Goal", "Registry", "Hub"):
            assert f"agentcom.v1.{service}Service" in listed
        _, described = await grpcurl(made.address, "describe", "agentcom.v1.TaskService")
        assert "rpc WatchTasks" in described
        request = {"spec": {"title": "from grpcurl", "command": "true"}}
        _, answer = await grpcurl(made.address, "agentcom.v1.TaskService/CreateTask", data=request)
        name = json.loads(answer)["task"]["name"]

        _, explained = await grpcurl(made.address, "agentcom.v1.TaskService/ExplainTask", data={"name": name})
        assert json.loads(explained)["summary"] == "there is no agent"
        _, cancelled = await grpcurl(made.address, "agentcom.v1.TaskService/CancelTask", data={"name": name})
        assert json.loads(cancelled)["task"]["state"] == "STATE_CANCELLED"
        code, refused = await grpcurl(made.address, "agentcom.v1.TaskService/CancelTask", data={"name": name})
        assert code != 0
        assert "FailedPrecondition" in refused

        watched = await watch_until(made.address, "task.cancelled", {"names": [name], "position": -1})
        assert watched.index("task.created") < watched.index("task.cancelled")
        assert await made.stop() == 0


async def watch_until(address: str, word: str, request: object) -> str:
    """What grpcurl prints of a watch until a word comes."""
    process = await asyncio.create_subprocess_exec(
        GRPCURL, "-plaintext", "-d", json.dumps(request), address, "agentcom.v1.TaskService/WatchTasks",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    seen = ""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while word not in seen:
                seen += (await process.stdout.readline()).decode()
    finally:
        process.kill()
        await process.wait()
    return seen
