"""The token: what opens the hub, stored only as a hash."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Scope(IntEnum):
    """What a token may do; the numbers are those of the proto."""

    ADMIN = 1
    OPERATOR = 2
    SUBMITTER = 3
    AGENT = 4
    VIEWER = 5
    JOIN = 6


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token without its secret."""

    id: str
    secret_sha256: str
    """Hex; unique, and an index of its own."""
    scope: Scope
    display_name: str = ""
    agent: str = ""
    created_at: float = 0.0
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None
