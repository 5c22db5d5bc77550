"""Who is calling: a value that the interceptor sets for the length of one RPC."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass

from kit import errors


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven identity."""

    #: For logs, events and rate limits: `tokens/{id}`, `local`, or `peer:{address}` for a caller without a token.
    name: str
    #: What it may do: admin, operator, submitter, agent or viewer.
    scope: str
    #: The id of the agent it speaks for; None for people and tools.
    agent: str | None = None
    #: When its token ends by itself, in seconds since the epoch; None: never.
    expires_at: float | None = None


_current: contextvars.ContextVar[Principal] = contextvars.ContextVar("agentcom.principal")


def current() -> Principal:
    """The principal of the RPC being served. Raises Unauthenticated outside of one."""
    try:
        return _current.get()
    except LookupError:
        raise errors.Unauthenticated("no caller is known here") from None


def enter(principal: Principal) -> contextvars.Token[Principal]:
    """Make `principal` the current one; gives what `leave` needs."""
    return _current.set(principal)


def leave(token: contextvars.Token[Principal]) -> None:
    """Undo `enter`."""
    _current.reset(token)
