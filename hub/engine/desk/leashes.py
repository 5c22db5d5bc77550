"""Every open stream is held by the token that let it in: when the token is void or its time is over, the stream ends.

A watch ends at once. The stream of a sidecar ends `GOODBYE_S` later, so that a last word of the hub (deleted, rotated)
still gets there. A token that expires is watched by a timer; the timer looks at the clock again at least each
`LOOK_S`, so that a clock that was set forward is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from hub.core.event import Event
from hub.engine.live.context import Context
from hub.engine.script import tokens
from kit import errors, logs
from kit.leash import Leash
from kit.principal import Principal

log = logs.get(__name__)

GOODBYE_S: Final = 2.0
"""For the hub's last word to a sidecar, and for the sidecar to leave by itself."""

LOOK_S: Final = 60.0
"""How long a jump of the clock goes unnoticed."""

TOKENS: Final = "tokens/"


class _Held:
    """One open stream."""

    __slots__ = ("expires_at", "leash", "timer", "who")

    def __init__(self, who: Principal) -> None:
        self.who = who
        self.leash = Leash()
        self.expires_at = who.expires_at
        self.timer: asyncio.TimerHandle | None = None


class Leashes:
    """Of all open streams that a token let in."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._held: dict[str, set[_Held]] = {}
        ctx.bus.listen(self._heard)

    def __len__(self) -> int:
        return sum(len(streams) for streams in self._held.values())

    @contextlib.contextmanager
    def hold(self, who: Principal) -> Iterator[Leash]:
        """For the length of a stream. Call it without an await after the token was verified."""
        held = _Held(who)
        if not who.name.startswith(TOKENS):
            yield held.leash
            return
        streams = self._held.setdefault(who.name, set())
        streams.add(held)
        self._arm(held)
        try:
            yield held.leash
        finally:
            if held.timer is not None:
                held.timer.cancel()
            streams.discard(held)
            if not streams and self._held.get(who.name) is streams:
                del self._held[who.name]

    def _heard(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.type in ("token.revoked", "token.expiring"):
                for held in tuple(self._held.get(event.subject, ())):
                    self._look(held)

    def _look(self, held: _Held) -> None:
        """End the stream when its token is not good any more; otherwise look again when that may be."""
        id = held.who.name.removeprefix(TOKENS)
        token = self._ctx.store.read(lambda reader: reader.tokens.get(id))
        try:
            held.expires_at = tokens.good(token, self._ctx.clock.now()).expires_at
        except errors.Unauthenticated as problem:
            self._end(held, problem)
        else:
            self._arm(held)

    def _arm(self, held: _Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        if held.expires_at is not None:
            left_s = max(held.expires_at - self._ctx.clock.now(), 0.0)
            held.timer = asyncio.get_running_loop().call_later(min(left_s, LOOK_S), self._look, held)

    def _end(self, held: _Held, problem: errors.Problem) -> None:
        log.info("stream.unleashed", principal=held.who.name, reason=problem.reason)
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        if held.who.agent is None:
            held.leash.pull(problem)
        else:
            held.timer = asyncio.get_running_loop().call_later(GOODBYE_S, held.leash.pull, problem)
