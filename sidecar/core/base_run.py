"""What the run of the checks on the base means, before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core import fault
from sidecar.core.assignment import Check, Receipt


def is_needed(checks: Sequence[Check]) -> bool:
    """Does any check say what it expects of the base? When none does, running them there would decide nothing."""
    return any(check.expect_on_base != "any" for check in checks)


def already_done(checks: Sequence[Check], receipts: Sequence[Receipt]) -> bool:
    """Some check should be red, and yet every one holds: what is asked for is there already."""
    assert len(checks) == len(receipts)
    return any(c.expect_on_base == "fail" for c in checks) and all(r.verdict == "pass" for r in receipts)


def broken(checks: Sequence[Check], receipts: Sequence[Receipt]) -> fault.Fault | None:
    """The fault of a base on which a check does not hold that guards what should work; None when there is none."""
    assert len(checks) == len(receipts)
    bad = [
        receipt
        for check, receipt in zip(checks, receipts, strict=True)
        if check.expect_on_base == "pass" and receipt.verdict != "pass"
    ]
    if not bad:
        return None
    named = ", ".join(f"{r.check} ({r.verdict})" for r in bad)
    return fault.Fault(
        f"checks that must hold on the base do not: {named}",
        reason="BASE_RED",
        attribution="task",
        evidence="\n".join(f"--- {r.check}\n{r.output_tail}" for r in bad),
    )
