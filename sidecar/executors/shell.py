"""The executor for work that needs no mind: the task's command, given to `sh -c`. It costs no tokens."""

from __future__ import annotations

from pathlib import Path

from sidecar.child import environment, process
from sidecar.core import cut, fault
from sidecar.core.assignment import EVIDENCE_BYTES_MAX, MESSAGE_BYTES_MAX
from sidecar.core.selftest import Finding
from sidecar.executors.base import ExecutorResult, Job

PROBE_TIMEOUT_S = 10.0


class Shell:
    """Runs commands."""

    name = "shell"
    tiers = frozenset({"trivial"})
    #: A command has no idea of what a red check means: running it again would do the same again.
    repairable = False

    def __init__(self, launcher: process.Launcher) -> None:
        self._launcher = launcher

    async def execute(self, job: Job) -> ExecutorResult:
        """Run the command in the root of the working tree."""
        if not job.task.command.strip():
            raise fault.Fault("the task has no command", reason="COMMAND_MISSING", attribution="task")
        ended = await job.start(
            ("sh", "-c", job.task.command),
            cwd=job.tree,
            extra=job.variables,
            silence_timeout_s=job.task.silence_timeout_s,
        )
        return result_of(ended, job)

    async def probe(self) -> Finding:
        """Run a command."""
        ended = await self._launcher.run(
            process.Order(
                argv=("sh", "-c", "echo ready"),
                cwd=Path("/"),
                environment=environment.for_child(),
                timeout_s=PROBE_TIMEOUT_S,
            )
        )
        passed = ended.succeeded and ended.output.text == "ready\n"
        message = (
            "runs commands" if passed else f"`sh -c` ended with {ended.exit_code}; is there a POSIX shell in PATH?"
        )
        return Finding(probe=f"executor:{self.name}", passed=passed, message=message)


def result_of(ended: process.Ended, job: Job) -> ExecutorResult:
    """What the end of a command means for the attempt. Raises Fault when it is not a success."""
    evidence = cut.tail(ended.output.text, EVIDENCE_BYTES_MAX)
    if ended.cause == "timeout":
        raise fault.Fault(
            f"the command ran longer than the attempt may, {job.task.run_timeout_s:g} s",
            reason="TIMEOUT", attribution="task", evidence=evidence,
        )  # fmt: skip
    if ended.cause == "silent":
        raise fault.Fault(
            f"the command printed nothing for {job.task.silence_timeout_s:g} s",
            reason="SILENT", attribution="task", evidence=evidence,
        )  # fmt: skip
    if ended.exit_code != 0:
        how = _how(ended.exit_code)
        raise fault.Fault(
            f"the command ended with {how}", reason="COMMAND_FAILED", attribution="task", evidence=evidence
        )
    return ExecutorResult(summary=cut.last_line(ended.output.text, MESSAGE_BYTES_MAX), tokens=0)


def _how(exit_code: int) -> str:
    if exit_code < 0:
        return f"signal {-exit_code}"
    # A shell, and the sandbox, say of a process that a signal ended: 128 and its number.
    return f"exit code {exit_code}" + (f", as after signal {exit_code - 128}" if 128 < exit_code <= 128 + 64 else "")
