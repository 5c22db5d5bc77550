"""The browsers that asked to be told, kept in the store."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from hub.core.notices import subscription
from hub.core.notices.subscription import Subscription
from hub.engine.live.context import Context
from hub.engine.notify import book
from hub.store.base import Reader, Txn

_TOKENS: Final = "tokens/"


class Browsers:
    """All of them. Memory follows the store: what is here was written."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.all: tuple[Subscription, ...] = ctx.store.read(book.read_browsers).all

    def get(self, id: str) -> Subscription | None:
        """One by its id."""
        return next((one for one in self.all if one.id == id), None)

    async def add(self, made: Subscription) -> None:
        """One more, in the place of one with the same address. Raises Exhausted."""

        def write(txn: Txn) -> tuple[Subscription, ...]:
            others = [one for one in book.read_browsers(txn).all if one.endpoint != made.endpoint]
            subscription.room(others, made.principal)
            return _written(txn, (*others, made))

        self.all = await self._ctx.store.write(write)

    async def remove(self, ids: Collection[str]) -> None:
        """Without these. Nothing happens when they are not there."""

        def write(txn: Txn) -> tuple[Subscription, ...]:
            return _written(txn, tuple(one for one in book.read_browsers(txn).all if one.id not in ids))

        self.all = await self._ctx.store.write(write, essential=True)

    def leave_out(self, ids: Collection[str]) -> None:
        """Without these until the next start: the store could not be written."""
        self.all = tuple(one for one in self.all if one.id not in ids)

    def void(self, now: float) -> list[str]:
        """Ids of those whose owner may not look at the hub any more."""
        return self._ctx.store.read(lambda reader: [one.id for one in self.all if not _may_look(reader, one, now)])


def _written(txn: Txn, all: tuple[Subscription, ...]) -> tuple[Subscription, ...]:
    txn.set_meta(book.BROWSERS_KEY, msgspec.msgpack.encode(book.Browsers(all=all)))
    return all


def _may_look(reader: Reader, one: Subscription, now: float) -> bool:
    if not one.principal.startswith(_TOKENS):
        return True
    token = reader.tokens.get(one.principal.removeprefix(_TOKENS))
    if token is None or token.revoked_at is not None:
        return False
    return token.expires_at is None or token.expires_at > now
