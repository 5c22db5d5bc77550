"""Verifies tokens on every call.

Verification is on the path of each RPC, so what was verified is kept in memory by its hash and forgotten as a whole
when any token or agent changes; the bus tells of that before the write returns, so a revoked token is void at once.
When a token was last used is noted in memory to the minute and written by a loop, at most once a minute for each.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

import msgspec

from hub.core.event import Event
from hub.core.token import Token
from hub.engine.live.context import Context
from hub.engine.script import tokens
from hub.store.base import Txn
from kit import errors
from kit import tokens as secrets

KNOWN_MAX: Final = 4_096
"""Verified tokens kept in memory: more than a fleet has, less than two megabytes."""

USE_STEP_S: Final = 60.0
"""last_use_time is to the minute."""

FORGETTING: Final = ("token.", "agent.deleted", "agent.token_rotated", "agent.enrolled")


class Verifier:
    """Says whose a secret is."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: dict[str, Token] = {}
        #: Token id -> minute of its last use that is not written yet. Bounded by the tokens that exist.
        self._used: dict[str, float] = {}
        ctx.bus.listen(self._heard)

    def verify(self, secret: str) -> Token:
        """The token of a secret. Raises Unauthenticated."""
        if not secrets.is_token(secret):
            raise errors.Unauthenticated("the token is not of the form act_...", reason="TOKEN_MALFORMED")
        digest = secrets.digest(secret)
        now = self._ctx.clock.now()
        token = self._known.get(digest)
        if token is None:
            token = self._ctx.store.read(lambda reader: reader.token_by_hash(digest))
        token = tokens.good(token, now)
        if not hmac.compare_digest(digest, token.secret_sha256):
            raise errors.Unauthenticated("the token is not known", reason="TOKEN_UNKNOWN")
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[digest] = token
        minute = now - now % USE_STEP_S
        if token.last_used_at is None or token.last_used_at < minute:
            self._used[token.id] = minute
        return token

    async def run_once(self, now: float) -> None:
        """Write down when tokens were last used."""
        if not self._used:
            return
        used, self._used = self._used, {}

        def write(txn: Txn) -> list[Token]:
            written = []
            for id, minute in used.items():
                token = txn.tokens.get(id)
                if token is not None and (token.last_used_at or 0.0) < minute:
                    after = msgspec.structs.replace(token, last_used_at=minute)
                    txn.tokens.put(after)
                    written.append(after)
            return written

        for token in await self._ctx.store.write(write):
            if token.secret_sha256 in self._known:
                self._known[token.secret_sha256] = token

    def _heard(self, events: Sequence[Event]) -> None:
        if self._known and any(event.type.startswith(FORGETTING) for event in events):
            self._known.clear()
