"""What the contract of a submitted task must fulfil beyond the limits that stand beside its fields in the proto."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hub.core.task import Delivery, Kind, TaskSpec, Tier
from kit import errors

SUBMITTABLE: Final = frozenset({Kind.WORK, Kind.VERIFY})
"""Kinds that a caller may file; the others are filed by the hub, which knows what belongs to them."""

_Wrong = Callable[[str, str], None]


def check(spec: TaskSpec, now: float, field: str = "spec") -> None:
    """Raise Invalid, naming every field, when a contract contradicts itself. `field` is the path of the spec."""
    found = violations(spec, now, field)
    if found:
        raise errors.Invalid(violations=found)


def violations(spec: TaskSpec, now: float, field: str = "spec") -> list[errors.Violation]:
    """Everything that is wrong with it."""
    found: list[errors.Violation] = []

    def wrong(path: str, description: str) -> None:
        found.append(errors.Violation(f"{field}.{path}", description))

    requirement = spec.requirement
    kind = requirement.kind
    if not spec.title.strip():
        wrong("title", "must not be blank")
    if kind not in SUBMITTABLE:
        wrong("kind", f"tasks of kind {kind.name} are filed by the hub only; WORK and VERIFY may be submitted")
    if kind is Kind.WORK and requirement.tier is Tier.TRIVIAL and not spec.command.strip():
        wrong("command", "is required for a WORK task of tier TRIVIAL")
    if kind is Kind.VERIFY:
        if not spec.checks:
            wrong("checks", "a VERIFY task needs at least one check")
        if not requirement.repo:
            wrong("repo", "a VERIFY task needs a repo")
    if spec.delivery is not Delivery.NONE:
        if kind is not Kind.WORK:
            wrong("delivery", f"a {kind.name} task delivers nothing; must be absent or NONE")
        elif not requirement.repo:
            wrong("delivery", f"{spec.delivery.name} needs a repo")
    if "\0" in spec.command:
        wrong("command", "must not contain a NUL character")
    _checks(spec, wrong)
    _times(spec, now, wrong)
    return found


def _checks(spec: TaskSpec, wrong: _Wrong) -> None:
    seen: set[str] = set()
    for index, check in enumerate(spec.checks):
        if check.id in seen:
            wrong(f"checks[{index}].id", f"{check.id!r} is the id of an earlier check")
        seen.add(check.id)
        if not check.run.strip():
            wrong(f"checks[{index}].run", "must not be blank")
        if "\0" in check.run:
            wrong(f"checks[{index}].run", "must not contain a NUL character")


def _times(spec: TaskSpec, now: float, wrong: _Wrong) -> None:
    if spec.queue_deadline_at is None:
        return
    if spec.queue_deadline_at <= now:
        wrong("queue_deadline", "is in the past")
    if spec.start_at is not None and spec.start_at >= spec.queue_deadline_at:
        wrong("start_time", "is not before the queue_deadline")
