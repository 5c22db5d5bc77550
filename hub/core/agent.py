"""The agent: its durable record, and the one table of its states, which are derived and never stored."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from hub.core.task import Kind, Tier


class State(IntEnum):
    """The state of an agent; the numbers are those of the proto."""

    OFFLINE = 1
    IDLE = 2
    ASSIGNED = 3
    WORKING = 4
    BLOCKED = 5
    DRAINING = 6
    ISOLATED = 7


class Offer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent offers."""

    capabilities: frozenset[str] = frozenset()
    executors: frozenset[str] = frozenset()
    tiers: frozenset[Tier] = frozenset()
    kinds: frozenset[Kind] = frozenset()
    slots: int = 1
    repos: frozenset[str] = frozenset()
    """Ids of the repos that it works on; empty: any."""
    sandbox: bool = False
    """It runs commands in a sandbox, which was tried at its start."""


class Agent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An identity, as it is stored. Session, holdings and load live in memory only."""

    id: str
    display_name: str = ""
    offer: Offer = Offer()
    draining: bool = False
    failures_in_row: int = 0
    isolated_until: float | None = None
    suspects: tuple[tuple[str, int], ...] = ()
    """(task, generation) of the attempts that were charged during the present row of failures: refunded on
    isolation.
    """
    completed_count: int = 0
    failed_count: int = 0
    version: str = ""
    host: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0
    last_seen_at: float | None = None
    last_assigned_at: float | None = None
    token: str = ""
    """Id of its token."""
    token_before: str = ""
    """Id of the one that it replaced with a time of grace; those before are void."""
    revision: int = 1
