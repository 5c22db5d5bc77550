"""`agentcom agent add` as a person uses it: a real hub, sidecars as plain processes, runs that are cut off anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentcom.v1 import agent_pb2, hub_service_pb2
from cli.onboarding.folder import RECORD, STEPS, AgentFolder
from cli.onboarding.plain_process import PlainProcess
from kit import errors
from tests.support import processes
from tests.support.authority import Authority
from tests.support.fleet import Fleet, spec
from tests.support.gitrepo import Origin
from tests.support.processes import PATIENCE_S, Process

IDLE = agent_pb2.Agent.STATE_IDLE


@dataclass(frozen=True)
class Ran:
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def steps(self) -> dict[str, str]:
        return {step["step"]: step["verdict"] for step in json.loads(self.out)["steps"]}

    def message(self, step: str) -> str:
        return next(str(one["message"]) for one in json.loads(self.out)["steps"] if one["step"] == step)


class Machine:
    """A machine on which agents are set up: its folder, and the command line there."""

    def __init__(self, root: Path, fleet: Fleet) -> None:
        self.root, self.fleet = root, fleet
        self.base = root / "agents"
        self.home = root / "home"
        self.home.mkdir(parents=True)
        #: Of every command: nothing of the machine that runs the tests.
        self.environment: dict[str, str] = {}

    def agent(self, *words: str, **environment: str) -> Ran:
        """`agentcom agent ...`, with its table as JSON."""
        done = subprocess.run(
            self.command(*words), env=self._environment(environment), capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=3 * PATIENCE_S, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    async def add(self, *words: str, **environment: str) -> Ran:
        return await asyncio.to_thread(self.agent, "add", *words, *self.where("--service", "process"), **environment)

    async def remove(self, *words: str, **environment: str) -> Ran:
        return await asyncio.to_thread(self.agent, "remove", *words, *self.where(), **environment)

    async def begin(self, *words: str) -> Process:
        """An `add` that goes on while the test does."""
        return await Process.start(
            "agentcom agent add",
            self.command("add", *words, *self.where("--service", "process")),
            log=self.root / "add.log",
            environment={**self.environment, "HOME": str(self.home)},
        )

    def where(self, *more: str) -> tuple[str, ...]:
        return ("--dir", str(self.base), *more)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "cli", "--hub", self.fleet.address, "-o", "json", "agent", *words]

    def folder(self, name: str) -> AgentFolder:
        return AgentFolder(self.base, name)

    def pid(self, name: str) -> int | None:
        """The sidecar that runs for an agent."""
        folder = self.folder(name)
        return PlainProcess(folder.pid, folder.log, mark=str(folder.config)).pid()

    def sidecars(self) -> list[str]:
        """Every sidecar of this machine, known or not."""
        return [line for line in processes.working_under(self.base) if "--config" in line and "preflight" not in line]

    def forget(self, name: str, *steps: str) -> None:
        """As if the machine had died before it wrote that these steps were done."""
        path = self.folder(name).path / RECORD
        record = json.loads(path.read_text())
        record["done"] = [step for step in record["done"] if step not in steps]
        path.write_text(json.dumps(record))

    def close(self) -> None:
        for path in self.base.glob("*"):
            pid = self.pid(path.name)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("AGENTCOM_")}
        return {**ours, "HOME": str(self.home), **self.environment, **more}


@pytest.fixture
async def machine(fleet: Fleet, tmp_path: Path) -> AsyncIterator[Machine]:
    made = Machine(tmp_path / "machine", fleet)
    try:
        yield made
    finally:
        made.close()


def text_of(*paths: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in paths)


async def test_an_agent_is_added_and_has_worked_before_the_command_ends(fleet, machine, origin: Origin):
    await fleet.start_hub()
    repo = await fleet.add_repo("notes", origin.path, default_branch="main")
    added = await machine.add("ada", "--repo", "notes", "--slots", "2", "--capability", "gpu")
    assert added.code == 0, added
    assert {step: added.steps[step] for step in STEPS} == dict.fromkeys(STEPS, "ok")
    assert added.steps["repo:notes"] == "ok"
    agent = await fleet.agent("ada")
    assert (agent.state, agent.offer.slots, list(agent.offer.capabilities)) == (IDLE, 2, ["gpu"])
    assert agent.completed_count == 2, "one task in an empty folder, one in a clone"
    tasks = [await fleet.task(word.strip(";")) for word in added.message("test").split() if word.startswith("tasks/")]
    assert [(task.spec.repo, task.attempts[-1].agent) for task in tasks] == [("", "agents/ada"), (repo, "agents/ada")]
    folder = machine.folder("ada")
    for path in (folder.config, folder.token, folder.path / RECORD, folder.log, folder.pid):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    token = folder.token.read_text().strip()
    pid = machine.pid("ada")
    assert token not in text_of(folder.config, folder.path / RECORD, folder.log)
    assert token not in text_of(Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ"))


async def test_the_sidecar_outlives_the_command_and_gets_nothing_of_the_persons(fleet, machine):
    await fleet.start_hub()
    added = await machine.add("ada", AGENTCOM_TOKEN_FILE=str(fleet.data / "admin.token"), AGENTCOM_SIDECAR_SLOTS="9")
    assert added.code == 0, added
    assert "AGENTCOM_" not in text_of(Path(f"/proc/{machine.pid('ada')}/environ"))
    assert (await fleet.agent("ada")).offer.slots == 1
    await fleet.until_tasks(await fleet.submit(spec("after it")))


async def test_a_name_is_invented_and_several_agents_live_on_one_machine(fleet, machine):
    await fleet.start_hub()
    first, second = await asyncio.gather(machine.add(), machine.add("bob"))
    assert (first.code, second.code) == (0, 0), (first, second)
    name = json.loads(first.out)["agent"].removeprefix("agents/")
    assert name != "bob"
    assert (await fleet.agent(name)).state == (await fleet.agent("bob")).state == IDLE
    assert machine.pid(name) != machine.pid("bob")
    gone = await machine.remove("bob", "--purge")
    assert gone.code == 0, gone
    assert not machine.folder("bob").path.exists()
    assert machine.pid(name) is not None, "the other one is left alone"


@pytest.mark.parametrize("step", ["preflight", "enrol", "start", "idle", "test"])
async def test_an_add_that_is_killed_in_any_step_is_resumed_to_one_working_agent(fleet, machine, step: str):
    await fleet.start_hub()
    # The steps are told of as they begin only where somebody reads them.
    words = [word for word in machine.command("add", "ada", *machine.where("--service", "process")) if word != "json"]
    words.remove("-o")
    adding = await Process.start("add", words, log=machine.root / "add.log", environment={"HOME": str(machine.home)})
    await adding.until(lambda: f"ada: {step} ..." in adding.said(), PATIENCE_S)
    await adding.kill()
    again = await machine.add("ada")
    assert again.code == 4
    assert "--resume goes on" in again.err
    resumed = await machine.add("ada", "--resume")
    assert resumed.code == 0, resumed
    assert set(resumed.steps.values()) <= {"ok", "warning"}
    assert len(machine.sidecars()) == 1
    assert (await fleet.agent("ada")).completed_count == 1, "cut off or not, one test task is filed"


@pytest.mark.parametrize("step", ["enrol", "start", "test"])
async def test_an_add_that_was_cut_off_is_taken_away_whole(fleet, machine, step: str):
    await fleet.start_hub()
    assert (await machine.add("ada")).code == 0
    machine.forget("ada", *STEPS[STEPS.index(step) :])
    removed = await machine.remove("ada", "--purge")
    assert removed.code == 0, removed
    with pytest.raises(errors.NotFound):
        await fleet.agent("ada")
    assert not machine.folder("ada").path.exists()
    assert not machine.sidecars()


async def test_an_enrolment_whose_answer_was_lost_gives_the_same_agent_again(fleet, machine):
    await fleet.start_hub()
    assert (await machine.add("ada")).code == 0
    created = (await fleet.agent("ada")).create_time
    machine.forget("ada", "enrol")
    before = machine.folder("ada").token.read_text()
    machine.folder("ada").token.unlink()
    resumed = await machine.add("ada", "--resume")
    assert resumed.code == 0, resumed
    assert machine.folder("ada").token.read_text() != before
    assert (await fleet.agent("ada")).create_time == created


async def test_a_test_task_whose_end_was_not_seen_is_not_filed_a_second_time(fleet, machine):
    await fleet.start_hub()
    first = await machine.add("ada")
    machine.forget("ada", "test")
    again = await machine.add("ada", "--resume")
    assert (first.code, again.code) == (0, 0), again
    assert again.message("test").split()[0] == first.message("test").split()[0]
    assert (await fleet.agent("ada")).completed_count == 1


async def test_a_hub_that_assigns_nothing_leaves_the_test_task_for_later(fleet, machine):
    await fleet.start_hub()
    await fleet.hubs.PauseHub(hub_service_pb2.PauseHubRequest())
    added = await machine.add("ada")
    assert (added.code, added.steps["idle"], added.steps["test"]) == (0, "ok", "skipped"), added
    await fleet.hubs.ResumeHub(hub_service_pb2.ResumeHubRequest())
    later = await machine.add("ada", "--resume")
    assert (later.code, later.steps["test"]) == (0, "ok"), later


async def test_over_tls_the_sidecar_trusts_the_authority_that_the_command_was_given(fleet, machine, tmp_path):
    authority = Authority("an authority")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    certificate, key = authority.pair().write(tmp_path / "tls")
    await fleet.start_hub(server_tls_certificate=certificate, server_tls_key=key, auth_required="true")
    fleet.address = f"grpcs://{fleet.address.rpartition('/')[2]}"
    token = ("--token-file", str(fleet.data / "admin.token"))
    # As a person gives it: relative to where the command runs, which is not where the sidecar does.
    relative = Path(*[".."] * len(Path.cwd().parts[1:]), *tmp_path.parts[1:], "ca.crt")
    added = await machine.add("ada", *token, "--ca-file", str(relative))
    assert added.code == 0, added
    assert f'ca_file = "{tmp_path / "ca.crt"}"' in machine.folder("ada").config.read_text()
    distrusting = await machine.add("bob", *token)
    assert distrusting.code == 5
    assert not machine.folder("bob").path.exists()


async def test_a_lost_enrolment_is_taken_away_and_a_strangers_agent_of_the_name_is_not(fleet, machine, tmp_path):
    await fleet.start_hub()
    assert (await machine.add("ada")).code == 0
    machine.forget("ada", *STEPS)
    machine.folder("ada").token.unlink()
    stranger = Machine(tmp_path / "other", fleet)
    copied = stranger.folder("ada")
    copied.path.mkdir(parents=True)
    record = json.loads((machine.folder("ada").path / RECORD).read_text())
    (copied.path / RECORD).write_text(json.dumps({**record, "request_id": "another-request"}))
    theirs = await stranger.remove("ada")
    assert (theirs.code, theirs.steps["hub"]) == (0, "warning"), theirs
    assert (await fleet.agent("ada")).name == "agents/ada"
    ours = await machine.remove("ada", "--purge")
    assert (ours.code, ours.steps["hub"]) == (0, "ok"), ours
    with pytest.raises(errors.NotFound):
        await fleet.agent("ada")


async def test_a_second_add_is_refused_here_and_elsewhere_and_leaves_nothing(fleet, machine, tmp_path):
    await fleet.start_hub()
    assert (await machine.add("ada")).code == 0
    pid = machine.pid("ada")
    again = await machine.add("ada")
    assert (again.code, "set up here already" in again.err, "--rejoin" in again.err) == (4, True, True)
    elsewhere = Machine(tmp_path / "other", fleet)
    taken = await elsewhere.add("ada")
    assert (taken.code, "the hub has an agents/ada already" in taken.err) == (4, True)
    assert not list(elsewhere.base.glob("*"))
    assert machine.pid("ada") == pid


async def test_a_rejoin_asks_then_gives_a_new_token_and_voids_the_old(fleet, machine):
    await fleet.start_hub()
    assert (await machine.add("ada", "--slots", "3")).code == 0
    pid, before = machine.pid("ada"), machine.folder("ada").token.read_text()
    declined = await machine.add("ada", "--rejoin")
    assert declined.code != 0
    assert (machine.pid("ada"), machine.folder("ada").token.read_text()) == (pid, before)
    again = await machine.add("ada", "--rejoin", "--yes")
    assert again.code == 0, again
    assert machine.folder("ada").token.read_text() != before
    assert machine.pid("ada") not in (pid, None)
    assert len(machine.sidecars()) == 1
    assert (await fleet.agent("ada")).offer.slots == 3, "its configuration stayed"
    missing = await machine.add("eve", "--rejoin", "--yes")
    assert (missing.code, "add it without --rejoin" in missing.err) == (3, True)
    assert not machine.folder("eve").path.exists()


async def test_a_rejoin_takes_a_name_over_from_a_machine_that_is_lost(fleet, machine, tmp_path):
    await fleet.start_hub()
    assert (await machine.add("ada")).code == 0
    await fleet.hub.until(lambda: machine.pid("ada") is not None, PATIENCE_S)
    elsewhere = Machine(tmp_path / "other", fleet)
    try:
        moved = await elsewhere.add("ada", "--rejoin", "--yes")
        assert moved.code == 0, moved
        await processes.until(lambda: machine.pid("ada") is None, "the old one was sent away for good")
    finally:
        elsewhere.close()


async def test_removal_waits_for_what_is_held_and_keeps_the_clones(fleet, machine, tmp_path, origin: Origin):
    await fleet.start_hub()
    await fleet.add_repo("notes", origin.path, default_branch="main")
    assert (await machine.add("ada", "--repo", "notes", "--sandbox", "off")).code == 0
    begun, go = tmp_path / "begun", tmp_path / "go"
    command = f"touch {begun}; while ! test -e {go}; do sleep 0.05; done"
    task = await fleet.submit(spec("long", command))
    await processes.until(begun.exists, "it runs")
    impatient = await machine.remove("ada", "--wait", "0")
    assert (impatient.code, "it still works on" in impatient.err) == (4, True)
    assert machine.pid("ada") is not None
    removing = asyncio.create_task(machine.remove("ada"))
    await fleet.until_agent("ada", agent_pb2.Agent.STATE_DRAINING)
    go.touch()
    removed = await removing
    assert removed.code == 0, removed
    await fleet.until_tasks(task)
    assert [path.name for path in machine.folder("ada").path.iterdir()] == ["work"]
    assert list((machine.folder("ada").work / "repos").glob("*.git"))
    assert not machine.sidecars()
    assert (await machine.remove("eve")).code == 3
    readded = await machine.add("ada")
    assert readded.code == 0, readded


async def test_what_has_ended_is_started_again_by_resume(fleet, machine):
    await fleet.start_hub()
    assert (await machine.add("ada")).code == 0
    pid = machine.pid("ada")
    os.kill(pid, signal.SIGKILL)
    await processes.until(lambda: machine.pid("ada") is None, "it is dead")
    resumed = await machine.add("ada", "--resume")
    assert resumed.code == 0, resumed
    assert machine.pid("ada") not in (pid, None)
    await fleet.until_tasks(await fleet.submit(spec("after it")))


async def test_with_a_join_key_alone_all_but_the_test_task_is_done_and_a_token_does_that_later(
    fleet, machine, tmp_path
):
    await fleet.start_hub(auth_required="true")
    admin = ("--token-file", str(fleet.data / "admin.token"))
    words = ["--hub", fleet.address, "-o", "json", *admin, "token", "create", "--scope"]
    made = {}
    for scope in ("join", "viewer", "operator"):
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", "cli", *words, scope], capture_output=True, check=True, timeout=60
        )
        made[scope] = tmp_path / scope
        made[scope].write_text(json.loads(done.stdout)["secret"])
    nobody = await machine.add("ada")
    assert nobody.code == 6
    viewer = await machine.add("ada", "--token-file", str(made["viewer"]))
    assert (viewer.code, "cannot add an agent" in viewer.err) == (6, True)
    assert not list(machine.base.glob("*"))
    added = await machine.add("ada", "--join-key-file", str(made["join"]))
    assert added.code == 0, added
    assert (added.steps["idle"], added.steps["test"]) == ("ok", "skipped")
    key = made["join"].read_text()
    assert key not in text_of(*(path for path in machine.folder("ada").path.glob("*") if path.is_file()))
    used = await machine.add("bob", "--join-key-file", str(made["join"]))
    assert used.code == 6
    assert used.steps["enrol"] == "failed"
    assert (await machine.remove("bob", "--token-file", str(made["operator"]), "--purge")).code == 0
    later = await machine.add("ada", "--resume", "--token-file", str(made["operator"]))
    assert (later.code, later.steps["test"]) == (0, "ok"), later
    removed = await machine.remove("ada", "--token-file", str(made["operator"]))
    assert removed.code == 0, removed


async def test_a_machine_without_an_identity_of_git_is_warned_and_one_without_git_is_refused(fleet, machine, tmp_path):
    await fleet.start_hub()
    looked = await asyncio.to_thread(machine.agent, "preflight", *machine.where())
    found = {one["check"]: one["verdict"] for one in json.loads(looked.out)}
    assert looked.code == 0, looked
    assert found["identity"] == "warning"
    assert {found[check] for check in ("git", "disk", "clock", "executor:shell", "hub")} == {"ok"}
    assert not machine.base.exists(), "a look leaves nothing"
    bare = tmp_path / "bin"
    bare.mkdir()
    for program in ("sh", "rm", "echo", "true"):
        (bare / program).symlink_to(f"/bin/{program}")
    added = await machine.add("ada", PATH=str(bare))
    assert added.code == 4, added
    assert (added.steps["git"], added.steps["preflight"]) == ("failed", "failed")
    assert "install" in added.message("git")
    with pytest.raises(errors.NotFound):
        await fleet.agent("ada")
    mended = await machine.add("ada", "--resume")
    assert mended.code == 0, mended
    known = await asyncio.to_thread(machine.agent, "preflight", "ada", *machine.where())
    assert known.code == 0, known
    assert machine.pid("ada") is not None, "a look does not disturb the one that works"


async def test_a_repo_that_cannot_be_reached_and_a_hub_that_is_away_are_told_before_anything_is_enrolled(
    fleet, machine
):
    await fleet.start_hub()
    await fleet.add_repo("gone", machine.root / "nowhere.git")
    added = await machine.add("ada", "--repo", "gone")
    assert (added.code, added.steps["repo:gone"]) == (4, "failed"), added
    with pytest.raises(errors.NotFound):
        await fleet.agent("ada")
    assert (await machine.add("eve")).code == 0
    await fleet.kill_hub()
    lost = await machine.remove("eve")
    assert (lost.code, "--local" in lost.err) == (5, True)
    assert machine.pid("eve") is not None, "nothing is changed"
    local = await machine.remove("eve", "--local", "--now", "--purge")
    assert (local.code, machine.sidecars()) == (0, []), local
    away = await machine.add("bob")
    assert away.code == 5
    assert not machine.folder("bob").path.exists()
    looked = await asyncio.to_thread(machine.agent, "preflight", *machine.where())
    assert (looked.code, "cannot be reached" in looked.out or "failed to connect" in looked.out) == (1, True), looked


async def test_a_sidecar_that_cannot_start_is_told_with_the_end_of_its_log(fleet, machine):
    await fleet.start_hub()
    assert (await machine.add("ada")).code == 0
    os.kill(machine.pid("ada"), signal.SIGKILL)
    await processes.until(lambda: machine.pid("ada") is None, "it is dead")
    config = machine.folder("ada").config
    config.write_text(config.read_text().replace("slots = 1", "slots = 1000"))
    resumed = await machine.add("ada", "--resume")
    assert resumed.code != 0
    assert "slots" in resumed.err
    with contextlib.suppress(ProcessLookupError):
        assert not machine.sidecars()
