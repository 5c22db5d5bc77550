"""One attempt while it runs: its log, its receipts, its deadline, and the way its children are started."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kit.clock import Clock
from sidecar.child import control as reins
from sidecar.child import environment, process
from sidecar.core import assignment, fault
from sidecar.core.capture import Capture
from sidecar.core.meter import NOBODY, Meter
from sidecar.executors.base import Executor, ExecutorResult, Job, Registry
from sidecar.repo.prepare import Workspaces
from sidecar.repo.workspace import Workspace
from sidecar.settings import RunnerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every attempt of one sidecar shares."""

    settings: RunnerSettings
    clock: Clock
    launcher: process.Launcher
    workspaces: Workspaces
    executors: Registry
    agent: str
    meter: Meter = NOBODY

    @property
    def host(self) -> str:
        """Name of this machine."""
        return socket.gethostname()[:128]


class Attempt:
    """One holding's run."""

    def __init__(self, tools: Tools, task: assignment.Assignment, control: reins.Control) -> None:
        self.tools = tools
        self.task = task
        self.control = control
        self.receipts: list[assignment.Receipt] = []
        self.artifacts: list[assignment.Artifact] = []
        #: None: unknown.
        self.tokens: int | None = None
        #: Set once there is one: what is in it must be saved when the attempt fails.
        self.workspace: Workspace | None = None
        self.trail = tools.meter.trail(task)
        self._log = Capture(head_bytes_max=process.HEAD_BYTES_MAX, tail_bytes_max=process.TAIL_BYTES_MAX)
        self._deadline = asyncio.get_running_loop().time() + task.run_timeout_s

    def phase(self, name: str) -> None:
        """Enter the next phase, unless the attempt has to end here. Raises Stopped or Fault."""
        self.checkpoint()
        self.trail.enter(name)
        self.progress(phase=name)
        self.say(name)

    def checkpoint(self) -> None:
        """Go on? Raises Stopped when the session said stop, Fault when the attempt's time is over."""
        if self.control.stop.is_set():
            raise fault.Stopped(self.control.stop.reason)
        if self.remaining_s <= 0:
            raise fault.Fault(
                f"the attempt took longer than {self.task.run_timeout_s:g} s", reason="TIMEOUT", attribution="task"
            )

    @property
    def remaining_s(self) -> float:
        """Until the attempt's deadline."""
        return self._deadline - asyncio.get_running_loop().time()

    def progress(self, **changed: object) -> None:
        """Tell how it gets on."""
        self.control.progress = msgspec.structs.replace(self.control.progress, **changed)

    def say(self, text: str) -> None:
        """A line of our own in the log."""
        self._take(f"[agentcom] {text}\n")

    def children_environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """The scrubbed environment of executors and checks; it tells them the trace, where there is one."""
        trace = {"TRACEPARENT": self.trail.traceparent} if self.trail.traceparent else {}
        return {**environment.for_child(self.tools.settings.pass_environment), **trace, **extra}

    async def child(
        self,
        argv: tuple[str, ...],
        *,
        cwd: Path,
        extra: Mapping[str, str],
        timeout_s: float | None = None,
        silence_timeout_s: float | None = None,
    ) -> process.Ended:
        """Run a child within the attempt's own deadline; its output goes to the log and to who watches.

        Confined where this machine has a sandbox. Raises Stopped when the session stopped the attempt meanwhile,
        Fault when it may not run unconfined.
        """
        self.checkpoint()
        ended = await self._run(
            process.Order(
                argv=argv,
                cwd=cwd,
                environment=self.children_environment(extra),
                timeout_s=self.remaining_s if timeout_s is None else min(timeout_s, self.remaining_s),
                silence_timeout_s=silence_timeout_s,
                kill_grace_s=self.tools.settings.kill_grace_s,
                stop=self.control.stop,
                on_output=self._take,
            )
        )
        if ended.cause == "stopped":
            raise fault.Stopped(self.control.stop.reason)
        return ended

    async def executed(self, executor: Executor, job: Job) -> ExecutorResult:
        """Let an executor do the work, or one repair of it. Raises what the executor raises."""
        clock, good = self.tools.clock, False
        began = clock.monotonic()
        try:
            result = await executor.execute(job)
            good = result.failure is None
        finally:
            seconds = clock.monotonic() - began
            self.tools.meter.executed(executor.name, seconds, good=good, where=self.trail.traceparent)
        return result

    def log_artifact(self) -> assignment.Artifact:
        """The attempt's log so far."""
        return assignment.Artifact(
            id="log",
            media_type="text/plain; charset=utf-8",
            content=self._log.content[: assignment.ARTIFACT_BYTES_MAX],
            size_bytes=self._log.size_bytes,
            truncated=self._log.dropped_bytes > 0,
        )

    async def _run(self, order: process.Order) -> process.Ended:
        confinement = self.tools.workspaces.confinement
        confinement.refuse_without(required=self.task.isolation == "required")
        if not confinement.is_on:
            return await self.tools.launcher.run(order)
        return await confinement.run(order, repo=self.task.repo, network=self.task.network)

    def _take(self, text: str) -> None:
        self._log.feed(text.encode(errors="replace"))
        self.progress(last_output_at=self.tools.clock.now())
        self.control.output(text)
