"""The built files as they are deployed: in a folder of their own, with the system's programs and nothing of this tree.

The files are built into dist/, or taken from it when they are of this tree. Every process that runs is looked at: what
it has mapped, opened, been given and where it stands must have nothing of this folder in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentcom.v1 import agent_pb2, task_pb2
from kit.version import VERSION
from tests.support import gitrepo, processes
from tests.support.fleet import Fleet, spec
from tests.support.gitrepo import Origin
from tests.support.processes import PATIENCE_S, Process, until
from tools import build

NAMES = [program.name for program in build.PROGRAMS]
GOAL = """\
---
title: Greet twice
repo: demo
assertions:
  - {id: A1, text: There is a greeting in German, run: grep -q Hallo german.txt}
  - {id: A2, text: There is a greeting in French, run: grep -q Bonjour french.txt}
plan:
  tasks:
    - id: T1
      title: In German
      fulfills: [A1]
      touches: [german.txt]
      checks: [{run: grep -q Hallo german.txt, expect_on_base: fail}]
      command: while ! test -e GATE; do sleep 0.05; done; echo Hallo > german.txt
    - id: T2
      title: In French
      fulfills: [A2]
      touches: [french.txt]
      checks: [{run: grep -q Bonjour french.txt, expect_on_base: fail}]
      command: echo Bonjour > french.txt
---
Two greetings.
"""


@pytest.fixture(scope="module")
def bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built files and a Python, far from this tree."""
    build.ensure(build.ROOT / "dist")
    folder = tmp_path_factory.mktemp("built") / "bin"
    folder.mkdir()
    for name in NAMES:
        shutil.copy2(build.ROOT / "dist" / name, folder / name)
    # Of the system or of a person: the one that this environment was made from, which knows nothing of it.
    python = Path(sys.base_prefix) / "bin" / "python{}.{}".format(*sys.version_info)
    (folder / python.name).symlink_to(python.resolve())
    return folder


class Built(Fleet):
    """A fleet of built files."""

    def __init__(self, root: Path, bin: Path) -> None:
        super().__init__(root)
        self.bin = bin

    def _command(self, node: str) -> list[str]:
        return [str(self.bin / f"agentcom-{node}")]

    async def agentcom(self, *words: str, code: int = 0) -> str:
        """What a command of the CLI prints. It must end with `code`."""
        return await self.run("agentcom", "--hub", self.address, *words, code=code)

    async def run(self, name: str, *words: str, code: int = 0) -> str:
        """What a built file prints."""
        done = await asyncio.to_thread(
            subprocess.run, [name, *words], capture_output=True, text=True, timeout=2 * PATIENCE_S,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == code, done
        assert not from_source(done.stdout + done.stderr), "not even a traceback may name the source"
        return done.stdout + done.stderr


@pytest.fixture
async def fleet(bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Built]:
    """Nothing of the environment of the tests is there, and we stand in an empty folder."""
    for name in list(os.environ):
        if name != "PYTEST_CURRENT_TEST":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{bin}:/usr/bin:/bin:/usr/sbin:/sbin")
    monkeypatch.setenv("HOME", str(bin.parent / "home"))  # of all tests here: each file is unpacked once
    gitrepo.isolate(monkeypatch)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    made = Built(tmp_path / "fleet", bin)
    try:
        yield made
    finally:
        await made.close()
    await processes.until(lambda: not processes.working_under(tmp_path), "nothing of the test is left running")


@pytest.fixture
def bubblewrap() -> None:
    """Skips where the machine cannot confine anything; CI installs bubblewrap, so there it does not skip."""
    try:
        command = ("bwrap", "--unshare-user", "--ro-bind", "/", "/", "true")
        subprocess.run(command, check=True, timeout=20, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no working bubblewrap: {error}")


def from_source(text: str) -> list[str]:
    """Lines that name this tree."""
    return [line for line in text.splitlines() if str(build.ROOT) in line]


def traces(pid: int) -> list[str]:
    """Whatever a process has of this tree: mapped, open, in its words, in its environment, as its folder."""
    place = Path(f"/proc/{pid}")
    found = from_source((place / "maps").read_text(errors="replace"))
    for name in ("cmdline", "environ"):
        found += from_source((place / name).read_text(errors="replace").replace("\0", "\n"))
    for link in (place / "cwd", place / "exe", place / "root", *(place / "fd").iterdir()):
        with contextlib.suppress(OSError):  # closed meanwhile
            found += from_source(os.readlink(link))
    return found


def words_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def below(pid: int) -> Iterator[int]:
    """The process and everything that it has started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from below(int(child))


def assert_whole(*running: Process | None) -> None:
    """They run, and nothing of them is of this tree; a look at ourselves shows that the look sees."""
    assert traces(os.getpid()), "we run from the source ourselves"
    for process in running:
        assert process is not None
        pids = list(below(process.pid))
        assert pids
        for pid in pids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # it has just ended
                assert traces(pid) == []


async def test_a_goal_is_merged_though_the_hub_is_killed_and_the_store_is_cared_for(
    fleet: Built, origin: Origin, tmp_path: Path
):
    await fleet.start_hub()
    await fleet.start_sidecars("ada", "grace")
    await fleet.agentcom("repo", "add", "demo", str(origin.path), "--check", "true")
    gate = tmp_path / "gate"
    file = tmp_path / "goal.md"
    file.write_text(GOAL.replace("GATE", str(gate)))
    waiting = asyncio.create_task(fleet.agentcom("goal", "submit", str(file), "--wait"), name="waiting")
    await fleet.until_events("task.accepted")
    assert_whole(fleet.hub, *fleet.sidecars.values())
    await fleet.kill_hub()
    await fleet.restart_hub()
    gate.touch()
    await waiting
    assert (origin.read("german.txt"), origin.read("french.txt")) == ("Hallo", "Bonjour")
    assert_whole(fleet.hub, *fleet.sidecars.values())

    # Each of these reads the store in a process of its own (hub/store/care/errand.py).
    assert "good" in await fleet.agentcom("hub", "verify")
    made = json.loads(await fleet.agentcom("-o", "json", "hub", "backup"))
    backup = str(made.get("name") or made["backup"]["name"]).removeprefix("backups/")
    assert fleet.hub is not None
    assert await fleet.hub.stop() == 0
    data = ("--data", str(fleet.data))
    assert "good" in await fleet.run("agentcom-hub", "verify", *data)
    assert "there is no backup" not in await fleet.agentcom("hub", "restore", backup, *data, "--force")
    await fleet.restart_hub()
    assert "Greet twice" in await fleet.agentcom("goal", "list")


async def test_what_a_task_leaves_behind_dies_with_a_sidecar_that_is_killed(fleet: Built, tmp_path: Path):
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    pid_file = tmp_path / "left"
    await fleet.submit(spec("leave something", f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 1000' & wait"))
    await until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the task has begun")
    left = int(pid_file.read_text())
    assert_whole(fleet.sidecars["ada"])
    await fleet.sidecars["ada"].kill()
    await until(lambda: not processes.is_alive(left), "the guard has ended what was left")


async def test_a_command_is_confined(fleet: Built, bubblewrap: None, tmp_path: Path):
    await fleet.start_hub()
    await fleet.start_sidecars("safe", sandbox_mode="required")
    policy = task_pb2.Policy(isolation=task_pb2.Policy.ISOLATION_REQUIRED)
    names = await fleet.submit(spec("be confined", f"touch {tmp_path}/escaped; python3 -c 1", policy=policy))
    await fleet.until_tasks(names)
    assert not (tmp_path / "escaped").exists()


async def test_an_agent_is_added_and_removed_and_runs_from_the_file_beside_the_command(fleet: Built, tmp_path: Path):
    await fleet.start_hub()
    places = ("--dir", str(tmp_path / "agents"))
    await fleet.agentcom("agent", "add", "ada", *places, "--service", "process")
    assert (await fleet.agent("ada")).state == agent_pb2.Agent.STATE_IDLE
    (pid,) = [int(file.read_text()) for file in (tmp_path / "agents").rglob("*.pid")]
    assert str(fleet.bin / "agentcom-sidecar") in words_of(pid)
    assert traces(pid) == []
    os.kill(pid, signal.SIGKILL)
    await fleet.agentcom("agent", "add", "ada", *places, "--resume")
    await fleet.agentcom("agent", "remove", "ada", *places, "--purge")
    assert not list((tmp_path / "agents").iterdir())


async def test_the_dashboard_serves_its_pages_and_all_that_they_load(fleet: Built, tmp_path: Path):
    await fleet.start_hub()
    log = tmp_path / "dashboard.log"
    # The dashboard listens where it is told; a port that was free a moment ago is the best that can be told.
    port = free_port()
    words = ["--hub", fleet.address, "--listen", f"127.0.0.1:{port}"]
    dashboard = await Process.start("dashboard", [*fleet._command("dashboard"), *words], log=log)
    fleet._processes.append(dashboard)

    def get(path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as reply:
            return bytes(reply.read())

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(get("/"))
        return False

    await until(lambda: not dashboard.is_running or answers(), "the dashboard answers")
    page = (await asyncio.to_thread(get, "/")).decode()
    assert "Overview" in page
    loaded = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert {Path(name.partition("?")[0]).suffix for name in loaded} >= {".css", ".js"}
    for name in loaded:
        assert await asyncio.to_thread(get, name), name
    assert_whole(dashboard, fleet.hub)
    assert await dashboard.stop() == 0


async def test_up_starts_a_hub_and_a_sidecar_from_the_files_beside_it(fleet: Built, tmp_path: Path):
    up = await Process.start("up", ["agentcom", "up", "--dir", str(tmp_path / "up")], log=tmp_path / "up.log")
    fleet._processes.append(up)
    await up.until(lambda: "Ctrl-C stops both" in up.said(), PATIENCE_S)
    assert len(list(below(up.pid))) >= 3
    assert_whole(up)
    assert await up.stop() == 0


async def test_a_command_alone_says_which_file_it_misses(fleet: Built, tmp_path: Path, monkeypatch):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy2(fleet.bin / "agentcom", alone)
    (python,) = fleet.bin.glob("python*")
    monkeypatch.setenv("PATH", f"{alone}:/usr/bin:/bin")
    monkeypatch.setenv("AGENTCOM_PYTHON", str(python))
    said = await fleet.run("agentcom", "git", "status", code=5)
    assert f"agentcom-sidecar is needed for this, and is neither in {alone} nor in PATH" in said


async def test_modules_come_out_of_the_file_alone(fleet: Built):
    for name in NAMES:
        assert await fleet.run(name, "--version") == f"{name} {VERSION}\n"
        (tree,) = (fleet.bin.parent / "home" / ".cache" / "agentcom").glob(f"{name}-{'[0-9a-f]' * 16}")
        # `site` as a part prints where modules are looked for.
        (python,) = fleet.bin.glob("python*")
        said = await fleet.run(str(python), "-I", "-S", f"{tree}/__main__.py", str(fleet.bin / name), "site")
        folders = re.findall(r"^    '(.*)',$", said, re.MULTILINE)
        assert folders[0] == f"{tree}/site"
        assert not [folder for folder in folders if "site-packages" in folder or "dist-packages" in folder]


def test_every_file_is_named_with_its_sum(bin: Path):
    done = subprocess.run(
        ["sha256sum", "-c", build.SUMS_FILE], cwd=build.ROOT / "dist", capture_output=True, timeout=60
    )
    assert done.returncode == 0, done


def free_port() -> int:
    """A port of the loopback that nobody has."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
