"""Whether a completion proves what its contract asks: "done" is what receipts show, never what an agent says."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from hub.core.task import Check, Kind, Phase, Receipt, Result, TaskSpec, Verdict


class Subject(NamedTuple):
    """The tree that counts for a completion."""

    commit: str
    phases: frozenset[Phase | None]
    """What a receipt of a run on it may call it."""


def missing(spec: TaskSpec, result: Result) -> list[str]:
    """One sentence for each check of the contract that no receipt proves; empty: the completion holds.

    A receipt proves a check when it passed, ran this very command, and ran on the tree that counts: the base for
    work that was already done, the merged commit for a merge, the commit looked at for a verification, the pushed
    commit otherwise.
    """
    subject = _subject(spec, result)
    return [
        f"check {check.id} has no passing receipt on the tree that counts ({subject.commit[:12] or 'no commit'})"
        for check in spec.checks
        if not any(_proves(receipt, check, subject) for receipt in result.receipts)
    ]


def command_hash(command: str) -> str:
    """SHA-256 of a command text, in hex, as receipts carry it."""
    return hashlib.sha256(command.encode()).hexdigest()


def _proves(receipt: Receipt, check: Check, subject: Subject) -> bool:
    return (
        receipt.check == check.id
        and receipt.verdict is Verdict.PASS
        and receipt.phase in subject.phases
        and receipt.head_sha == subject.commit
        and receipt.command_sha256 == command_hash(check.run)
    )


def _subject(spec: TaskSpec, result: Result) -> Subject:
    if spec.requirement.kind is Kind.MERGE:
        return Subject(result.merge_sha, frozenset({Phase.MERGED}))
    if spec.requirement.kind is Kind.VERIFY:
        return Subject(result.head_sha, frozenset({Phase.HEAD, Phase.MERGED}))
    if result.already_done:
        return Subject(result.base_sha, frozenset({Phase.BASE}))
    return Subject(result.head_sha, frozenset({Phase.HEAD}))
