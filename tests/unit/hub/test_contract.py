"""What the contract of a task must fulfil beyond the limits beside its fields."""

from __future__ import annotations

import msgspec
import pytest

from hub.core import contract
from hub.core.task import Check, Delivery, Kind, Requirement, TaskSpec, Tier
from kit import errors

NOW = 1_000.0
GOOD = TaskSpec(title="t", command="true")
VERIFY = TaskSpec(title="t", requirement=Requirement(kind=Kind.VERIFY, repo="r"), checks=(Check(id="c", run="true"),))


def but(spec=GOOD, **changes):
    wanted = {key: changes.pop(key) for key in ("kind", "tier", "repo") if key in changes}
    if wanted:
        changes["requirement"] = msgspec.structs.replace(spec.requirement, **wanted)
    return msgspec.structs.replace(spec, **changes)


@pytest.mark.parametrize(
    "spec",
    [
        GOOD,
        VERIFY,
        but(command="", tier=Tier.COMPLEX),
        but(repo="r", delivery=Delivery.MERGE),
        but(queue_deadline_at=NOW + 1, start_at=NOW + 0.5),
        but(start_at=NOW - 5),
        but(checks=(Check(id="a", run="true"), Check(id="b", run="true"))),
    ],
)
def test_a_contract_that_makes_sense_is_taken(spec):
    contract.check(spec, NOW)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (but(title=" "), ["spec.title"]),
        (but(command=""), ["spec.command"]),
        (but(command="  "), ["spec.command"]),
        (but(command="a\0b"), ["spec.command"]),
        *[(but(kind=kind), ["spec.kind"]) for kind in (Kind.SURVEY, Kind.MERGE, Kind.REVERT, Kind.PROBE)],
        (but(delivery=Delivery.BRANCH), ["spec.delivery"]),
        (but(delivery=Delivery.MERGE), ["spec.delivery"]),
        (but(VERIFY, checks=()), ["spec.checks"]),
        (but(VERIFY, repo=""), ["spec.repo"]),
        (but(VERIFY, delivery=Delivery.BRANCH), ["spec.delivery"]),
        (but(checks=(Check(id="a", run="true"), Check(id="a", run="true"))), ["spec.checks[1].id"]),
        (but(checks=(Check(id="a", run=" \n"),)), ["spec.checks[0].run"]),
        (but(checks=(Check(id="a", run="x\0"),)), ["spec.checks[0].run"]),
        (but(queue_deadline_at=NOW), ["spec.queue_deadline"]),
        (but(queue_deadline_at=NOW + 1, start_at=NOW + 1), ["spec.start_time"]),
        (but(title="", command="", queue_deadline_at=1.0), ["spec.title", "spec.command", "spec.queue_deadline"]),
    ],
)
def test_a_contradiction_is_refused_and_every_field_is_named(spec, fields):
    with pytest.raises(errors.Invalid) as refused:
        contract.check(spec, NOW)
    assert [violation.field for violation in refused.value.violations] == fields
