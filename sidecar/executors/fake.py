"""A scripted executor for trials and tests: it does, or feigns, what its script says. It costs no tokens.

The task's command is the script, in YAML or JSON: a list of steps, or a mapping that picks one by attempt and round:

    attempts:
      1: [{write: answer.txt, content: wrong}]
      2: [{write: answer.txt, content: right}]
    otherwise: [{no_diff: true}]
    repair: [{write: answer.txt, content: right}]

Steps (one key names the step, further keys belong to it):

    write: PATH, content: TEXT     append: PATH, content: TEXT     delete: PATH-OR-GLOB
    print: TEXT                    run: COMMAND                    touch: FILE (anywhere: a signal for a test)
    wait_for: FILE                 waits until the file is there; reacts to a stop at once
    hang: true                     prints nothing and never ends
    exit: CODE                     fails as a command would
    lie: TEXT                      ends here and claims TEXT, whatever was done
    no_diff: true                  ends here
    rate_limit: SECONDS            fails as a model provider would
    fail: REASON, attribution: WHO, message: TEXT
    tokens: N                      claims to have spent N tokens
    crash: executor | sidecar      raises, or kills this process with KILL (a poison task)
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml

from sidecar.core import assignment, fault
from sidecar.core.selftest import Finding
from sidecar.executors import shell
from sidecar.executors.base import ExecutorResult, Job

STEP_COUNT_MAX = 1000
# Between two looks for a file; a stop is felt at once all the same.
LOOK_EVERY_S = 0.02


class Fake:
    """Plays a script."""

    name = "fake"
    tiers = frozenset({"trivial", "standard", "complex"})
    repairable = True

    async def execute(self, job: Job) -> ExecutorResult:
        """Play the script of this attempt and round."""
        if job.task.isolation == "required":
            raise fault.Fault(
                "scripts are played by the sidecar itself, outside of any sandbox, and the task demands one",
                reason="NO_SANDBOX",
                attribution="agent",
            )
        return await _Play(job).to_end(steps_of(job.task.command, attempt=job.task.attempt, round_=job.round))

    async def probe(self) -> Finding:
        """It needs nothing."""
        return Finding(probe=f"executor:{self.name}", passed=True, message="plays scripts")


def steps_of(script: str, *, attempt: int, round_: int) -> tuple[Mapping[str, Any], ...]:
    """The steps for this attempt and round. Raises Fault when the script is not one."""
    try:
        data = yaml.safe_load(script) if script.strip() else []
    except yaml.YAMLError as error:
        raise _bad(f"is not YAML: {' '.join(str(error).split())}") from error
    if isinstance(data, dict):
        unknown = set(data) - {"attempts", "otherwise", "repair"}
        if unknown:
            raise _bad(f"has unknown keys: {', '.join(sorted(map(str, unknown)))}")
        if round_:
            data = data.get("repair") or []
        else:
            data = (data.get("attempts") or {}).get(attempt, data.get("otherwise") or [])
    elif round_:
        data = []
    if not isinstance(data, list) or not all(isinstance(step, dict) and step for step in data):
        raise _bad("is not a list of steps")
    if len(data) > STEP_COUNT_MAX:
        raise _bad(f"has {len(data)} steps, at most {STEP_COUNT_MAX} are allowed")
    return tuple(data)


class _Ended(Exception):
    """The script says that the play is over."""


class _Play:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._summary = ""
        self._tokens: int | None = 0
        self._steps: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "write": self._write,
            "append": self._append,
            "delete": self._delete,
            "print": lambda step: job.say(str(step["print"])),
            "touch": lambda step: self._anywhere(step["touch"]).touch(),
            "exit": self._exit,
            "lie": self._lie,
            "no_diff": self._no_diff,
            "rate_limit": self._rate_limit,
            "fail": self._fail,
            "tokens": self._spend,
            "crash": self._crash,
        }

    async def to_end(self, steps: tuple[Mapping[str, Any], ...]) -> ExecutorResult:
        try:
            for step in steps:
                await self._play(step)
        except _Ended:
            pass
        return ExecutorResult(summary=self._summary, tokens=self._tokens)

    async def _play(self, step: Mapping[str, Any]) -> None:
        if self._job.control.stop.is_set():
            raise fault.Stopped(self._job.control.stop.reason)
        if "wait_for" in step:
            await self._wait(self._anywhere(step["wait_for"]))
        elif "hang" in step:
            await self._wait(None)
        elif "run" in step:
            await self._run(str(step["run"]))
        else:
            name = next((key for key in step if key in self._steps), None)
            if name is None:
                raise _bad(f"has an unknown step: {', '.join(map(str, step))}")
            self._steps[name](step)

    async def _wait(self, file: Path | None) -> None:
        """Until the file is there, for ever without one; bounded as a child would be, by silence."""
        stop, silence_s = self._job.control.stop, self._job.task.silence_timeout_s
        try:
            async with asyncio.timeout(min(silence_s, self._job.task.run_timeout_s)):
                while not (file is not None and _is_there(file)):
                    try:
                        async with asyncio.timeout(LOOK_EVERY_S if file is not None else None):
                            await stop.wait()
                    except TimeoutError:
                        continue
                    raise fault.Stopped(stop.reason)
        except TimeoutError:
            raise fault.Fault(
                f"the script did nothing for {silence_s:g} s", reason="SILENT", attribution="task"
            ) from None

    async def _run(self, command: str) -> None:
        ended = await self._job.start(
            ("sh", "-c", command),
            cwd=self._job.tree,
            extra=self._job.variables,
            silence_timeout_s=self._job.task.silence_timeout_s,
        )
        self._summary = shell.result_of(ended, self._job).summary

    def _inside(self, name: object) -> Path:
        """A path in the working tree, and nowhere else, not even through a link."""
        root = self._job.tree.resolve()
        path = (root / str(name)).resolve()
        if path == root or not path.is_relative_to(root):
            raise _bad(f"names a path outside of the working tree: {name}")
        return path

    def _anywhere(self, name: object) -> Path:
        return self._job.tree / str(name)

    def _write(self, step: Mapping[str, Any]) -> None:
        path = self._inside(step["write"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(step.get("content", "")))

    def _append(self, step: Mapping[str, Any]) -> None:
        path = self._inside(step["append"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(str(step.get("content", "")))

    def _delete(self, step: Mapping[str, Any]) -> None:
        for path in sorted(self._job.tree.glob(str(step["delete"]))):
            if path.is_file():
                self._inside(path.relative_to(self._job.tree)).unlink()

    def _exit(self, step: Mapping[str, Any]) -> None:
        if step["exit"] != 0:
            raise fault.Fault(
                f"the command ended with exit code {step['exit']}", reason="COMMAND_FAILED", attribution="task"
            )
        raise _Ended

    def _lie(self, step: Mapping[str, Any]) -> None:
        self._summary = str(step["lie"])
        raise _Ended

    def _no_diff(self, step: Mapping[str, Any]) -> None:
        raise _Ended

    def _rate_limit(self, step: Mapping[str, Any]) -> None:
        raise fault.Fault(
            f"the provider refuses for {step['rate_limit']} s", reason="RATE_LIMITED", attribution="provider"
        )

    def _fail(self, step: Mapping[str, Any]) -> None:
        who = step.get("attribution", "task")
        if who not in get_args(assignment.Attribution):
            raise _bad(f"has an unknown attribution: {who}")
        raise fault.Fault(str(step.get("message", "scripted")), reason=str(step["fail"]), attribution=who)

    def _spend(self, step: Mapping[str, Any]) -> None:
        self._tokens = (self._tokens or 0) + int(step["tokens"])

    def _crash(self, step: Mapping[str, Any]) -> None:
        if step["crash"] == "sidecar":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("the script crashed the executor")


def _is_there(file: Path) -> bool:
    return file.exists()


def _bad(message: str) -> fault.Fault:
    return fault.Fault(f"the script {message}", reason="BAD_SCRIPT", attribution="task")
