"""What an executor is, and how one is chosen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sidecar.child import process
from sidecar.child.control import Control
from sidecar.core import assignment, fault
from sidecar.core.selftest import Finding


class Start(Protocol):
    """Starts a child of the attempt: bounded by its deadline, logged, stopped with it."""

    def __call__(
        self,
        argv: tuple[str, ...],
        *,
        cwd: Path,
        extra: Mapping[str, str],
        timeout_s: float | None = None,
        silence_timeout_s: float | None = None,
    ) -> Awaitable[process.Ended]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What an executor is given."""

    task: assignment.Assignment
    #: Root of the working tree.
    tree: Path
    control: Control
    #: Variables that tell a child of its attempt (AGENTCOM_TASK, ...).
    variables: Mapping[str, str]
    start: Start
    #: Writes a line into the attempt's log.
    say: Callable[[str], None]
    #: 0: the work itself. 1, 2, ...: a repair of what `red` says.
    round: int = 0
    #: The checks that do not hold; None in round 0.
    red: assignment.Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorResult:
    """What an executor says of its work. It is believed in nothing but failure: the checks decide."""

    #: One line; empty: nothing to say.
    summary: str = ""
    failure: assignment.Failure | None = None
    #: None: unknown.
    tokens: int | None = None


class Executor(Protocol):
    """Does the work of one attempt in a working tree."""

    @property
    def name(self) -> str:
        """As a task's requirement spells it."""
        ...

    @property
    def tiers(self) -> frozenset[str]:
        """The tiers that it serves when a task names no executor."""
        ...

    @property
    def repairable(self) -> bool:
        """Can it look at a red check and try again in the same tree?"""
        ...

    async def execute(self, job: Job) -> ExecutorResult:
        """Do the work. Raises Stopped when `job.control.stop` is set."""
        ...

    async def probe(self) -> Finding:
        """Really try whether it works on this machine."""
        ...


class Registry:
    """The executors of this sidecar, in the order of its configuration."""

    def __init__(self, executors: tuple[Executor, ...]) -> None:
        self._executors = {executor.name: executor for executor in executors}

    def __iter__(self) -> Iterator[Executor]:
        return iter(self._executors.values())

    def choose(self, task: assignment.Assignment) -> Executor:
        """By name where the task names one, else the first that serves its tier. Raises Fault: not me."""
        if task.executor:
            found = self._executors.get(task.executor)
        else:
            found = next((e for e in self._executors.values() if task.tier in e.tiers), None)
        if found is None:
            wanted = task.executor or f"any for tier {task.tier}"
            raise fault.Fault(
                f"this agent has no such executor: {wanted}", reason="UNKNOWN_EXECUTOR", attribution="agent"
            )
        return found
