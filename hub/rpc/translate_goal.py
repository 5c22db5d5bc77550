"""Goals, plans, changes and repos between the wire and the records."""

from __future__ import annotations

from typing import Final

from agentcom.v1 import change_pb2, goal_pb2, repo_pb2, task_pb2
from hub.core.change import Change
from hub.core.goal import Assertion, Goal, Plan, PlanTask, State
from hub.core.plan import Finding
from hub.core.repo import MergeStyle, Repo
from hub.core.task import Lane
from hub.engine.desk.filing import Draft
from hub.engine.script.goals import Tally
from hub.rpc import reply, translate
from kit import errors

GOAL_BYTES_MAX: Final = reply.BYTES_MAX
"""Of a goal with its plan. It is told with every default filled in and the outputs of its checks, in one message."""


def read_goal(message: goal_pb2.Goal) -> Draft:
    """What somebody wants, with every default filled in. Output-only fields are ignored.

    Raises Invalid for a goal that could be filed and never be told again.
    """
    size = message.ByteSize()
    if size > GOAL_BYTES_MAX:
        raise errors.Invalid.of("goal", f"has {size} bytes, at most {GOAL_BYTES_MAX}: make it several goals")
    goal = Goal(
        id="",
        title=message.title,
        description=message.description,
        repo=message.repo.removeprefix("repos/"),
        state=State.AWAITING_PLAN,
        lane=Lane(message.lane or Lane.NORMAL),
        assertions=tuple(_read_assertion(assertion) for assertion in message.assertions),
        labels=dict(message.labels),
    )
    if not message.HasField("plan"):
        return Draft(goal, None)
    return Draft(goal, tuple(_read_plan_task(task, goal.lane) for task in message.plan.tasks))


def write_goal(goal: Goal, tally: Tally | None, plan: Plan | None, into: goal_pb2.Goal, *, brief: bool = False) -> None:
    """Fill a goal; `brief` leaves its assertions out. Without a tally only what the record counts is told."""
    into.name = translate.name("goals", goal.id)
    into.title = goal.title
    into.description = goal.description
    into.repo = translate.name("repos", goal.repo)
    into.lane = goal.lane  # type: ignore[assignment]  # the numbers are the same
    into.state = goal.state  # type: ignore[assignment]  # the numbers are the same
    into.state_reason = goal.reason
    counts = into.task_counts
    counts.total, counts.succeeded, counts.failed = goal.task_total, goal.task_succeeded, goal.task_failed
    if tally is not None and tally.total:
        counts.waiting, counts.active = tally.waiting, tally.active
        counts.succeeded, counts.failed = tally.succeeded, tally.failed
    if not brief:
        for assertion in goal.assertions:
            _write_assertion(assertion, into.assertions.add())
    if plan is not None:
        into.plan.version = plan.version
        for task in plan.tasks:
            _write_plan_task(task, into.plan.tasks.add())
    translate.write_time(goal.created_at or None, into.create_time)
    translate.write_time(goal.updated_at or None, into.update_time)
    translate.write_time(goal.ended_at, into.end_time)
    into.etag = str(goal.revision)
    into.verify_task = translate.name("tasks", goal.verify_task)
    if goal.labels:
        into.labels.update(goal.labels)
    into.paused = goal.paused


def write_finding(finding: Finding, into: goal_pb2.Finding) -> None:
    """Fill a finding of the linter."""
    into.rule = finding.rule
    into.severity = finding.severity  # type: ignore[assignment]  # the numbers are the same
    into.field = finding.field
    into.message = finding.message


def write_change(change: Change, into: change_pb2.Change) -> None:
    """Fill a change."""
    into.name = f"changes/{change.id}"
    into.task = translate.name("tasks", change.task)
    into.generation = change.generation
    into.goal = translate.name("goals", change.goal)
    into.repo = translate.name("repos", change.repo)
    into.branch = change.branch
    into.base_sha = change.base_sha
    into.head_sha = change.head_sha
    into.title = change.title
    into.body = change.body
    if change.diff_stat is not None:
        translate.write_diff_stat(change.diff_stat, into.diff_stat)
    into.state = change.state  # type: ignore[assignment]  # the numbers are the same
    into.state_reason = change.reason
    into.merge_task = translate.name("tasks", change.merge_task)
    into.merge_sha = change.merge_sha
    into.merge_agent = translate.name("agents", change.merge_agent)
    translate.write_time(change.created_at, into.create_time)
    translate.write_time(change.updated_at, into.update_time)
    translate.write_time(change.ended_at, into.end_time)
    if change.failure is not None:
        translate.write_failure(change.failure, into.failure)


def read_repo(message: repo_pb2.Repo, repo_id: str) -> Repo:
    """A repo as somebody wants it. Output-only fields are ignored."""
    return Repo(
        id=repo_id,
        url=message.url,
        display_name=message.display_name,
        default_branch=message.default_branch or "main",
        checks=translate.read_checks(message.checks),
        merge_style=MergeStyle(message.merge_style or MergeStyle.MERGE_COMMIT),
    )


def write_repo(repo: Repo, train_length: int, into: repo_pb2.Repo) -> None:
    """Fill a repo."""
    into.name = f"repos/{repo.id}"
    into.display_name = repo.display_name
    into.url = repo.url
    into.default_branch = repo.default_branch
    for check in repo.checks:
        translate.write_check(check, into.checks.add())
    into.merge_style = repo.merge_style  # type: ignore[assignment]  # the numbers are the same
    into.paused = repo.paused
    translate.write_time(repo.created_at, into.create_time)
    translate.write_time(repo.updated_at, into.update_time)
    into.etag = str(repo.revision)
    into.train_length = train_length


def _read_assertion(message: goal_pb2.Assertion) -> Assertion:
    check = translate.read_checks([message.check])[0] if message.HasField("check") else None
    return Assertion(id=message.id, text=message.text, check=check)


def _write_assertion(assertion: Assertion, into: goal_pb2.Assertion) -> None:
    into.id = assertion.id
    into.text = assertion.text
    if assertion.check is not None:
        translate.write_check(assertion.check, into.check)
    if assertion.receipt is not None:
        translate.write_receipt(assertion.receipt, into.receipt)


def _read_plan_task(message: goal_pb2.PlanTask, lane: Lane) -> PlanTask:
    """A task of a plan: its lane is the goal's unless it says otherwise, and what it changes is merged."""
    spec = task_pb2.TaskSpec()
    spec.CopyFrom(message.spec)
    if not spec.lane:
        spec.lane = lane  # type: ignore[assignment]  # the numbers are the same
    works = spec.kind in (task_pb2.TASK_KIND_UNSPECIFIED, task_pb2.TASK_KIND_WORK)
    if not spec.delivery and works:
        spec.delivery = task_pb2.DELIVERY_MERGE
    return PlanTask(
        id=message.id,
        spec=translate.read_spec(spec),
        depends_on=tuple(message.depends_on),
        fulfills=tuple(message.fulfills),
    )


def _write_plan_task(task: PlanTask, into: goal_pb2.PlanTask) -> None:
    into.id = task.id
    translate.write_spec(task.spec, into.spec)
    # In a goal these two belong to the plan; a goal read and submitted again must pass the linter.
    into.spec.ClearField("repo")
    into.spec.ClearField("depends_on")
    into.depends_on.extend(task.depends_on)
    into.fulfills.extend(task.fulfills)
    into.task = translate.name("tasks", task.task)
