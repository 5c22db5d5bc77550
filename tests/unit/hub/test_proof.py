"""Done is what receipts show."""

from __future__ import annotations

import msgspec
import pytest

from hub.core import proof
from hub.core.task import Check, Kind, Phase, Receipt, Requirement, Result, TaskSpec, Verdict

CHECK = Check(id="c1", run="make test")
SPEC = TaskSpec(title="t", checks=(CHECK,))
GOOD = Receipt(
    check="c1", command_sha256=proof.command_hash("make test"), head_sha="h", verdict=Verdict.PASS, phase=Phase.HEAD
)


def result(receipt: Receipt, **changes: object) -> Result:
    return msgspec.structs.replace(Result(head_sha="h", base_sha="b", receipts=(receipt,)), **changes)


def test_a_passing_receipt_on_the_pushed_commit_proves_the_check() -> None:
    assert proof.missing(SPEC, result(GOOD)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": Verdict.FAIL},
        {"verdict": Verdict.UNKNOWN},
        {"head_sha": "another"},
        {"command_sha256": proof.command_hash("true")},
        {"check": "c2"},
        {"phase": Phase.BASE},
        {"phase": None},
    ],
)
def test_any_other_receipt_proves_nothing(change: dict[str, object]) -> None:
    assert len(proof.missing(SPEC, result(msgspec.structs.replace(GOOD, **change)))) == 1


def test_no_receipt_proves_nothing() -> None:
    assert len(proof.missing(SPEC, Result(head_sha="h"))) == 1


def test_work_that_was_done_already_is_proved_on_the_base() -> None:
    on_base = msgspec.structs.replace(GOOD, phase=Phase.BASE, head_sha="b")
    assert proof.missing(SPEC, result(on_base, already_done=True)) == []
    assert len(proof.missing(SPEC, result(GOOD, already_done=True))) == 1


def test_a_merge_is_proved_on_the_merged_commit() -> None:
    spec = msgspec.structs.replace(SPEC, requirement=Requirement(kind=Kind.MERGE))
    merged = msgspec.structs.replace(GOOD, phase=Phase.MERGED, head_sha="m")
    assert proof.missing(spec, result(merged, merge_sha="m")) == []
    assert len(proof.missing(spec, result(GOOD, merge_sha="m"))) == 1


@pytest.mark.parametrize("phase", [Phase.HEAD, Phase.MERGED])
def test_a_verification_is_proved_on_the_commit_that_it_looked_at(phase: Phase) -> None:
    spec = msgspec.structs.replace(SPEC, requirement=Requirement(kind=Kind.VERIFY))
    assert proof.missing(spec, result(msgspec.structs.replace(GOOD, phase=phase))) == []
    assert len(proof.missing(spec, result(msgspec.structs.replace(GOOD, phase=Phase.BASE)))) == 1
