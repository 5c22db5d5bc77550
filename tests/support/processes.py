"""Real child processes of a test: started with a log, killed or frozen as a test wants, always ended by their own
id.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from cli import children

#: No wait of a test is longer; it is a bound for failures, never a pace.
PATIENCE_S = 60.0
#: How often a condition is looked at that nobody can announce: a file, a process.
LOOK_EVERY_S = 0.02


class Process(children.Child):
    """One of our programs, running."""

    _frozen = False

    async def kill(self) -> None:
        """End it as a crash would: KILL, and no word to anybody."""
        if self.is_running:
            self._process.kill()
        await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def freeze(self) -> None:
        """Let it stand still, as a machine that is suspended."""
        self._frozen = True
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._frozen = False
        if self.is_running:
            self._process.send_signal(signal.SIGCONT)

    async def stop(self, stop_s: float = children.STOP_S, cancel_s: float = children.CANCEL_S) -> int:
        """End it: TERM, TERM again, KILL; one that stands still goes on first, so that it can."""
        if self._frozen:
            self.thaw()
        return await super().stop(stop_s, cancel_s)

    def said(self) -> str:
        """Everything that it printed."""
        return self.log.read_text(errors="replace")


async def until(true: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Return when `true()` says so. Raises AssertionError that names `what` when it does not in time."""
    try:
        async with asyncio.timeout(patience_s):
            while not true():  # noqa: ASYNC110  # files and processes give no signal to wait for
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        raise AssertionError(f"after {patience_s:.0f} s still not so: {what}") from None


def is_alive(pid: int) -> bool:
    """Is there such a process, and is it no zombie?"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def working_under(folder: Path) -> list[str]:
    """Processes that work in a folder or name it on their command line, this one left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            where = os.readlink(entry / "cwd")
        except OSError:  # it has just ended, or is not ours
            continue
        if int(entry.name) != os.getpid() and (str(folder) in line or where.startswith(str(folder))):
            found.append(f"{entry.name}: {line[:200]}")
    return found
