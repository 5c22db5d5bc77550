"""The reins of one attempt: the session stops it and reads how it gets on, the runner obeys and writes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from sidecar.core.assignment import Progress


class Stop:
    """A stop order with its reason. The first reason stays."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        #: UPPER_SNAKE; empty until set.
        self.reason = ""

    def set(self, reason: str) -> None:
        """Order the stop: `reason` is UPPER_SNAKE (FENCED, CANCELLED, LEASE_RAN_OUT, DRAIN, ...)."""
        if not self._event.is_set():
            self.reason = _reason(reason)
            self._event.set()

    def is_set(self) -> bool:
        """Was it ordered?"""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return when it is ordered."""
        await self._event.wait()


class Control:
    """One per holding, made by the session and handed to Runner.run."""

    def __init__(self, on_output: Callable[[str], None] | None = None) -> None:
        self.stop = Stop()
        #: The newest; replaced as a whole by the runner.
        self.progress = Progress()
        self._on_output = on_output

    def output(self, text: str) -> None:
        """Called by the runner with each piece of output, in whole characters. Must not block."""
        if self._on_output is not None:
            self._on_output(text)


def _reason(text: str) -> str:
    """The contract's form of a reason, whatever was given."""
    cleaned = re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_")[:64]
    return cleaned if re.match(r"[A-Z]", cleaned) else "STOPPED"
