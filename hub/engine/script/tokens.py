"""Tokens: made, checked, revoked."""

from __future__ import annotations

from typing import Final

import msgspec

from hub.core.token import Scope, Token
from hub.store.base import Txn
from kit import errors
from kit import tokens as secrets

JOIN_TTL_S: Final = 3_600.0
"""A join key that nobody named an end for: long enough to set a machine up."""


def create(txn: Txn, token: Token, now: float, *, actor: str) -> Token:
    """File a new token."""
    txn.tokens.put(token)
    fields = {"scope": token.scope.name} | ({"agent": token.agent} if token.agent else {})
    txn.append(now, "token.created", f"tokens/{token.id}", actor=actor, **fields)
    return token


def revoke(txn: Txn, token_id: str, now: float, *, actor: str) -> Token:
    """Make a token void; one that is void already stays as it is. Raises NotFound."""
    token = txn.tokens.get(token_id)
    if token is None:
        raise errors.NotFound(
            f"there is no tokens/{token_id}", reason="TOKEN_NOT_FOUND", metadata={"name": f"tokens/{token_id}"}
        )
    if token.revoked_at is not None:
        return token
    after = msgspec.structs.replace(token, revoked_at=now)
    txn.tokens.put(after)
    txn.append(now, "token.revoked", f"tokens/{token_id}", actor=actor, scope=token.scope.name)
    return after


def expire(txn: Txn, token_id: str, at: float, now: float, *, actor: str) -> Token | None:
    """Give a token an end, unless it has an earlier one or is void; None when there is no such token."""
    token = txn.tokens.get(token_id)
    if token is None or token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= at):
        return token
    after = msgspec.structs.replace(token, expires_at=at)
    txn.tokens.put(after)
    txn.append(now, "token.expiring", f"tokens/{token_id}", actor=actor, scope=token.scope.name, until=f"{at:.3f}")
    return after


def good(token: Token | None, now: float) -> Token:
    """The token, when it opens anything now. Raises Unauthenticated, saying what is wrong with it."""
    if token is None:
        raise errors.Unauthenticated("the token is not known", reason="TOKEN_UNKNOWN")
    if token.revoked_at is not None:
        raise errors.Unauthenticated("the token is revoked or used up", reason="TOKEN_REVOKED")
    if token.expires_at is not None and token.expires_at <= now:
        raise errors.Unauthenticated("the token has expired", reason="TOKEN_EXPIRED")
    return token


def new(
    token_id: str,
    secret: str,
    scope: Scope,
    now: float,
    *,
    display_name: str = "",
    agent: str = "",
    ttl_s: float | None = None,
) -> Token:
    """The record of a new secret. A join key without an end is good for an hour, any other for ever."""
    if ttl_s is None and scope is Scope.JOIN:
        ttl_s = JOIN_TTL_S
    return Token(
        id=token_id,
        secret_sha256=secrets.digest(secret),
        scope=scope,
        display_name=display_name,
        agent=agent,
        created_at=now,
        expires_at=None if ttl_s is None else now + ttl_s,
    )
