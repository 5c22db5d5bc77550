"""A goal's way from its plan to its end, inside transactions: filed, counted as its tasks end, verified.

Level-triggered: whenever a task of a plan ends, the whole plan is counted again, so a count can never drift.

- All tasks succeeded: a VERIFY task runs the checks of the assertions on the merged default branch. Its receipts are
  kept with the assertions; green is success, red is failure that names the assertions.
- A task is dead or cancelled: the goal goes on as long as anything of it can. Tasks that do not depend on the lost one
  finish and their changes are merged: they are good in themselves, and a retry of the lost one needs them.
  Only when nothing is left that can go on, the goal FAILS with the reason. Until then `reason` tells of the loss.
- A person retries a lost task (or the VERIFY task): a FAILED goal is ACTIVE again.

A person's other verbs (cancel, pause, resume) are in `steering.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from hub.core import goal as core
from hub.core import plan as plans
from hub.core import policy as policies
from hub.core import task as tasks
from hub.core.goal import Assertion, Event, Goal, Plan, PlanTask, State
from hub.core.task import Delivery, Expectation, Kind, Receipt, Requirement, Task, TaskSpec, Tier, Verdict
from hub.core.task import State as TaskState
from hub.engine.script import lifecycle, merge
from hub.store.base import Reader, Txn
from kit import errors, ids

RECEIPT_TAIL_MAX: Final = 1024
"""Characters of a check's output kept with its assertion; the whole is kept with the VERIFY attempt."""

NAMED_MAX: Final = 10
"""Assertions or tasks named in a goal's reason."""

_LOST: Final = frozenset({TaskState.DEAD, TaskState.CANCELLED})


class Tally(NamedTuple):
    """Where the tasks of a plan are."""

    total: int
    waiting: int
    active: int
    succeeded: int
    failed: int
    blocked: int
    """Of the waiting: those that wait for a failed one, directly or not."""
    first_failed: tuple[str, str] | None
    """(id in the plan, why) of the first failed one in the order of the plan that failed by itself."""


def create(txn: Txn, goal: Goal, tasks: Sequence[PlanTask] | None, now: float, *, actor: str) -> Goal:
    """File a goal; with a plan (one that passed the linter) all of its tasks in the same transaction.

    Without one it waits for a plan. Raises NotFound for an unknown repo.
    """
    check_repo(txn, goal)
    filed = msgspec.structs.replace(goal, state=State.AWAITING_PLAN, created_at=now, updated_at=now, revision=1)
    txn.goals.put(filed)
    told = {"title": goal.title, "repo": f"repos/{goal.repo}"}
    txn.append(now, "goal.created", f"goals/{goal.id}", goal=goal.id, actor=actor, **told)
    return filed if tasks is None else _start(txn, filed, tasks, now, actor)


def after(txn: Txn, task: Task, now: float) -> list[Task]:
    """A task of a goal has ended: count, and verify or end the goal where that follows. Ends no task itself."""
    goal = txn.goals.get(task.goal)
    if goal is None or goal.state in (State.SUCCEEDED, State.CANCELLED):
        return []  # nothing follows any more; what cancels a goal counts once, at its end
    if task.kind is Kind.VERIFY and task.id == goal.verify_task:
        if goal.state is State.VERIFYING:
            _verified(txn, goal, task, now)
    elif task.plan_task:
        _count(txn, goal, now)
    return []


def revive(txn: Txn, task: Task, now: float, actor: str) -> None:
    """A dead or cancelled task of a goal was retried: a failed goal goes on.

    Raises IllegalState for a goal that has ended for good.
    """
    goal = txn.goals.get(task.goal)
    if goal is None:
        return
    if goal.state not in (State.ACTIVE, State.VERIFYING):
        goal = move(txn, goal, Event.REVIVE, now, "goal.revived", actor=actor, fields={"task": f"tasks/{task.id}"})
    if task.kind is Kind.VERIFY and goal.verify_task != task.id:
        goal = put(txn, goal, now, verify_task=task.id)
    _count(txn, goal, now)


def may_revive(reader: Reader, task: Task) -> bool:
    """May this ended task go on, as far as its goal is concerned?"""
    goal = reader.goals.get(task.goal) if task.goal else None
    return goal is None or goal.state not in (State.SUCCEEDED, State.CANCELLED)


def check_repo(reader: Reader, goal: Goal) -> None:
    """Raise NotFound when the goal's repo is not there."""
    if reader.repos.get(goal.repo) is None:
        name = f"repos/{goal.repo}"
        metadata = {"field": "goal.repo", "name": name}
        raise errors.NotFound(f"goal.repo: there is no {name}", reason="REPO_NOT_FOUND", metadata=metadata)


def check_delete(txn: Txn, task: Task) -> None:
    """Raise IllegalState when the task belongs to a goal that goes on: its plan is counted by its tasks."""
    goal = txn.goals.get(task.goal) if task.goal else None
    if goal is not None and goal.state not in core.FINAL:
        raise errors.IllegalState(
            f"task tasks/{task.id} belongs to goals/{goal.id}, which is {_name(goal.state)}, cannot delete",
            state=task.state.name,
            reason="TASK_NEEDED",
            metadata={"task": f"tasks/{task.id}", "needed_by": f"goals/{goal.id}"},
        )


def tally(txn: Reader, goal: Goal) -> Tally:
    """Count the tasks of a goal's plan. Without a plan, nothing."""
    plan = txn.plans.get(goal.id)
    return count(plan.tasks, [txn.task(one.task) for one in plan.tasks]) if plan is not None else count((), ())


def count(planned: Sequence[PlanTask], found: Sequence[Task | None]) -> Tally:
    """Count the tasks of a frozen plan, in which each follows those that it waits for. None: it was deleted."""
    succeeded = active = failed = 0
    blocked: set[str] = set()
    lost: set[str] = set()
    first: tuple[str, str] | None = None
    for one, task in zip(planned, found, strict=True):
        if task is None or task.state in _LOST:
            failed += 1
            lost.add(one.id)
            by_itself = task is None or task.failure is None or task.failure.reason != "DEPENDENCY_FAILED"
            if by_itself and first is None:
                first = (one.id, "deleted" if task is None else _why(task))
        elif task.state is TaskState.SUCCEEDED:
            succeeded += 1
        elif task.state in (TaskState.PENDING, TaskState.PARKED) and any(id in lost | blocked for id in one.depends_on):
            blocked.add(one.id)
        elif task.state not in tasks.WAITING:
            active += 1
    waiting = len(planned) - succeeded - active - failed
    return Tally(len(planned), waiting, active, succeeded, failed, len(blocked), first)


def _start(txn: Txn, goal: Goal, planned: Sequence[PlanTask], now: float, actor: str) -> Goal:
    """Freeze the plan and file its tasks."""
    version = goal.plan_version + 1
    frozen = plans.freeze(planned)
    # One millisecond apart, so that their ids sort in the order of the plan; half a millisecond against rounding.
    at_ms = int(now * 1000)
    task_ids = {
        one.id: ids.derived((at_ms + index + 0.5) / 1000, "plan", goal.id, version, one.id)
        for index, one in enumerate(frozen)
    }
    kept = []
    for one in frozen:
        spec = msgspec.structs.replace(
            one.spec,
            requirement=msgspec.structs.replace(one.spec.requirement, repo=goal.repo),
            depends_on=tuple(task_ids[id] for id in one.depends_on),
        )
        kept.append(msgspec.structs.replace(one, spec=spec, task=task_ids[one.id]))
    txn.plans.put(Plan(goal=goal.id, version=version, tasks=tuple(kept)))
    told = {"tasks": str(len(kept)), "version": str(version)}
    changes: dict[str, Any] = {"plan_version": version, "task_total": len(kept)}
    started = move(txn, goal, Event.PLAN, now, "goal.started", actor=actor, fields=told, **changes)
    for one in kept:
        lifecycle.file(txn, one.task, one.spec, now, actor=actor, goal=goal.id, plan_task=one.id)
    return started


def _count(txn: Txn, goal: Goal, now: float) -> Goal:
    """Count the plan again and do what follows."""
    found = tally(txn, goal)
    counts: dict[str, Any] = {"task_total": found.total, "task_succeeded": found.succeeded, "task_failed": found.failed}
    if goal.state is not State.ACTIVE:
        return put(txn, goal, now, **counts)
    if found.succeeded == found.total:
        return _verify(txn, goal, now, counts)
    loss = f"{found.first_failed[0]} is lost: {found.first_failed[1]}" if found.first_failed else ""
    left = found.waiting + found.active - found.blocked
    if found.failed and not left:
        return move(txn, goal, Event.FAIL, now, "goal.failed", reason=loss, fields={"reason": loss}, **counts)
    return put(txn, goal, now, reason=f"{loss}; {left} other tasks go on" if loss else "", **counts)


def _verify(txn: Txn, goal: Goal, now: float, counts: dict[str, Any]) -> Goal:
    """All tasks are done: have the assertions checked, by a retried VERIFY task when there is one."""
    before = txn.task(goal.verify_task) if goal.verify_task else None
    if before is not None and before.state not in tasks.FINAL:
        task_id = before.id
    else:
        task_id = ids.derived(now, "verify", goal.id, goal.revision)
        hold = core.HELD_BACK if goal.paused else ""
        plan = txn.plans.get(goal.id)
        policy = policies.strictest(one.spec.policy for one in plan.tasks) if plan is not None else policies.Policy()
        contract = verification(goal, policy)
        lifecycle.file(txn, task_id, contract, now, goal=goal.id, hold=hold)
    fields = {"verify_task": f"tasks/{task_id}"}
    return move(txn, goal, Event.TASKS_DONE, now, "goal.verifying", fields=fields, verify_task=task_id, **counts)


def verification(goal: Goal, policy: policies.Policy) -> TaskSpec:
    """The contract of the task that checks a goal's assertions."""
    checks = tuple(
        msgspec.structs.replace(assertion.check, id=assertion.id, expect_on_base=Expectation.ANY)
        for assertion in goal.assertions
        if assertion.check is not None
    )
    return TaskSpec(
        title=f"Verify: {goal.title}"[:200],
        lane=goal.lane,
        requirement=Requirement(
            kind=Kind.VERIFY, tier=Tier.TRIVIAL, repo=goal.repo, sandbox=policy.isolation is policies.Isolation.REQUIRED
        ),
        policy=policy,
        checks=checks,
        delivery=Delivery.NONE,
        run_timeout_s=merge.run_timeout_s(checks),
        silence_timeout_s=merge.silence_timeout_s(checks),
    )


def _verified(txn: Txn, goal: Goal, task: Task, now: float) -> Goal:
    """The assertions were checked, or could not be."""
    attempt = txn.attempt(task.id, task.generation)
    receipts: tuple[Receipt, ...] = ()
    if attempt is not None:
        receipts = attempt.result.receipts if attempt.result is not None else attempt.receipts
    # The last receipt of a check counts: a check may have run on the base before.
    last = {receipt.check: receipt for receipt in receipts}
    assertions = tuple(_with_receipt(assertion, last.get(assertion.id)) for assertion in goal.assertions)
    if task.state is TaskState.SUCCEEDED:
        return move(txn, goal, Event.ASSERTIONS_HOLD, now, "goal.succeeded", assertions=assertions)
    red = [one.id for one in assertions if one.id in last and last[one.id].verdict is not Verdict.PASS]
    if red:
        more = f" and {len(red) - NAMED_MAX} more" if len(red) > NAMED_MAX else ""
        reason = f"not true on the merged default branch: {', '.join(red[:NAMED_MAX])}{more}"
    else:
        reason = f"its assertions could not be checked: {_why(task)}"
    fields = {"reason": reason, "verify_task": f"tasks/{task.id}"}
    return move(txn, goal, Event.FAIL, now, "goal.failed", fields=fields, reason=reason, assertions=assertions)


def _with_receipt(assertion: Assertion, receipt: Receipt | None) -> Assertion:
    if receipt is not None:
        receipt = msgspec.structs.replace(receipt, output_tail=receipt.output_tail[-RECEIPT_TAIL_MAX:])
    return msgspec.structs.replace(assertion, receipt=receipt)


def move(
    txn: Txn,
    goal: Goal,
    event: Event,
    now: float,
    event_type: str,
    *,
    actor: str = "hub",
    fields: dict[str, str] | None = None,
    **changes: Any,
) -> Goal:
    """Apply one event of the goal's table; `reason` is cleared unless given."""
    state = core.step(goal.id, goal.state, event)
    changes.setdefault("reason", "")
    changes["ended_at"] = now if state in core.FINAL else None
    moved = put(txn, goal, now, state=state, **changes)
    txn.append(now, event_type, f"goals/{goal.id}", goal=goal.id, actor=actor, **(fields or {}))
    return moved


def put(txn: Txn, goal: Goal, now: float, **changes: Any) -> Goal:
    after = msgspec.structs.replace(goal, updated_at=now, revision=goal.revision + 1, **changes)
    txn.goals.put(after)
    return after


def _why(task: Task) -> str:
    return task.reason or (task.failure.message if task.failure is not None else "") or _name(task.state)


def _name(state: State | TaskState) -> str:
    return state.name.lower().replace("_", " ")
