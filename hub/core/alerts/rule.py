"""The rules that raise alerts: a fixed catalogue, whose thresholds, times and severities people edit at run time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from hub.core.alerts.alert import RULES, Severity
from kit import errors

TASKS: Final = "tasks"
SECONDS: Final = "seconds"
SHARE: Final = "share"
BYTES: Final = "bytes"
INTERVALS: Final = "intervals"

HOLD_S_MAX: Final = 604_800.0
"""7 days, as the contract has it."""
COOLDOWN_S_MAX: Final = 2_592_000.0
"""30 days, as the contract has it."""

TASKS_MAX: Final = 5_000_000.0
"""More do not wait: `engine.queue_max`."""
AGE_S_MAX: Final = 31_536_000.0
"""A year: who wants to hear of nothing younger disables the rule."""

_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3_600.0
_MIB: Final = 1024.0 * 1024.0


class Setting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people may edit of a rule."""

    severity: Severity
    enabled: bool = True
    threshold: float = 0.0
    hold_s: float = 0.0
    """How long it must be so before it is raised."""
    cooldown_s: float = _HOUR_S
    """For how long people are not told of the same alert again."""


class Edited(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule that was edited, as it is stored."""

    setting: Setting | None = None
    """None: it got its defaults back."""
    revision: int = 1
    updated_at: float = 0.0


class Rule(NamedTuple):
    """One of the catalogue."""

    id: str
    description: str
    default: Setting
    unit: str = ""
    """Empty: it is so or it is not, and there is no threshold."""
    low: float = 0.0
    high: float = 0.0
    """The bounds of the threshold."""
    below: bool = False
    """Raised when what is measured is below the threshold."""

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"{RULES}/{self.id}"


def _setting(
    severity: Severity, threshold: float = 0.0, *, hold_s: float = 0.0, cooldown_s: float = _HOUR_S
) -> Setting:
    return Setting(severity=severity, threshold=threshold, hold_s=hold_s, cooldown_s=cooldown_s)


_WARNING: Final = Severity.WARNING
_CRITICAL: Final = Severity.CRITICAL

CATALOGUE: Final = (
    Rule(
        "store-degraded",
        "The store is damaged and open for reading only.",
        _setting(_CRITICAL),
    ),
    Rule(
        "store-full",
        "Share of the store's limit that is in use.",
        _setting(_WARNING, 0.8),
        SHARE,
        low=0.01,
        high=1.0,
    ),
    Rule(
        "disk-low",
        "Free space on the disk of the store; critical below the reserve, where new work is refused.",
        _setting(_WARNING, 256 * _MIB),
        BYTES,
        low=_MIB,
        high=2.0**50,
        below=True,
    ),
    Rule(
        "backup-old",
        "Age of the newest good backup, in intervals of the schedule.",
        _setting(_WARNING, 2.5, cooldown_s=6 * _HOUR_S),  # one that failed and its repeat
        INTERVALS,
        low=1.0,
        high=1_000.0,
    ),
    Rule(
        "backup-failed",
        "The last try to make a backup failed.",
        _setting(_WARNING),
    ),
    Rule(
        "loops-late",
        "A duty of the hub has not succeeded for its period and two minutes.",
        _setting(_CRITICAL, cooldown_s=10 * _MINUTE_S),
    ),
    Rule(
        "queue-growing",
        "Tasks by which the queue is longer than 15 minutes ago, having grown in each third of that time.",
        _setting(_WARNING, 100.0, hold_s=_MINUTE_S),  # two agents with tasks of minutes take an hour or two for them
        TASKS,
        low=1.0,
        high=TASKS_MAX,
    ),
    Rule(
        "oldest-task",
        "How long the oldest queued task has waited for an agent.",
        _setting(_WARNING, _HOUR_S, hold_s=_MINUTE_S),
        SECONDS,
        low=1.0,
        high=AGE_S_MAX,
    ),
    Rule(
        "stuck-tasks",
        "Attempts that show no progress, or were taken back for that within the last 15 minutes.",
        _setting(_WARNING, 1.0, cooldown_s=30 * _MINUTE_S),
        TASKS,
        low=1.0,
        high=TASKS_MAX,
    ),
    Rule(
        "failure-rate",
        "Failed attempts over all attempts that ended within the last 30 minutes, when there were at least 10.",
        _setting(_WARNING, 0.5, hold_s=_MINUTE_S),
        SHARE,
        low=0.01,
        high=1.0,
    ),
    Rule(
        "no-agents",
        "No agent is online although there are some; critical while tasks wait.",
        _setting(_WARNING, hold_s=2 * _MINUTE_S, cooldown_s=15 * _MINUTE_S),
    ),
    Rule(
        "agent-offline",
        "How long an agent that is not drained has been offline; one alert for each, at most 20.",
        _setting(_WARNING, 2 * _MINUTE_S, cooldown_s=15 * _MINUTE_S),
        SECONDS,
        low=1.0,
        high=AGE_S_MAX,
    ),
    Rule(
        "agent-isolated",
        "An agent failed too often in a row and gets no work for a while; one alert for each, at most 20.",
        _setting(_WARNING, cooldown_s=30 * _MINUTE_S),
    ),
    Rule(
        "agent-refused",
        "A sidecar's version is too far from the hub's, and it gets no work; one alert for each, at most 20.",
        _setting(_WARNING),
    ),
    Rule(
        "main-red",
        "The default branch of a repo fails the checks that must hold on it; one alert for each, at most 20.",
        _setting(_CRITICAL),
    ),
)
"""Every rule there is, the hub's own first. An id is on disk and in the names of alerts: never change one."""

BY_ID: Final = {rule.id: rule for rule in CATALOGUE}

FIELDS: Final = {
    "enabled": "enabled",
    "threshold": "threshold",
    "hold_duration": "hold_s",
    "cooldown_duration": "cooldown_s",
    "severity": "severity",
}
"""What an edit may set: the field of the contract, and that of the setting."""


def found(id: str) -> Rule:
    """The rule. Raises NotFound."""
    rule = BY_ID.get(id)
    if rule is None:
        name = f"{RULES}/{id}"
        raise errors.NotFound(f"there is no {name}", reason="ALERT_RULE_NOT_FOUND", metadata={"name": name})
    return rule


def settings(edited: Mapping[str, Edited]) -> dict[str, Setting]:
    """What is in force, by the id of each rule."""
    return {rule.id: in_force(rule, edited.get(rule.id)) for rule in CATALOGUE}


def in_force(rule: Rule, edited: Edited | None) -> Setting:
    """The setting of one rule."""
    return rule.default if edited is None or edited.setting is None else edited.setting


def revised(rule: Rule, before: Edited | None, setting: Setting | None, now: float) -> Edited:
    """The record after an edit (None: after a reset)."""
    revision = 1 if before is None else before.revision + 1
    return Edited(setting=setting if setting != rule.default else None, revision=revision, updated_at=now)


def revision(edited: Edited | None) -> int:
    """What its etag says: 0 until the first edit."""
    return 0 if edited is None else edited.revision


def masked(rule: Rule, mask: Iterable[str]) -> list[str]:
    """The fields of the contract that are to be set. Raises Invalid."""
    paths = list(mask)
    if not paths:
        raise errors.Invalid.of("update_mask", "must name at least one field")
    if "*" in paths:
        return [field for field in FIELDS if rule.unit or field != "threshold"]
    for path in paths:
        if path not in FIELDS:
            raise errors.Invalid.of(
                "update_mask", f"{path[:60]!r} cannot be set; may be set: {', '.join(FIELDS)}", reason="BAD_MASK"
            )
    return [field for field in FIELDS if field in paths]


def edit(rule: Rule, before: Setting, wanted: Mapping[str, object], fields: Iterable[str]) -> Setting:
    """The setting with these fields (of the contract) replaced. Raises Invalid naming every field that is not good."""
    named = set(fields)
    changes = {FIELDS[field]: wanted[FIELDS[field]] for field in named}
    violations = []
    if "threshold" in named:
        violations += _threshold(rule, changes["threshold"])
    if "severity" in named and not changes["severity"]:
        violations.append(errors.Violation("alert_rule.severity", "must be WARNING or CRITICAL"))
    for field, longest_s in (("hold_duration", HOLD_S_MAX), ("cooldown_duration", COOLDOWN_S_MAX)):
        if field in named and not 0 <= _number(changes[FIELDS[field]]) <= longest_s:
            violations.append(errors.Violation(f"alert_rule.{field}", f"must be between 0 and {longest_s:.0f} s"))
    if violations:
        raise errors.Invalid(violations=violations)
    if "severity" in named:
        changes["severity"] = Severity(int(_number(changes["severity"])))
    return msgspec.structs.replace(before, **changes)


def _threshold(rule: Rule, value: object) -> list[errors.Violation]:
    field, number = "alert_rule.threshold", _number(value)
    if not rule.unit:
        return [errors.Violation(field, f"{rule.name} has no threshold: it is so or it is not")]
    if not (math.isfinite(number) and rule.low <= number <= rule.high):
        return [errors.Violation(field, f"must be between {rule.low:.12g} and {rule.high:.12g} {rule.unit}")]
    return []


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
