"""A process that outlives the command which started it, and is found again without ever mistaking another for it.

It writes its own number before it becomes the program, so that there is no moment in which it runs and nobody could
know. A number alone proves nothing, for numbers come back: the command line must hold a mark, and what is signalled is
held by a descriptor that stays with this very process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kit import errors

# The sidecar's own bounds (600 s, then 90 s and 15 s for last words), and some for a busy machine.
FINISH_S = 630.0
SAVE_S = 120.0
KILL_S = 10.0
# A shell has written one line: on the busiest of machines it is not longer.
START_S = 30.0
LOOK_EVERY_S = 0.01
# From the end of its memory to its end, or to the beginning of another program.
EXIT_S = 2.0
# Between two TERMs: one that is still pending would swallow the other.
HURRY_S = 1.0
# The log of the time before is kept as one more file of this size.
LOG_BYTES_MAX = 10 * 1024 * 1024
TAIL_BYTES_MAX = 4 * 1024
# Writes its number and becomes the program, keeping the number.
_STARTER = 'echo $$ > "$0.new" && mv "$0.new" "$0" && exec "$@"'


class PlainProcess:
    """One such process."""

    def __init__(self, pid_file: Path, log: Path, *, mark: str) -> None:
        """`mark` is a word of its command line that no other process has."""
        self._pid_file = pid_file
        self._log = log
        self._mark = os.fsencode(mark)
        # Ours while we live: an ended one is asked for its end, or it would stay as a zombie.
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, words: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> int:
        """Start it; returns its number. Raises Unavailable."""
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > LOG_BYTES_MAX:
                self._log.replace(self._log.with_name(f"{self._log.name}.1"))
        try:
            with open(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as out:
                self._child = subprocess.Popen(
                    ("/bin/sh", "-c", _STARTER, str(self._pid_file), *words),
                    cwd=cwd,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                    umask=0o077,
                )
        except OSError as error:
            raise errors.Unavailable(f"{words[0]} cannot be started: {error}") from error
        # Who asks from now on whether it runs must be able to find it.
        end = time.monotonic() + START_S
        while self.pid() != self._child.pid and self._child.poll() is None and time.monotonic() < end:
            time.sleep(LOOK_EVERY_S)
        return self._child.pid

    def pid(self) -> int | None:
        """Its number while it runs."""
        with self._held() as held:
            if held is None:
                self._reap()
            return held[0] if held is not None else None

    def stop(self, *, hurry: bool) -> None:
        """TERM: it finishes what it holds; TERM again: it saves it; KILL. Raises Unavailable when even that fails."""
        with self._held() as held:
            if held is None:
                self._reap()
                return
            descriptor = held[1]
            for number, patience_s in (
                (signal.SIGTERM, HURRY_S if hurry else FINISH_S), (signal.SIGTERM, SAVE_S), (signal.SIGKILL, KILL_S),
            ):  # fmt: skip
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
                if _has_ended(descriptor, patience_s):
                    self._reap()
                    return
        raise errors.Unavailable(f"process {held[0]} does not end")

    def tail(self) -> str:
        """The end of what it printed."""
        try:
            with self._log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - TAIL_BYTES_MAX))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    @contextlib.contextmanager
    def _held(self) -> Iterator[tuple[int, int] | None]:
        """(number, descriptor) of the process while it runs; None otherwise."""
        descriptor = -1
        try:
            pid = int(self._pid_file.read_text())
            descriptor = os.pidfd_open(pid)
            # Looked at after it is held: from here on the number cannot become another's.
            words = _command_line(pid, descriptor)
            held = (pid, descriptor) if self._mark in words and not _has_ended(descriptor, 0.0) else None
        except (OSError, ValueError, OverflowError):
            held = None
        try:
            yield held
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _reap(self) -> None:
        if self._child is not None:
            self._child.poll()


def _command_line(pid: int, descriptor: int) -> list[bytes]:
    """Its words. It has none while it becomes another program, and none when it is about to end but may still have its
    files and locks: both pass.
    """
    end = time.monotonic() + EXIT_S
    while True:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if line or _has_ended(descriptor, LOOK_EVERY_S) or time.monotonic() > end:
            return line.split(b"\0")


def _has_ended(descriptor: int, patience_s: float) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(patience_s * 1000))
