"""Between the wire and the sidecar's own values: nothing is decided here.

Outwards every text and list is cut to the contract's limits: a report that the hub must refuse would end the stream,
be sent again after the reconnect, and end it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TypeVar, assert_never

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf import message as protobuf

from agentcom.v1 import agent_pb2, attach_pb2, task_pb2, task_service_pb2
from kit import errors, ids
from sidecar.core import assignment as values
from sidecar.core import cut
from sidecar.core.assignment import Assignment, Done, Holding, NotDone, Outcome
from sidecar.core.offer import Offer
from sidecar.core.selftest import SelfTest
from sidecar.core.slots import HELD_COUNT_MAX
from sidecar.core.tail import Chunk

K = TypeVar("K")
W = TypeVar("W")

# What an absent field means (protos/agentcom/v1/task.proto).
CHECK_TIMEOUT_S = 600.0
RUN_TIMEOUT_S = 3600.0
SILENCE_TIMEOUT_S = 600.0
#: A trace context is 55 characters; it goes into the environment of commands, and a later version may say more.
TRACEPARENT_CHARS_MAX = 128
#: Artefacts and findings in one message (task.proto, agent.proto).
ARTIFACT_COUNT_MAX = 8
FINDING_COUNT_MAX = 32
FINDING_BYTES_MAX = 1024

KINDS: dict[task_pb2.TaskKind.ValueType, values.Kind] = {
    task_pb2.TASK_KIND_UNSPECIFIED: "work",
    task_pb2.TASK_KIND_WORK: "work",
    task_pb2.TASK_KIND_SURVEY: "survey",
    task_pb2.TASK_KIND_VERIFY: "verify",
    task_pb2.TASK_KIND_MERGE: "merge",
    task_pb2.TASK_KIND_REVERT: "revert",
    task_pb2.TASK_KIND_PROBE: "probe",
}
TIERS: dict[task_pb2.Tier.ValueType, str] = {
    task_pb2.TIER_UNSPECIFIED: "trivial",
    task_pb2.TIER_TRIVIAL: "trivial",
    task_pb2.TIER_STANDARD: "standard",
    task_pb2.TIER_COMPLEX: "complex",
}
EXPECTATIONS: dict[task_pb2.Check.Expectation.ValueType, values.Expectation] = {
    task_pb2.Check.EXPECTATION_UNSPECIFIED: "any",
    task_pb2.Check.EXPECTATION_FAIL: "fail",
    task_pb2.Check.EXPECTATION_PASS: "pass",
    task_pb2.Check.EXPECTATION_ANY: "any",
}
ATTRIBUTIONS: dict[task_pb2.Attribution.ValueType, values.Attribution] = {
    task_pb2.ATTRIBUTION_UNSPECIFIED: "task",
    task_pb2.ATTRIBUTION_TASK: "task",
    task_pb2.ATTRIBUTION_AGENT: "agent",
    task_pb2.ATTRIBUTION_ENVIRONMENT: "environment",
    task_pb2.ATTRIBUTION_CREDENTIAL: "credential",
    task_pb2.ATTRIBUTION_PROVIDER: "provider",
    task_pb2.ATTRIBUTION_HUB: "hub",
}
_DELIVERIES: dict[task_pb2.Delivery.ValueType, values.Delivery] = {
    task_pb2.DELIVERY_NONE: "none",
    task_pb2.DELIVERY_BRANCH: "branch",
    task_pb2.DELIVERY_MERGE: "merge",
}
_VERDICTS: dict[str, task_pb2.Receipt.Verdict.ValueType] = {
    "pass": task_pb2.Receipt.VERDICT_PASS,
    "fail": task_pb2.Receipt.VERDICT_FAIL,
    "unknown": task_pb2.Receipt.VERDICT_UNKNOWN,
}
_PHASES: dict[str, task_pb2.Receipt.Phase.ValueType] = {
    "base": task_pb2.Receipt.PHASE_BASE,
    "head": task_pb2.Receipt.PHASE_HEAD,
    "merged": task_pb2.Receipt.PHASE_MERGED,
}
# The way back: the last entry of each value, because the first may be the "absent" one.
_KIND_NUMBERS = {word: number for number, word in KINDS.items()}
_TIER_NUMBERS = {word: number for number, word in TIERS.items()}
_ATTRIBUTION_NUMBERS = {word: number for number, word in ATTRIBUTIONS.items()}


# From the hub.


def holding(message: task_pb2.Holding) -> Holding:
    """A holding. Raises Invalid when its name is none."""
    return Holding(task=ids.parse_name("tasks", message.task, field="holding.task"), generation=message.generation)


def holdings(messages: Iterable[task_pb2.Holding]) -> list[Holding]:
    """Several."""
    return [holding(message) for message in messages]


def assignment(message: attach_pb2.Assign) -> Assignment:
    """What the stream orders. Raises Invalid when it cannot be understood (a newer hub's kind of task)."""
    spec = message.spec
    return _assignment(
        message.holding,
        spec,
        goal=message.goal,
        attempts_used=message.attempts_used,
        access=message.repo if message.HasField("repo") else None,
        wip_ref=message.wip_ref,
        last_failure=message.last_failure if message.HasField("last_failure") else None,
        change=message.change if message.HasField("change") else None,
        traceparent=message.traceparent[:TRACEPARENT_CHARS_MAX],
    )


def claim(message: task_service_pb2.ClaimTaskResponse) -> Assignment:
    """What a person took by hand."""
    task = message.task
    return _assignment(
        message.holding,
        task.spec,
        goal=task.goal,
        attempts_used=task.attempts_used,
        access=message.repo if message.HasField("repo") else None,
        wip_ref=message.wip_ref,
        last_failure=task.failure if task.HasField("failure") else None,
        change=None,
    )


def _assignment(
    held: task_pb2.Holding,
    spec: task_pb2.TaskSpec,
    *,
    goal: str,
    attempts_used: int,
    access: task_service_pb2.RepoAccess | None,
    wip_ref: str,
    last_failure: task_pb2.Failure | None,
    change: attach_pb2.ChangeRef | None,
    traceparent: str = "",
) -> Assignment:
    repo = None if access is None else _repo(access)
    return Assignment(
        holding=holding(held),
        title=spec.title,
        instructions=spec.instructions,
        kind=_word(KINDS, spec.kind, "spec.kind"),
        tier=_word(TIERS, spec.tier, "spec.tier"),
        executor=spec.requirement.executor,
        command=spec.command,
        checks=tuple(_check(check, index) for index, check in enumerate(spec.checks, 1)),
        repo=repo,
        goal=goal,
        attempts_used=attempts_used,
        traceparent=traceparent,
        run_timeout_s=_seconds(spec, "run_timeout", RUN_TIMEOUT_S),
        silence_timeout_s=_seconds(spec, "silence_timeout", SILENCE_TIMEOUT_S),
        delivery=_delivery(spec.delivery, has_repo=repo is not None),
        wip_ref=wip_ref,
        last_failure=None if last_failure is None else failure_in(last_failure),
        change=None if change is None else _change(change),
        labels=dict(spec.labels),
        touches=tuple(spec.touches),
        isolation="required" if spec.policy.isolation == task_pb2.Policy.ISOLATION_REQUIRED else "preferred",
        network=spec.policy.network,
    )


def _repo(message: task_service_pb2.RepoAccess) -> values.RepoAccess:
    return values.RepoAccess(name=message.name, url=message.url, default_branch=message.default_branch or "main")


def _check(message: task_pb2.Check, index: int) -> values.Check:
    return values.Check(
        id=message.id or f"check-{index}",
        run=message.run,
        timeout_s=_seconds(message, "timeout", CHECK_TIMEOUT_S),
        expect_on_base=EXPECTATIONS.get(message.expect_on_base, "any"),
    )


def _change(message: attach_pb2.ChangeRef) -> values.ChangeRef:
    return values.ChangeRef(
        name=message.name,
        task=message.task.removeprefix("tasks/"),
        branch=message.branch,
        head_sha=message.head_sha,
        base_sha=message.base_sha,
        title=message.title,
    )


def failure_in(message: task_pb2.Failure) -> values.Failure:
    """A failure that the hub tells of."""
    attribution = ATTRIBUTIONS.get(message.attribution, "task")
    return values.Failure(
        reason=message.reason, message=message.message, attribution=attribution, evidence=message.evidence
    )


def _delivery(number: task_pb2.Delivery.ValueType, *, has_repo: bool) -> values.Delivery:
    absent: values.Delivery = "branch" if has_repo else "none"
    return _DELIVERIES.get(number, absent)


def _word(table: Mapping[K, W], number: K, field: str) -> W:
    try:
        return table[number]
    except KeyError:
        raise errors.Invalid.of(field, f"{number} is not known to this version", reason="UNKNOWN_VALUE") from None


def _seconds(message: protobuf.Message, field: str, absent: float) -> float:
    if not message.HasField(field):
        return absent
    delta: timedelta = getattr(message, field).ToTimedelta()
    return delta.total_seconds()


# To the hub.


def to_holding(held: Holding) -> task_pb2.Holding:
    """A holding."""
    return task_pb2.Holding(task=ids.name("tasks", held.task), generation=held.generation)


def to_holdings(held: Iterable[Holding]) -> list[task_pb2.Holding]:
    """Several, never more than a message may carry."""
    return [to_holding(item) for item in held][:HELD_COUNT_MAX]


def to_accepted(held: Holding) -> attach_pb2.Report:
    """The work has begun."""
    return attach_pb2.Report(holding=to_holding(held), accepted=attach_pb2.Accepted())


def to_rejected(held: Holding, reason: str, message: str) -> attach_pb2.Report:
    """Not me."""
    rejected = attach_pb2.Rejected(reason=reason, message=_head(message, 1024))
    return attach_pb2.Report(holding=to_holding(held), rejected=rejected)


def to_report(held: Holding, outcome: Outcome) -> attach_pb2.Report:
    """What became of it."""
    match outcome:
        case Done():
            completed = attach_pb2.Completed(result=to_result(outcome))
            return attach_pb2.Report(holding=to_holding(held), completed=completed)
        case NotDone():
            failed = attach_pb2.Failed(
                failure=to_failure(outcome.failure),
                receipts=[_receipt(item) for item in outcome.receipts[-values.RECEIPT_COUNT_MAX :]],
                artifacts=[_artifact(item) for item in outcome.artifacts[:ARTIFACT_COUNT_MAX]],
                wip_ref=outcome.wip_ref,
                stopped=outcome.stopped,
            )
            return attach_pb2.Report(holding=to_holding(held), failed=failed)
    assert_never(outcome)


def to_result(done: Done) -> task_pb2.Result:
    """What a successful attempt brings."""
    stat = done.diff_stat
    return task_pb2.Result(
        summary=_head(done.summary, values.MESSAGE_BYTES_MAX),
        base_sha=done.base_sha,
        head_sha=done.head_sha,
        branch=done.branch,
        already_done=done.already_done,
        receipts=[_receipt(item) for item in done.receipts[-values.RECEIPT_COUNT_MAX :]],
        artifacts=[_artifact(item) for item in done.artifacts[:ARTIFACT_COUNT_MAX]],
        merge_sha=done.merge_sha,
        tokens=done.tokens,
        change_title=_valid(done.change_title)[: values.CHANGE_TITLE_CHARACTERS_MAX],
        change_body=_head(done.change_body, values.CHANGE_BODY_BYTES_MAX),
        diff_stat=task_pb2.DiffStat(files=stat.files, insertions=stat.insertions, deletions=stat.deletions),
    )


def to_failure(failure: values.Failure) -> task_pb2.Failure:
    """Why it did not succeed. Of the evidence the end is kept."""
    return task_pb2.Failure(
        reason=failure.reason,
        message=_head(failure.message, values.MESSAGE_BYTES_MAX),
        attribution=_ATTRIBUTION_NUMBERS[failure.attribution],
        evidence=_tail(failure.evidence, values.EVIDENCE_BYTES_MAX),
    )


def _receipt(receipt: values.Receipt) -> task_pb2.Receipt:
    return task_pb2.Receipt(
        check=receipt.check,
        command_sha256=receipt.command_sha256,
        base_sha=receipt.base_sha,
        head_sha=receipt.head_sha,
        tree_sha=receipt.tree_sha,
        exit_code=receipt.exit_code,
        duration=_duration(receipt.duration_s),
        host=_valid(receipt.host)[:128],
        agent=receipt.agent,
        start_time=to_time(receipt.started_at),
        verdict=_VERDICTS[receipt.verdict],
        output_sha256=receipt.output_sha256,
        output_tail=_tail(receipt.output_tail, values.OUTPUT_TAIL_BYTES_MAX),
        phase=_PHASES[receipt.phase],
    )


def _artifact(artifact: values.Artifact) -> task_pb2.Artifact:
    fits = len(artifact.content) <= values.ARTIFACT_BYTES_MAX
    return task_pb2.Artifact(
        id=artifact.id,
        media_type=artifact.media_type,
        content=artifact.content if fits else artifact.content[: values.ARTIFACT_BYTES_MAX],
        size_bytes=artifact.size_bytes,
        truncated=artifact.truncated or not fits,
    )


def to_progress(progress: values.Progress) -> agent_pb2.Progress:
    """How a holding gets on."""
    return agent_pb2.Progress(
        phase=_valid(progress.phase)[:32],
        files_changed=progress.files_changed,
        commits=progress.commits,
        tool_calls=progress.tool_calls,
        tokens=progress.tokens,
        last_output_time=None if progress.last_output_at is None else to_time(progress.last_output_at),
    )


def to_self_test(self_test: SelfTest) -> agent_pb2.SelfTest:
    """What was found."""
    return agent_pb2.SelfTest(
        passed=self_test.passed,
        findings=[
            agent_pb2.SelfTest.Finding(
                probe=_valid(finding.probe)[:64],
                passed=finding.passed,
                message=_head(finding.message, FINDING_BYTES_MAX),
            )
            for finding in self_test.findings[:FINDING_COUNT_MAX]
        ],
        end_time=to_time(self_test.ended_at),
    )


def to_log(chunk: Chunk) -> attach_pb2.LogChunk:
    """A piece of a live log."""
    return attach_pb2.LogChunk(
        holding=to_holding(chunk.holding), text=chunk.text, dropped_bytes=chunk.dropped_bytes, end=chunk.end
    )


def to_offer(offered: Offer) -> agent_pb2.Offer:
    """What this sidecar offers; each list is sorted and without repeats."""
    return agent_pb2.Offer(
        capabilities=sorted(set(offered.capabilities)),
        executors=sorted(set(offered.executors)),
        tiers=sorted({_TIER_NUMBERS[tier] for tier in offered.tiers}),
        kinds=sorted({_KIND_NUMBERS[kind] for kind in offered.kinds}),
        slots=offered.slots,
        repos=sorted(set(offered.repos)),
        sandbox=offered.sandbox,
    )


def to_time(seconds: float) -> timestamp_pb2.Timestamp:
    """Seconds since the epoch."""
    whole, nanos = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=nanos)


def _duration(seconds: float) -> duration_pb2.Duration:
    whole, nanos = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    return duration_pb2.Duration(seconds=whole, nanos=nanos)


def _valid(text: str) -> str:
    """Without lone surrogates (bytes of a file name that are not UTF-8), which no message can carry."""
    return text.encode("utf-8", "replace").decode()


def _head(text: str, bytes_max: int) -> str:
    return cut.head(_valid(text), bytes_max)


def _tail(text: str, bytes_max: int) -> str:
    return cut.tail(_valid(text), bytes_max)
