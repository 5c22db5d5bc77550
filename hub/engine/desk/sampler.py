"""What GetHistory tells: counts from committed events, the rest from a look every few seconds.

Kept in memory alone, in two rings (`hub.core.sample`). After a start the event log is read backwards, a little at a
time, so that what was counted before the restart is there again; what could only be seen then is a gap. Nothing is
written, so an idle hub stays idle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from hub.core.event import Event
from hub.core.sample import HOUR_S, HOURS_MAX, MINUTE_S, MINUTES_MAX, Count, Look, Ring, Sample
from hub.core.task import Lane, State
from hub.engine.desk.stats import Stats
from hub.engine.live.context import Context

LOOK_S: Final = 10.0
"""Six looks a minute: enough for the most that waited, and nothing for the processor."""

COUNT_DEFAULT: Final = 60
"""Steps told when nobody says how many: an hour of minutes."""

RUNNING_MAX: Final = 20_000
"""Begun attempts whose start is remembered, as many as the metrics remember; those beyond have no run time here."""

REREAD_MAX: Final = 100_000
"""Events read backwards after a start: about half a second of work, in slices. A busy hour, a quiet month."""

REREAD_SLICE: Final = 500
"""Events read at once: two or three milliseconds in which nobody else is served."""

_COUNTED: Final[dict[str, Count]] = {
    "task.created": Count.SUBMITTED,
    "task.assigned": Count.ASSIGNED,
    "task.succeeded": Count.SUCCEEDED,
    "task.failed": Count.FAILED,
    "task.dead": Count.DEAD,
    "change.merged": Count.MERGED,
}

_ENDS: Final = frozenset(
    {
        "task.released", "task.failed", "task.parked", "task.pushed", "task.succeeded", "task.cancelled", "task.dead",
        "task.rejected",
    }
)  # fmt: skip
"""Events after which an attempt does not run any more."""


class Sampler:
    """The history of one hub's figures."""

    def __init__(self, ctx: Context, collect: Callable[[], Stats]) -> None:
        self._ctx = ctx
        self._collect = collect
        self.minutes = Ring(MINUTE_S, MINUTES_MAX)
        self.hours = Ring(HOUR_S, HOURS_MAX)
        self._began: dict[str, float] = {}
        self._waited = 0
        #: The log is read backwards from here; 0: it has been.
        self._before = ctx.store.read(lambda reader: reader.position()) + 1
        self._reread = 0
        self._oldest: Event | None = None
        self._looks = 0
        self._looked_at = 0.0
        self.wake = asyncio.Event()
        ctx.bus.listen(self._committed)

    async def run_once(self, now: float) -> None:
        """Look; and read on in the log of the time before the start, once the rush of the start is over."""
        if not (self._looks and 0 <= now - self._looked_at < LOOK_S / 2):  # it was not woken only to read on
            self._look(now)
        if self._looks > 1 and self._before and not self._ctx.gate.degraded:
            self._read_back()
            if self._before:
                self.wake.set()

    def of(self, *, hours: bool, count: int) -> list[Sample]:
        """The last `count` minutes or hours, oldest first."""
        now = self._ctx.clock.now()
        return (self.hours if hours else self.minutes).samples(now, count)

    def _look(self, now: float) -> None:
        self._looks += 1
        self._looked_at = now
        stats = self._collect()
        waiting = {lane: stats.tasks.get((State.QUEUED, lane), 0) for lane in Lane}
        waiting = {lane: count for lane, count in waiting.items() if count}
        waits = self._new_waits()
        for ring in (self.minutes, self.hours):
            ring.look(Look(waiting, stats.slots, stats.slots_used, waits), now)

    def _new_waits(self) -> list[float]:
        """Of the assignments since the last look, at most as many as are kept: the newest."""
        figures = self._ctx.figures
        new, self._waited = figures.waited_count - self._waited, figures.waited_count
        return list(islice(reversed(figures.waits), new))

    def _committed(self, events: Sequence[Event]) -> None:
        for event in events:
            what = _COUNTED.get(event.type)
            if what is not None:
                self.minutes.count(what, event.at)
                self.hours.count(what, event.at)
            if event.type == "task.accepted":
                if len(self._began) < RUNNING_MAX:
                    self._began[event.subject] = event.at
            elif event.type in _ENDS:
                began = self._began.pop(event.subject, None)
                if began is not None:
                    self.minutes.ran(event.at - began, event.at)
                    self.hours.ran(event.at - began, event.at)

    def _read_back(self) -> None:
        """One slice, newest first. The oldest minute and hour are known in part only, and given up."""
        high = self._before
        low = max(0, high - 1 - REREAD_SLICE)
        window = self._ctx.store.read(lambda reader: reader.events(after=low, limit=high - 1 - low))
        window = [event for event in window if event.position < high]
        for event in window:
            what = _COUNTED.get(event.type)
            if what is not None:
                self.minutes.count(what, event.at)
                self.hours.count(what, event.at)
        self._oldest = window[0] if window else self._oldest
        self._reread += len(window)
        self._before = low + 1 if window and low and self._reread < REREAD_MAX else 0
        if not self._before and self._oldest is not None and self._oldest.position > 1:
            for ring in (self.minutes, self.hours):
                ring.forget(self._oldest.at)
