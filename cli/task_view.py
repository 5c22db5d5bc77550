"""How a task, its attempts and its answer to "why is it not running?" look."""

from __future__ import annotations

from rich.console import Group, RenderableType

from agentcom.v1 import task_pb2, task_service_pb2
from cli import goal_board, output, words

# Of what a failed attempt printed, the end says most.
EVIDENCE_LINES_MAX = 20

COLUMNS: list[output.Column[task_pb2.Task]] = [
    ("TASK", lambda task: words.short_name(task.name)),
    ("STATE", goal_board.task_state),
    ("LANE", lambda task: words.enum_word(task_pb2.Lane, task.spec.lane, "LANE_")),
    ("KIND", lambda task: words.enum_word(task_pb2.TaskKind, task.spec.kind, "TASK_KIND_")),
    ("AGENT", lambda task: words.short_name(task.agent)),
    ("TRIES", lambda task: str(task.generation)),
    ("CREATED", lambda task: words.time_text(task.create_time)),
    ("TITLE", lambda task: task.spec.title),
]

ATTEMPT_COLUMNS: list[output.Column[task_pb2.Attempt]] = [
    ("TRY", lambda attempt: str(attempt.generation)),
    ("OUTCOME", lambda attempt: words.enum_word(task_pb2.Attempt.Outcome, attempt.outcome, "OUTCOME_") or "goes on"),
    ("AGENT", lambda attempt: words.short_name(attempt.agent)),
    ("ASSIGNED", lambda attempt: words.time_text(attempt.assign_time)),
    ("RAN", lambda attempt: words.span_text(attempt.start_time, attempt.end_time)),
    ("COUNTED", lambda attempt: "yes" if attempt.charged else ""),
    ("HEAD", lambda attempt: attempt.result.head_sha[:12]),
    ("WHY", lambda attempt: attempt.failure.message or attempt.failure.reason or attempt.result.summary),
]

RECEIPT_COLUMNS: list[output.Column[task_pb2.Receipt]] = [
    ("CHECK", lambda receipt: receipt.check),
    ("SAYS", goal_board.verdict_word),
    ("WHERE", lambda receipt: words.enum_word(task_pb2.Receipt.Phase, receipt.phase, "PHASE_")),
    ("EXIT", lambda receipt: str(receipt.exit_code)),
    ("RAN", lambda receipt: words.seconds_text(receipt.duration.ToNanoseconds() / 1e9)),
    ("ON", lambda receipt: receipt.head_sha[:12]),
    ("BY", lambda receipt: words.short_name(receipt.agent)),
]

OBSTACLE_COLUMNS: list[output.Column[task_service_pb2.ExplainTaskResponse.Obstacle]] = [
    ("AGENT", lambda obstacle: words.short_name(obstacle.agent)),
    ("REASON", lambda obstacle: obstacle.reason),
    ("MEANS", lambda obstacle: obstacle.message),
]


def sheet(task: task_pb2.Task) -> RenderableType:
    """Everything about one task."""
    spec = task.spec
    rows = [
        ("task", task.name),
        ("title", spec.title),
        ("state", goal_board.task_state(task)),
        ("reason", task.state_reason),
        ("goal", f"{task.goal} ({task.plan_task})" if task.plan_task else task.goal),
        ("kind", words.enum_word(task_pb2.TaskKind, spec.kind, "TASK_KIND_")),
        ("lane", words.enum_word(task_pb2.Lane, spec.lane, "LANE_")),
        ("tier", words.enum_word(task_pb2.Tier, spec.tier, "TIER_")),
        ("repo", spec.repo),
        ("delivery", words.enum_word(task_pb2.Delivery, spec.delivery, "DELIVERY_")),
        ("needs", _requirement(spec.requirement)),
        ("may reach", _policy(spec.policy)),
        ("depends on", ", ".join(spec.depends_on)),
        ("command", spec.command),
        ("checks", "\n".join(f"{check.id}: {check.run}" for check in spec.checks)),
        ("agent", task.agent),
        ("attempts", f"{task.attempts_used} of {spec.attempts_max or 3} used"),
        ("came back from the merge", str(task.reworks or "")),
        ("change", task.change),
        ("created", words.time_text(task.create_time)),
        ("ended", words.time_text(task.end_time)),
        ("looked at again", words.time_text(task.wake_time)),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(spec.labels.items()))),
        ("etag", task.etag),
    ]
    parts: list[RenderableType] = [output.sheet(rows)]
    if spec.instructions:
        parts += ["", output.cell(spec.instructions)]
    if task.attempts:
        parts += ["", output.table(task.attempts, ATTEMPT_COLUMNS)]
        receipts = task.attempts[-1].result.receipts
        if receipts:
            parts += ["", output.table(receipts, RECEIPT_COLUMNS)]
    evidence = task.failure.evidence.rstrip().splitlines()[-EVIDENCE_LINES_MAX:]
    if evidence and task.state != task_pb2.Task.STATE_SUCCEEDED:
        parts += ["", output.cell("what the last failed attempt printed:"), output.cell("\n".join(evidence))]
    return Group(*parts)


def explanation(answer: task_service_pb2.ExplainTaskResponse) -> RenderableType:
    """Why a task does not run, and what would change that."""
    parts: list[RenderableType] = [output.cell(answer.summary)]
    parts += [output.cell(f"  would help: {sentence}") for sentence in answer.unblock]
    parts += [output.cell(f"  waits for: {name}") for name in answer.waits_for]
    if answer.ahead_count:
        count = "more than were counted" if answer.ahead_count < 0 else str(answer.ahead_count)
        parts.append(output.cell(f"  before it in the queue: {count}"))
    if answer.obstacles:
        parts += ["", output.table(answer.obstacles, OBSTACLE_COLUMNS)]
    return Group(*parts)


def _policy(policy: task_pb2.Policy) -> str:
    parts = ["only in a sandbox"] if policy.isolation == task_pb2.Policy.ISOLATION_REQUIRED else []
    return ", ".join([*parts, *(["the network"] if policy.network else [])])


def _requirement(requirement: task_pb2.Requirement) -> str:
    parts = [*requirement.capabilities]
    parts += [f"executor {requirement.executor}"] if requirement.executor else []
    parts += [requirement.agent] if requirement.agent else []
    return ", ".join(parts)
