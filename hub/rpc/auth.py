"""Who calls: the bearer token of a call becomes a principal, and the table of scopes decides what it may call."""

from __future__ import annotations

from hub.core import scope
from hub.core.token import Scope
from hub.engine.desk.verifier import Verifier
from kit import channel, errors, interceptors, principal

LOCAL = principal.Principal("local", "admin")
"""Whoever calls without a token where none is required: the person at this machine."""


class Door:
    """Lets callers in. `required` false: without a token everything is open, which is for the loopback only."""

    def __init__(self, verifier: Verifier, *, required: bool) -> None:
        self._verifier = verifier
        self._required = required

    def authenticate(self, context: interceptors.Context, method: str) -> principal.Principal:
        """The principal of a call. Raises Unauthenticated or Forbidden."""
        secret = channel.bearer_token(context.invocation_metadata())
        if secret is None:
            if not self._required:
                return LOCAL
            if method in scope.OPEN:
                return interceptors.NOBODY
            raise errors.Unauthenticated("a token is required: authorization: Bearer <token>", reason="TOKEN_REQUIRED")
        token = self._verifier.verify(secret)
        if token.scope is Scope.JOIN and method not in scope.OPEN:
            raise errors.Forbidden("a join key opens EnrollAgent only", reason="SCOPE", metadata={"scope": "JOIN"})
        scope.admit(method, token.scope)
        return principal.Principal(f"tokens/{token.id}", token.scope.name.lower(), token.agent or None)
