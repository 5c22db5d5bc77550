"""What the notifier remembers: written down as one small fact of the store before anything of it is sent.

How far the event log was read, what is gathered and counted so far, and what waits for whom. A hub that comes back
reads on behind that position and finds the same again, so nothing is lost, and what is sent twice has the same id.
"""

from __future__ import annotations

from typing import Final

import msgspec

from hub.core.notices.digest import Tally
from hub.core.notices.notice import Gather
from hub.core.notices.outbox import Outbox
from hub.core.notices.subscription import Subscription
from hub.store.base import Reader
from kit import logs

log = logs.get(__name__)

KEY: Final = "notify"
BROWSERS_KEY: Final = "notify.browsers"


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    position: int
    """Of the last event that is counted in what follows."""
    tally: Tally
    gather: Gather | None = None
    box: Outbox = Outbox()


class Browsers(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked to be told in a browser, oldest first."""

    all: tuple[Subscription, ...] = ()


def read(reader: Reader) -> Book | None:
    """What was written; None when there is nothing, or nothing that this hub can read."""
    raw = reader.meta(KEY)
    if not raw:
        return None
    try:
        return _BOOK.decode(raw)
    except msgspec.DecodeError as error:  # an older hub after a newer one: it begins anew, for it cannot know better
        log.warning("notify.book_unreadable", problem=str(error))
        return None


def read_browsers(reader: Reader) -> Browsers:
    """Who asked."""
    raw = reader.meta(BROWSERS_KEY)
    try:
        return _BROWSERS.decode(raw) if raw else Browsers()
    except msgspec.DecodeError as error:
        log.warning("notify.browsers_unreadable", problem=str(error))
        return Browsers()


def encode(what: Book | Browsers) -> bytes:
    """As it is written."""
    return msgspec.msgpack.encode(what)


_BOOK: Final = msgspec.msgpack.Decoder(Book)
_BROWSERS: Final = msgspec.msgpack.Decoder(Browsers)
