"""The alert: what a person should look at, what people said about it, and for how long nobody is told of it."""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec

COLLECTION: Final = "alerts"
RULES: Final = "alertRules"

RAISED_MAX: Final = 100
"""Alerts at once, as ListAlerts promises: more than the catalogue raises, with one for each of 20 agents and repos."""

MUTES_MAX: Final = 200
"""Mutes in force at once: twice what can be raised. Together less than 200 KB."""

MUTE_S_MAX: Final = 7_776_000.0
"""90 days, the limit of the contract: what nobody wants to hear of for longer is a rule to be disabled."""


class Severity(IntEnum):
    """How urgent it is; the numbers are those of the proto."""

    WARNING = 1
    CRITICAL = 2


class Ack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That a person looks after an alert."""

    since: float
    """When the alert that is meant began: one that is raised anew is not acknowledged."""
    severity: Severity
    """How urgent it was then: when it becomes more so, this has ended."""
    principal: str
    at: float
    note: str = ""


class Mute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That nobody is told of an alert, or of all alerts of a rule, for a time."""

    target: str
    """Resource name: "alerts/{alert}" or "alertRules/{rule}"."""
    principal: str
    at: float
    expires_at: float
    reason: str = ""


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that a person should look at."""

    id: str
    rule: str
    subject: str = ""
    """Resource name of the agent or the repo that it is about; empty: the hub."""
    severity: Severity = Severity.WARNING
    message: str = ""
    advice: str = ""
    unit: str = ""
    value: float = 0.0
    threshold: float = 0.0
    since: float = 0.0
    """When what is the matter began."""
    told: int = 0
    """The severity at which people were told of it; 0: they were not."""
    ack: Ack | None = None

    @property
    def is_told(self) -> bool:
        """Were people told of it?"""
        return self.told > 0

    @property
    def is_acked(self) -> bool:
        """Does a person look after it, as urgent as it is now?"""
        return self.ack is not None and self.ack.since == self.since and self.ack.severity >= self.severity


def id_of(rule: str, subject: str) -> str:
    """The id of the alert of a rule about a subject ("" for the hub)."""
    return f"{rule}.{subject.partition('/')[2]}" if subject else rule


def rule_of(id: str) -> str:
    """The rule of the alert with this id."""
    return id.partition(".")[0]


def targets(id: str) -> tuple[str, str]:
    """What can be muted so that nobody is told of this alert: itself, and its rule."""
    return f"{COLLECTION}/{id}", f"{RULES}/{rule_of(id)}"


def is_muted(id: str, muted: Collection[str]) -> bool:
    """Is this alert, or its rule, among these targets?"""
    return any(target in muted for target in targets(id))


class Expired(NamedTuple):
    """Mutes parted by time."""

    in_force: tuple[Mute, ...]
    over: tuple[Mute, ...]


def part(mutes: Collection[Mute], now: float) -> Expired:
    """Which mutes are still in force, those that end first before the others, and which have ended."""
    ordered = sorted(mutes, key=lambda one: (one.expires_at, one.target))
    in_force = tuple(one for one in ordered if now < one.expires_at)
    return Expired(in_force, tuple(ordered[: len(ordered) - len(in_force)]))
