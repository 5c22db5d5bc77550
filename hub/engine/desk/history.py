"""Pages of the event log, newest first.

The log is dense: positions have no gaps but for the oldest part, which the retention takes away. So a page is a window
of positions read forwards and turned round; with a prefix it looks at `SCAN_MAX` events at most and may be short.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hub.core.event import Event
from hub.store.base import Reader, Store

SCAN_MAX: Final = 5_000
"""Events looked at for one page: about twenty milliseconds."""

WINDOW: Final = 500
"""Events read at once."""


class Page(NamedTuple):
    """Events, and the position before which the next page begins; 0 at the end."""

    events: list[Event]
    before: int


def look(store: Store, *, before: int, limit: int, prefix: str = "", subject: str = "") -> Page:
    """A page of everything, or of one subject."""
    if subject:
        return store.read(lambda reader: page_of(reader, subject, before=before, limit=limit, prefix=prefix))
    return store.read(lambda reader: page(reader, before=before, limit=limit, prefix=prefix))


def page(reader: Reader, *, before: int, limit: int, prefix: str) -> Page:
    """Events before a position (0: from the newest), newest first, whose type begins with `prefix`."""
    high = before or reader.position() + 1
    lowest = max(0, high - 1 - SCAN_MAX)
    found: list[Event] = []
    while high - 1 > lowest:
        low = max(lowest, high - 1 - WINDOW)
        window = reader.events(after=low, limit=high - 1 - low)
        for event in reversed([event for event in window if event.position < high]):
            if event.type.startswith(prefix):
                found.append(event)
                if len(found) == limit:
                    return Page(found, event.position if event.position > 1 else 0)
        if not window:  # everything older is gone
            return Page(found, 0)
        high = low + 1
    return Page(found, high if high > 1 else 0)


def page_of(reader: Reader, subject: str, *, before: int, limit: int, prefix: str) -> Page:
    """The same of one subject: its newest `SCAN_MAX` events, whose index runs forwards only."""
    all_of: list[Event] = []
    after = 0
    while chunk := reader.events_of(subject, after=after, limit=WINDOW):
        all_of = (all_of + chunk)[-SCAN_MAX:]
        after = chunk[-1].position
    wanted = [
        event for event in reversed(all_of) if event.type.startswith(prefix) and (not before or event.position < before)
    ]
    return Page(wanted[:limit], wanted[limit - 1].position if len(wanted) > limit else 0)
