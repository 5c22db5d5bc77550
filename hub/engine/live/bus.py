"""The bus: tells who waits that there is something new in the event log.

After each commit the store calls the bus with the events of that commit, in order. The bus does two things with them:

- it hands them to its listeners, which are parts of the engine: few, quick, and never allowed to fail;
- it wakes its followers, which are watches: each reads the log from its own position, in bounded chunks. Nothing is
  buffered for anybody, so a slow reader costs only itself. The newest events are kept decoded in one ring for all of
  them, because a hundred watches at the head of the log would else decode every event a hundred times.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, NamedTuple

from hub.core.event import Event
from hub.store import base
from kit import errors, logs

log = logs.get(__name__)

CHUNK: Final = 256
"""Events read at once: a follower far behind gives way to everybody else after each chunk (about a millisecond)."""

RING: Final = 2_048
"""Newest events kept decoded: about a second of a busy hub, one megabyte."""

PROGRESS_EVENTS: Final = 1_000
"""A follower that wants none of this many events is told the position, so that a resume does not read them again."""

PROGRESS_S: Final = 15.0
"""An idle follower is told the position this often: proxies cut streams that are silent for 30 s or longer."""

CLOSED_RETRY_S: Final = 1.0
"""A watcher whose hub goes away comes back about when the next one is up."""

Listener = Callable[[Sequence[Event]], None]
Wanted = Callable[[Event], bool]


class Batch(NamedTuple):
    """What a follower is given: events that it wants, and how far it has read. Without events: only progress."""

    events: list[Event]
    position: int


def gone(position: int, oldest: int) -> errors.OutOfRange:
    """The problem of who asks for events that are not kept any more."""
    return errors.OutOfRange(
        f"events behind position {position} are not kept any more, the oldest is {oldest}",
        reason="POSITION_GONE",
        metadata={"position": position, "oldest": oldest},
    )


class Bus:
    """The events of one store."""

    def __init__(self, store: base.Store) -> None:
        self._store = store
        self._position = store.read(lambda reader: reader.position())
        self._ring: deque[Event] = deque(maxlen=RING)
        self._listeners: list[Listener] = []
        self._news: asyncio.Event = asyncio.Event()
        self._closed = False
        store.on_commit(self._committed)

    @property
    def position(self) -> int:
        """Position of the newest event that was told."""
        return self._position

    def oldest(self) -> int:
        """Position of the oldest event that is kept; 0: there is none."""
        gone = self._store.read(lambda reader: reader.position_gone())
        return gone + 1 if gone < self._position else 0

    def start(self, asked: int) -> int:
        """Where a watch begins: 0 is now, -1 the oldest event that is kept, anything else behind that position."""
        if asked < 0:
            return self._store.read(lambda reader: reader.position_gone())
        return asked or self._position

    def listen(self, listener: Listener) -> None:
        """Call `listener` with the events of each commit, on the event loop, before the writers return."""
        self._listeners.append(listener)

    async def follow(
        self, position: int, wanted: Wanted | None = None, *, progress_s: float = PROGRESS_S
    ) -> AsyncGenerator[Batch, None]:
        """The events behind `position`, for ever. The first batch comes at once, empty when nothing is behind it.

        Raises Invalid for a position that the log has not reached, OutOfRange for one that is gone by the retention
        (also later, when it overtakes a slow follower), Unavailable when the hub ends.
        """
        if position > self._position:
            raise errors.Invalid.of(
                "position", f"{position} is ahead of the log, which ends at {self._position}", reason="POSITION_AHEAD"
            )
        told = position - PROGRESS_EVENTS  # the first batch always tells
        while True:
            news = self._news
            chunk = self._read(position)
            if chunk:
                position = chunk[-1].position
                events = [event for event in chunk if wanted(event)] if wanted else chunk
                if events or position - told >= PROGRESS_EVENTS:
                    told = position
                    yield Batch(events, position)
                else:
                    await asyncio.sleep(0)  # a long log of unwanted events must not hold the loop
                continue
            if position - told >= PROGRESS_EVENTS:
                told = position
                yield Batch([], position)
                continue
            if self._closed:
                raise errors.Unavailable("the hub goes away", reason="SHUTDOWN", retry_delay_s=CLOSED_RETRY_S)
            try:
                async with asyncio.timeout(progress_s):
                    await news.wait()
            except TimeoutError:
                told = position
                yield Batch([], position)

    def close(self) -> None:
        """End every follower, once it was told what there is: the hub goes away."""
        self._closed = True
        self._news.set()

    def _read(self, position: int) -> list[Event]:
        """The next chunk behind `position`: from the ring when it reaches back that far."""
        if position >= self._position:
            return []
        if self._ring and self._ring[0].position <= position + 1:
            start = position + 1 - self._ring[0].position
            return list(itertools.islice(self._ring, start, start + CHUNK))
        found = self._store.read(lambda reader: reader.events(after=position, limit=CHUNK))
        if found and found[0].position != position + 1:
            raise gone(position, found[0].position)
        return found

    def _committed(self, events: Sequence[Event]) -> None:
        if not events:
            return
        self._position = events[-1].position
        self._ring.extend(events)
        self._news.set()
        self._news = asyncio.Event()
        for listener in self._listeners:
            try:
                listener(events)
            except Exception:  # a listener is our own code: its failure must not fail the writers of this commit
                log.exception("bus.listener_failed", position=self._position)
