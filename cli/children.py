"""Child processes that are always ended by their own id: asked first, asked again, then killed.

A child gets a session of its own, so that Ctrl-C in the terminal reaches only its parent, which then ends its
children in the order that it wants. What they print goes to a file, and its end can be shown when something fails.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from kit import errors

# A hub or sidecar that was asked to stop has so long to finish, and after the second asking so long again.
STOP_S = 20.0
CANCEL_S = 10.0
# How often a file that a child is about to write is looked for.
LOOK_EVERY_S = 0.05
TAIL_BYTES_MAX = 16 * 1024


class Child:
    """One running child process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(
        cls, name: str, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> Self:
        """Run a command whose output goes to the file `log`; `environment` is added to ours."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Its exit code, when it has ended."""
        return await self._process.wait()

    async def until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Return when `ready()` says so. Raises Unavailable when the child ends before, or when it takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                while not ready():
                    if not self.is_running:
                        raise errors.Unavailable(f"the {self.name} ended with code {self._process.returncode}")
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError as error:
            raise errors.Unavailable(f"the {self.name} was not ready in {timeout_s:.0f} s") from error

    async def stop(self, stop_s: float = STOP_S, cancel_s: float = CANCEL_S) -> int:
        """End it: TERM, TERM again, KILL; returns its exit code."""
        for number, patience_s in ((signal.SIGTERM, stop_s), (signal.SIGTERM, cancel_s), (signal.SIGKILL, None)):
            if not self.is_running:
                break
            # The process is ours and not reaped yet, so the id cannot have become somebody else's.
            self._process.send_signal(number)
            try:
                async with asyncio.timeout(patience_s):
                    await self._process.wait()
            except TimeoutError:
                continue
        return await self._process.wait()

    def tail(self) -> str:
        """The end of what it printed."""
        with self.log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES_MAX))
            return file.read().decode("utf-8", "replace")
