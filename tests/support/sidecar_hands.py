"""Builders for the sidecar's hands: assignments with defaults, and a runner with short patience."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit import clock
from sidecar.child.control import Control
from sidecar.child.sandbox import SandboxSettings
from sidecar.core.assignment import Assignment, Check, Done, Holding, NotDone
from sidecar.hands.runner import Runner
from sidecar.settings import RunnerSettings

AGENT = "builder-1"
TASK = "0" * 18 + "t1"
# A test that waits for a file or an event gives up after this long.
PATIENCE_S = 20.0


def holding(generation: int = 1, task: str = TASK) -> Holding:
    """A holding of the test's task."""
    return Holding(task=task, generation=generation)


def assignment(**changed: Any) -> Assignment:
    """An assignment that does nothing; say what it should be."""
    return Assignment(**{"holding": holding(), "title": "Do the thing", "goal": "goals/g1", **changed})


def check(run: str, *, id: str = "c1", expect: str = "any", timeout_s: float = 10.0) -> Check:
    """A check."""
    return Check(id=id, run=run, timeout_s=timeout_s, expect_on_base=expect)  # type: ignore[arg-type]  # stands in for it


def settings(work_dir: Path, **changed: Any) -> RunnerSettings:
    """Settings for tests: short grace, both executors."""
    base = RunnerSettings(
        work_dir=work_dir,
        executors=("shell", "fake"),
        kill_grace_s=0.2,
        git_timeout_s=20.0,
        git_network_timeout_s=20.0,
        lock_timeout_s=20.0,
        disk_free_bytes_min=1,
        # Most tests signal through files outside of the working tree; those of the sandbox turn it on.
        sandbox=SandboxSettings(mode="off"),
    )
    return replace(base, **changed)


def runner(work_dir: Path, agent: str = AGENT, **changed: Any) -> Runner:
    """A runner on a folder."""
    return Runner(settings(work_dir, **changed), clock.SystemClock(), random.Random(1), agent)


async def done(runner_: Runner, task: Assignment, control: Control | None = None) -> Done:
    """Run to an end that must be Done."""
    outcome = await runner_.run(task, control or Control())
    assert isinstance(outcome, Done), f"{outcome.failure}\n{outcome.artifacts[-1].content.decode()}"
    return outcome


async def not_done(runner_: Runner, task: Assignment, control: Control | None = None) -> NotDone:
    """Run to an end that must be NotDone."""
    outcome = await runner_.run(task, control or Control())
    assert isinstance(outcome, NotDone), outcome.summary
    return outcome


async def until(holds: Callable[[], bool]) -> None:
    """Return when `holds` says so: for what another process does, which can signal nothing else."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.005)


async def until_exists(path: Path) -> None:
    """Return when the file is there: the signal that a child has come so far."""
    await until(path.exists)


async def number_in(path: Path) -> int:
    """The number that another process writes into a file."""
    found: list[int] = []

    def look() -> bool:
        if path.exists() and path.read_text().endswith("\n"):
            found.append(int(path.read_text()))
        return bool(found)

    await until(look)
    return found[0]


def alive(pid: int) -> bool:
    """Does the process run, and is it not merely waiting to be reaped?"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


async def until_dead(pid: int) -> None:
    """Return when the process is gone."""
    await until(lambda: not alive(pid))


@contextlib.contextmanager
def start(*argv: str, cwd: Path, environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone at the end of the block, however the block ends."""
    with subprocess.Popen(argv, cwd=cwd, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def confined(work_dir: Path, **changed: Any) -> Runner:
    """A runner that runs nothing without a sandbox."""
    caches = changed.pop("caches", ())
    return runner(work_dir, sandbox=SandboxSettings(mode="required", caches=caches), **changed)
