"""A shell as a reader has it: it keeps its folder and its variables from command to command."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

#: A bound for failures, never a pace.
PATIENCE_S: Final = 90.0
LOOK_EVERY_S: Final = 0.05
#: A run in the background may have a SIGINT that is ignored, and would hand that down to everything it starts.
NOT_IGNORED: Final = ("env", "--default-signal=INT")


class Failed(AssertionError):
    """A command did not do what its page says."""


class Terminal:
    """One shell."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], logs: Path) -> None:
        self._name, self._logs, self._count = name, logs, 0
        self._running: Running | None = None
        self._shell = subprocess.Popen(
            [*NOT_IGNORED, "bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=folder, env=dict(environment), text=True, start_new_session=True,
        )  # fmt: skip
        self._tell("set -m")  # what runs until Ctrl-C gets a process group of its own, which a shell's `&` has only so

    def type(self, command: str) -> tuple[int, str]:
        """Type a command and wait for its end: its exit code and what it printed."""
        file, out = self._files(command)
        self._tell(f". {file} </dev/null >{out} 2>&1; echo $?")
        code = self._answer(out)
        return code, out.read_text(errors="replace")

    def start(self, command: str) -> Running:
        """Type a command that runs until Ctrl-C."""
        if self._running is not None and self._running.is_running:
            raise Failed(f"the shell {self._name or 'of the page'!r} is still busy with {self._running.command!r}")
        file, out = self._files(command)
        self._tell(f"( . {file} ) </dev/null >{out} 2>&1 & echo $!")
        self._running = Running(command, self._answer(out), out, self._ended)
        return self._running

    def interrupt(self) -> None:
        """Ctrl-C."""
        if self._running is None:
            raise Failed(f"nothing runs in the shell {self._name!r}")
        self._running.interrupt()
        self._running = None

    def close(self) -> None:
        """End what runs here as Ctrl-C would, then the shell."""
        try:
            if self._running is not None and self._running.is_running:
                self.interrupt()
        finally:
            self._shell.kill()
            self._shell.communicate()

    def _ended(self, pid: int) -> int:
        """The exit code of what was started and has ended."""
        self._tell(f"wait {pid}; echo $?")
        return self._answer(Path())

    def _files(self, command: str) -> tuple[Path, Path]:
        self._count += 1
        base = self._logs / f"{re.sub(r'[^a-z0-9]+', '-', self._name.lower()) or 'page'}-{self._count}"
        file, out = base.with_suffix(".sh"), base.with_suffix(".out")
        file.write_text(command + "\n")
        out.touch()
        return file, out

    def _tell(self, text: str) -> None:
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.write(text + "\n")
            self._shell.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"the shell {self._name or 'of the page'!r} has ended") from None

    def _answer(self, out: Path) -> int:
        """The line with a number that the shell says next. A command that never ends is ended with the shell."""
        assert self._shell.stdout is not None
        os.set_blocking(self._shell.stdout.fileno(), False)
        text = ""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            piece = os.read(self._shell.stdout.fileno(), 4096) if _readable(self._shell.stdout.fileno()) else b""
            text += piece.decode(errors="replace")
            for line in text.splitlines(keepends=True):
                if line.endswith("\n") and line.strip().isdigit():
                    return int(line)
            if self._shell.poll() is not None:
                raise Failed(f"the shell ended: {text}")
        said = out.read_text(errors="replace")[-2_000:] if out.is_file() else ""
        raise Failed(f"no end after {PATIENCE_S:.0f} s; so far: {said}")


class Running:
    """A command that runs until Ctrl-C."""

    def __init__(self, command: str, pid: int, out: Path, ended: Callable[[int], int]) -> None:
        self.command, self.pid, self._out, self._ended = command, pid, out, ended

    @property
    def is_running(self) -> bool:
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"

    def said(self) -> str:
        """What it printed so far."""
        return self._out.read_text(errors="replace")

    def until(self, ready: Callable[[str], bool], what: str) -> None:
        """Return when what it printed says so."""
        end = time.monotonic() + PATIENCE_S
        while not ready(self.said()):
            if not self.is_running and not ready(self.said()):
                raise Failed(f"ended with {self._ended(self.pid)} before {what}: {self.said()[-2_000:]}")
            if time.monotonic() > end:
                raise Failed(f"after {PATIENCE_S:.0f} s not {what}; so far: {self.said()[-2_000:]}")
            time.sleep(LOOK_EVERY_S)  # a file that grows tells nobody

    def interrupt(self) -> None:
        """Ctrl-C, and its end; 0 and 130 are good ends."""
        if not self.is_running:
            raise Failed(f"it ended by itself, with {self._ended(self.pid)}: {self.said()[-2_000:]}")
        end = time.monotonic() + PATIENCE_S
        self._signal(signal.SIGINT)
        while self.is_running:
            if time.monotonic() > end:
                self._signal(signal.SIGKILL)
                raise Failed(f"Ctrl-C did not end {self.command!r}: {self.said()[-2_000:]}")
            time.sleep(LOOK_EVERY_S)  # it is a child of a shell, whose end is not told to us
        code = self._ended(self.pid)
        if code not in (0, 130):
            raise Failed(f"Ctrl-C ended {self.command!r} with exit code {code}: {self.said()[-2_000:]}")

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ends by itself just now; its exit code tells how
            os.killpg(self.pid, number)


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], LOOK_EVERY_S)[0])
