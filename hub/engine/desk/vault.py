"""The tokens, as callers see them: made, listed, revoked."""

from __future__ import annotations

from hub.core.token import Scope, Token
from hub.engine.live.context import Context
from hub.engine.script import tokens
from kit import tokens as secrets


class Vault:
    """Makes tokens and makes them void."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def create(self, scope: Scope, display_name: str, ttl_s: float | None, *, actor: str) -> tuple[Token, str]:
        """A new token and its secret, which is shown only here."""
        now, secret = self._ctx.clock.now(), secrets.new_token()
        token = tokens.new(self._ctx.ids.new(now), secret, scope, now, display_name=display_name, ttl_s=ttl_s)
        await self._ctx.store.write(lambda txn: tokens.create(txn, token, now, actor=actor), essential=True)
        return token, secret

    def page(self, *, after: str, limit: int) -> tuple[list[Token], str]:
        """A page of tokens, oldest first, and where the next one begins; empty at the end."""
        found = self._ctx.store.read(lambda reader: reader.tokens.page(after=after, limit=limit))
        return found, found[-1].id if len(found) == limit else ""

    async def revoke(self, token_id: str, *, actor: str) -> Token:
        """Make a token void at once."""
        now = self._ctx.clock.now()
        return await self._ctx.store.write(lambda txn: tokens.revoke(txn, token_id, now, actor=actor), essential=True)

    def any_admin(self) -> bool:
        """Is there a token that opens everything, and is it still good?"""
        after = ""
        now = self._ctx.clock.now()
        while True:
            found, after = self.page(after=after, limit=1000)
            for token in found:
                expired = token.expires_at is not None and token.expires_at <= now
                if token.scope is Scope.ADMIN and token.revoked_at is None and not expired:
                    return True
            if not after:
                return False
