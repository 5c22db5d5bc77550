"""The event log read on: what asks for a person is gathered, everything else is counted.

While it is up to date it is handed each commit's events by the bus, which are decoded anyway, and costs one look-up for
most of them. Behind a start, or behind a gap, it reads the log in chunks until it has caught up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from hub.core.alerts.alert import Alert, Severity
from hub.core.event import Event
from hub.core.notices import digest, notice
from hub.core.notices.digest import Tally
from hub.core.notices.notice import Gather
from hub.engine.live.context import Context

CHUNK: Final = 256
"""Events read at once: about a millisecond."""
CHUNKS_MAX: Final = 40
"""Of one run: some 10,000 events; the next run follows at once."""


class Reading:
    """How far the log is read, and what came of it."""

    def __init__(self, ctx: Context, *, position: int, tally: Tally, gather: Gather | None) -> None:
        self._ctx = ctx
        self.position = position
        self.tally = tally
        self.gather = gather
        #: Set when something has to be looked at: a thing that needs a person, or a gap.
        self.wake = asyncio.Event()
        #: Alerts of which people were told, as long as they hold: in a damaged store no event says so.
        self._alerts: set[str] = set()
        self._is_live = False
        ctx.bus.listen(self._committed)

    async def catch_up(self) -> None:
        """Read what the log has behind the position, or a part of it."""
        for _ in range(CHUNKS_MAX):
            found = self._ctx.store.read(lambda reader: reader.events(after=self.position, limit=CHUNK))
            if not found:
                # No await between this look and the listener: nothing can come in between.
                self._is_live = self.position >= self._ctx.bus.position
                return
            missed = found[0].position - self.position - 1
            if missed > 0:  # the retention was faster
                digest.add(self.tally, "missed", by=missed)
            self._take(found)
            await asyncio.sleep(0)
        self.wake.set()

    @property
    def is_live(self) -> bool:
        """Is everything read?"""
        return self._is_live

    def look(self, alerts: Sequence[Alert], now: float) -> None:
        """With a damaged store alerts are on the board and not in the log."""
        for one in alerts:
            if one.severity is Severity.CRITICAL and one.is_told and one.id not in self._alerts:
                fields = {"severity": "CRITICAL", "told": "true", "message": one.message, "advice": one.advice}
                made = Event(position=0, at=now, type="alert.raised", subject=f"alerts/{one.id}", fields=fields)
                self._fold(made)

    def closed(self) -> Gather | None:
        """What was gathered; from now on anew."""
        found, self.gather = self.gather, None
        return found

    def _committed(self, events: Sequence[Event]) -> None:
        if not self._is_live or not events:
            return
        if events[0].position != self.position + 1:
            self._is_live = False
            self.wake.set()
            return
        self._take(events)

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.type in _KNOWN:
                self._fold(event)
        self.position = events[-1].position

    def _fold(self, event: Event) -> None:
        digest.count(self.tally, event)
        item = notice.urgent(event)
        if item is not None:
            if self.gather is None:
                self.wake.set()
            self.gather = notice.gather(self.gather, event, item)
        if event.type == "alert.cleared":
            self._alerts.discard(event.subject.partition("/")[2])
        elif item is not None and item.topic is notice.Topic.ALERT:
            self._alerts.add(event.subject.partition("/")[2])


_KNOWN: Final = digest.COUNTED | notice.URGENT
