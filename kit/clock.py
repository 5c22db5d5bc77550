"""Time as a value that is handed in: the one place that reads the machine's clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a shell reads before it calls the core."""

    def now(self) -> float:
        """Seconds since the epoch; may jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never runs backwards, says nothing about the date."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told; both readings move together."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> float:
        """Move forward by `seconds`; returns the new `now`."""
        assert seconds >= 0, "a clock is not advanced backwards; use jump for a clock that was set"
        self._now += seconds
        self._monotonic += seconds
        return self._now

    def jump(self, seconds: float) -> float:
        """Set the date forwards or backwards without time passing, as an administrator or NTP would."""
        self._now += seconds
        return self._now
