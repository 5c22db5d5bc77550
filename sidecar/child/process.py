"""Child processes: own session, own deadlines, bounded output, and a kill that works.

How a run ends:

    exits by itself ------------------------------+
    deadline, silence, stop -> TERM to the group  |
        -> grace -> KILL to the group ------------+-> KILL to what is left of the group and of the run's cookie
                                                      -> the pipe is read to its end, for PIPE_GRACE_S at most

In a sandbox the group that is asked to end is the one inside: bubblewrap itself must outlive it, for when it ends
everything inside is killed without grace. It says on a pipe of its own whether the command was begun at all, so that
a sandbox that fails is not mistaken for a command that does.

The pipe is ours and not asyncio's: a grandchild that keeps it open must not keep us waiting, and asyncio's own wait did
so in some versions. Standard input is /dev/null.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from kit.clock import Clock
from sidecar.child import guard
from sidecar.core.capture import Capture

# One read from the pipe; the loop serves others between two reads.
READ_BYTES = 64 * 1024
# Kept of a run's output: together below the contract's limit for an artefact, with room for the line between.
HEAD_BYTES_MAX = 64 * 1024
TAIL_BYTES_MAX = 176 * 1024
# Kept of a separate stderr, at its beginning and at its end: messages for people.
ERRORS_BYTES_MAX = 16 * 1024
# After the last process of the run is dead the pipe ends by itself; one that escaped does not get longer than this.
PIPE_GRACE_S = 2.0
# From KILL to the end of a process; longer means that the kernel holds it (a dead network file system).
KILL_WAIT_S = 10.0
# What bubblewrap says of a command: two short lines.
STATUS_BYTES_MAX = 4096

Cause = Literal["exited", "timeout", "silent", "stopped"]


class StopOrder(Protocol):
    """What a run watches; sidecar.control.Stop is one."""

    def is_set(self) -> bool: ...

    async def wait(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to run and within which bounds."""

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    timeout_s: float
    #: None: may be silent for as long as it runs.
    silence_timeout_s: float | None = None
    kill_grace_s: float = 5.0
    stop: StopOrder | None = None
    #: Called with each piece of output, in whole characters.
    on_output: Callable[[str], None] | None = None
    head_bytes_max: int = HEAD_BYTES_MAX
    tail_bytes_max: int = TAIL_BYTES_MAX
    #: True: stderr has a capture of its own. False: both streams mixed, as on a terminal.
    separate_stderr: bool = False
    #: False leaves alone what the child started and left behind (ssh's connection sharing under git).
    kill_leftovers: bool = True
    #: bubblewrap and its options (sandbox.py); empty: no sandbox.
    sandbox: tuple[str, ...] = ()
    #: Read by the child; None: nothing.
    stdin: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended."""

    #: Negative: by that signal.
    exit_code: int
    cause: Cause
    #: By the wall clock, seconds since the epoch.
    started_at: float
    duration_s: float
    output: Capture
    #: Empty unless asked for separately.
    errors: Capture = field(repr=False)
    #: Seconds since the epoch; None: it printed nothing.
    last_output_at: float | None = None
    #: The sandbox failed before it began the command: the exit code is not the command's.
    sandbox_failed: bool = False

    @property
    def succeeded(self) -> bool:
        """Exited by itself, with 0."""
        return self.cause == "exited" and self.exit_code == 0


class Launcher:
    """Starts children in the name of one sidecar and knows how to find them again."""

    def __init__(self, clock: Clock, sidecar_id: str) -> None:
        self._clock = clock
        self.sidecar_id = sidecar_id
        self._numbers = itertools.count(1)
        #: This process among all those that ever ran in the sidecar's name: the guard of one that died must not kill
        #: the children of the one that came after it.
        self._life = f"{sidecar_id}.{os.getpid()}-"
        self._guard = guard.Guard(self._life)

    async def start_guard(self) -> None:
        """Kill what an earlier sidecar of this id left, then watch over our own."""
        await asyncio.to_thread(guard.sweep, f"{self.sidecar_id}.")
        self._guard.start()

    def close(self) -> None:
        """End the guard; what still runs is killed."""
        self._guard.close()

    @property
    def guard_pid(self) -> int | None:
        """Of the guard process; None when it does not run."""
        return self._guard.pid

    async def run(self, order: Order) -> Ended:
        """Run a child to its end. Raises OSError when it cannot be started (no such program or folder)."""
        run = _Run(order, self._clock, run_id=f"{self._life}{next(self._numbers)}")
        return await run.to_end()


class _Run:
    def __init__(self, order: Order, clock: Clock, *, run_id: str) -> None:
        self._order = order
        self._clock = clock
        self._run_id = run_id
        self._output = Capture(head_bytes_max=order.head_bytes_max, tail_bytes_max=order.tail_bytes_max)
        self._errors = Capture(head_bytes_max=ERRORS_BYTES_MAX, tail_bytes_max=ERRORS_BYTES_MAX)
        self._last_output_at: float | None = None
        self._last_sign = 0.0  # loop time of the start or of the last output
        self._pipes: list[_Pipe] = []
        self._status = _Status() if order.sandbox else None

    async def to_end(self) -> Ended:
        started_at, began = self._clock.now(), self._clock.monotonic()
        process = await self._start()
        try:
            cause = await self._watch(process)
            if cause != "exited":
                await self._end(process)
        finally:
            # Also when we are cancelled: nothing may outlive its run. Only signals here, nothing that waits long.
            if process.returncode is None or self._order.kill_leftovers:
                _signal_group(process.pid, signal.SIGKILL)
            try:
                await asyncio.shield(self._clear(process))
            finally:
                for pipe in self._pipes:
                    pipe.close()
                if self._status is not None:
                    self._status.close()
        self._tell(self._output.finish())
        assert process.returncode is not None
        return Ended(
            exit_code=process.returncode,
            cause=cause,
            started_at=started_at,
            duration_s=self._clock.monotonic() - began,
            output=self._output,
            errors=self._errors,
            last_output_at=self._last_output_at,
            sandbox_failed=(
                self._status is not None
                and cause == "exited"
                and process.returncode > 0  # one that was killed from outside may well have begun
                and not self._status.has_begun
            ),
        )

    async def _start(self) -> asyncio.subprocess.Process:
        self._last_sign = asyncio.get_running_loop().time()
        writers: list[int] = []
        stdin, argv = subprocess.DEVNULL, self._order.argv
        passed: tuple[int, ...] = ()
        try:
            writers.append(self._open_pipe(self._output))
            writers.append(self._open_pipe(self._errors) if self._order.separate_stderr else writers[0])
            if self._order.stdin is not None:
                writers.append(stdin := _open_plain(self._order.stdin))
            if self._status is not None:
                writers.append(status := self._status.open())
                argv, passed = (*self._order.sandbox, "--json-status-fd", str(status), "--", *argv), (status,)
            return await asyncio.create_subprocess_exec(
                *argv,
                stdin=stdin,
                stdout=writers[0],
                stderr=writers[1],
                cwd=self._order.cwd,
                env={**self._order.environment, guard.COOKIE: self._run_id},
                start_new_session=True,
                pass_fds=passed,
            )
        except BaseException:
            for pipe in self._pipes:
                pipe.close()
            if self._status is not None:
                self._status.close()
            raise
        finally:
            for writer in set(writers):
                os.close(writer)

    def _open_pipe(self, capture: Capture) -> int:
        reader, writer = os.pipe()
        self._pipes.append(_Pipe(reader, lambda data: self._take(capture, data)))
        return writer

    def _take(self, capture: Capture, data: bytes) -> None:
        self._last_sign = asyncio.get_running_loop().time()
        self._last_output_at = self._clock.now()
        text = capture.feed(data)
        if capture is self._output:
            self._tell(text)

    def _tell(self, text: str) -> None:
        if text and self._order.on_output is not None:
            self._order.on_output(text)

    async def _watch(self, process: asyncio.subprocess.Process) -> Cause:
        """Wait until the process exits, or until it has to be ended; says which."""
        exited = asyncio.create_task(process.wait(), name=f"exit of {self._run_id}")
        stopped = None
        if self._order.stop is not None:
            stopped = asyncio.create_task(self._order.stop.wait(), name=f"stop of {self._run_id}")
        waiting = {task for task in (exited, stopped) if task is not None}
        deadline = asyncio.get_running_loop().time() + self._order.timeout_s
        try:
            while True:
                now = asyncio.get_running_loop().time()
                wake_at = deadline
                if self._order.silence_timeout_s is not None:
                    wake_at = min(deadline, self._last_sign + self._order.silence_timeout_s)
                await asyncio.wait(waiting, timeout=max(0.0, wake_at - now), return_when=asyncio.FIRST_COMPLETED)
                if exited.done():
                    return "exited"
                if stopped is not None and stopped.done():
                    return "stopped"
                now = asyncio.get_running_loop().time()
                if now >= deadline:
                    return "timeout"
                silence = self._order.silence_timeout_s
                if silence is not None and now >= self._last_sign + silence:
                    return "silent"
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Ask the group to end, and make it."""
        inside = self._status.pid if self._status is not None else None
        _signal_group(process.pid if inside is None else inside, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._order.kill_grace_s):
                await process.wait()
        except TimeoutError:
            _signal_group(process.pid, signal.SIGKILL)

    async def _clear(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the process, kill what it left behind, read what is still in the pipes."""
        async with asyncio.timeout(KILL_WAIT_S):
            await process.wait()
        if self._order.kill_leftovers:
            await asyncio.to_thread(guard.reap, self._run_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PIPE_GRACE_S):
                for pipe in self._pipes:
                    await pipe.ended.wait()


class _Pipe:
    """Reads one pipe as it fills."""

    def __init__(self, reader: int, take: Callable[[bytes], None]) -> None:
        os.set_blocking(reader, False)
        self._reader = reader
        self._take = take
        self._open = True
        self.ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(reader, self._read)

    def close(self) -> None:
        """Read no more. May be called twice."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            self.ended.set()

    def _read(self) -> None:
        try:
            data = os.read(self._reader, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._take(data)
        else:
            self.close()


class _Status:
    """What bubblewrap says of the command: its first process as seen from outside, and, at the end, its exit code."""

    def __init__(self) -> None:
        self._reader: int | None = None
        self._said = b""

    def open(self) -> int:
        """The end for bubblewrap to write to."""
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        return writer

    def close(self) -> None:
        """Read what is left. May be called twice."""
        self._read()
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None

    @property
    def pid(self) -> int | None:
        """Of the first process inside, which leads the command's group; None: not begun."""
        found = self._find("child-pid")
        # Below 2 it would be everybody's group.
        return found if found is not None and found > 1 else None

    @property
    def has_begun(self) -> bool:
        """Was the command begun?"""
        return self._find("exit-code") is not None

    def _find(self, key: str) -> int | None:
        self._read()
        for line in self._said.splitlines():
            with contextlib.suppress(ValueError):
                value = json.loads(line).get(key)
                if isinstance(value, int):
                    return value
        return None

    def _read(self) -> None:
        if self._reader is not None and len(self._said) < STATUS_BYTES_MAX:
            with contextlib.suppress(BlockingIOError):
                self._said += os.read(self._reader, STATUS_BYTES_MAX)


def _open_plain(path: Path) -> int:
    """A file to read from, and never what a link of that name points to. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no plain file")
    return descriptor


def _signal_group(pid: int, number: signal.Signals) -> None:
    # The child leads its own group, whose number stays taken for as long as any member lives.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
