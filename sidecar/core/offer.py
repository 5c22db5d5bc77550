"""What this sidecar offers, and why it does not take an assignment. Pure.

The hub matches with the same facts; a refusal here is for what it could not know yet: a self-test that has just failed,
an executor that is gone since the last hello. "Not me" costs the task no attempt.
"""

from __future__ import annotations

import msgspec

from sidecar.core.assignment import Assignment, Kind
from sidecar.core.selftest import SelfTest

#: Kinds that need no executor: git and the checks are all they run.
WITHOUT_EXECUTOR: frozenset[Kind] = frozenset({"verify", "merge", "revert"})


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What is told in hello."""

    slots: int
    capabilities: tuple[str, ...] = ()
    executors: tuple[str, ...] = ()
    #: Tiers that the executors serve.
    tiers: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ("work",)
    #: Names of repositories ("repos/{repo}"); empty: any.
    repos: tuple[str, ...] = ()
    #: Commands are confined; tried at the start.
    sandbox: bool = False


class Refusal(msgspec.Struct, frozen=True):
    """Why not: `reason` is UPPER_SNAKE, the message one sentence for a person."""

    reason: str
    message: str


def refusal(offer: Offer, self_test: SelfTest | None, assignment: Assignment, *, closing: bool) -> Refusal | None:
    """Why this assignment is not taken; None when it is (if there is a slot)."""
    if closing:
        return Refusal("DRAINING", "this sidecar finishes what it holds and ends")
    if self_test is None:
        return Refusal("SELF_TEST_FAILED", "the self-test has not run yet")
    if not self_test.passed:
        failed = next((finding for finding in self_test.findings if not finding.passed), None)
        return Refusal("SELF_TEST_FAILED", "no finding" if failed is None else f"{failed.probe}: {failed.message}")
    if assignment.kind not in offer.kinds:
        return Refusal("UNKNOWN_KIND", f"tasks of kind {assignment.kind} are not done here")
    repo = assignment.repo.name if assignment.repo is not None else None
    if repo is not None and offer.repos and repo not in offer.repos:
        return Refusal("WRONG_REPO", f"{repo} is not worked on here")
    if assignment.isolation == "required" and not offer.sandbox:
        return Refusal("NO_SANDBOX", "the task demands a sandbox, and there is none here")
    if assignment.kind in WITHOUT_EXECUTOR:
        return None
    if assignment.executor and assignment.executor not in offer.executors:
        return Refusal("UNKNOWN_EXECUTOR", f"there is no executor {assignment.executor} here")
    if not assignment.executor and assignment.tier not in offer.tiers:
        return Refusal("UNKNOWN_EXECUTOR", f"no executor here serves the tier {assignment.tier}")
    return None
