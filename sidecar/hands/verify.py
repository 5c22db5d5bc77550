"""Runs checks on a tree and writes the receipts.

The command's exit code and its closing lines decide, and nobody's word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.core import assignment, cut, fault, verdict
from sidecar.hands.attempt import Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is checked."""

    tree: Path
    phase: assignment.Phase
    base_sha: str = ""
    head_sha: str = ""
    tree_sha: str = ""


async def run_checks(
    attempt: Attempt, checks: Sequence[assignment.Check], subject: Subject, *, variables: Mapping[str, str]
) -> tuple[assignment.Receipt, ...]:
    """Every check in its order, also after a red one: the evidence of all of them is worth more than the time."""
    receipts = []
    for check in checks:
        attempt.checkpoint()
        receipts.append(await _run(attempt, check, subject, variables))
    return tuple(receipts)


def red(receipts: Sequence[assignment.Receipt]) -> fault.Fault | None:
    """The fault of checks that do not hold; None when all hold."""
    bad = [receipt for receipt in receipts if receipt.verdict != "pass"]
    if not bad:
        return None
    told = ", ".join(f"{r.check} ({r.verdict}, exit code {r.exit_code})" for r in bad)
    share = assignment.EVIDENCE_BYTES_MAX // len(bad) - 256  # the heading of each
    evidence = "\n".join(f"--- {r.check}: {r.verdict}\n{cut.tail(r.output_tail, max(share, 256))}" for r in bad)
    return fault.Fault(
        f"{len(bad)} of {len(receipts)} checks do not hold: {told}",
        reason="CHECK_FAILED",
        attribution="task",
        evidence=evidence,
    )


async def _run(
    attempt: Attempt, check: assignment.Check, subject: Subject, variables: Mapping[str, str]
) -> assignment.Receipt:
    attempt.say(f"check {check.id} on {subject.phase}: {cut.line(check.run, 500)}")
    command = ("sh", "-c", check.run)
    with attempt.trail.inside("check", check=check.id, phase=subject.phase) as step:
        ended = await attempt.child(command, cwd=subject.tree, extra=variables, timeout_s=check.timeout_s)
        output = ended.output.text
        finished = ended.cause == "exited"
        said = verdict.judge(exit_code=ended.exit_code, finished=finished, output=output)
        attempt.tools.meter.checked(subject.phase, said, ended.duration_s, where=attempt.trail.traceparent)
        if step is not None:
            step.good = said == "pass"
            step.attributes["agentcom.verdict"] = said
    why = verdict.why_unknown(exit_code=ended.exit_code, finished=finished, output=output)
    attempt.say(f"check {check.id}: {said}, exit code {ended.exit_code}{f', {why}' if why else ''}")
    tail = output if not why else f"{output}\n[agentcom] unknown: {why}"
    return assignment.Receipt(
        check=check.id,
        command_sha256=hashlib.sha256(check.run.encode(errors="replace")).hexdigest(),
        base_sha=subject.base_sha,
        head_sha=subject.head_sha,
        tree_sha=subject.tree_sha,
        exit_code=ended.exit_code,
        duration_s=ended.duration_s,
        host=attempt.tools.host,
        agent=f"agents/{attempt.tools.agent}",
        started_at=ended.started_at,
        verdict=said,
        output_sha256=ended.output.sha256,
        output_tail=cut.tail(tail, assignment.OUTPUT_TAIL_BYTES_MAX),
        phase=subject.phase,
    )
