"""The life of a task inside a transaction: filed, moved along the table, and what its end does to those that wait
for it.

Nothing here decides: `move` applies one event of the table and keeps what belongs together together (record, event,
times, index). The verbs that decide are in `queue.py`; what follows from an end is worked off by `settle.py`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hub.core import task as core
from hub.core.goal import HELD_BACK
from hub.core.holding import Holding
from hub.core.task import (
    Attempt,
    AttemptOutcome,
    Attribution,
    DependencyPolicy,
    Event,
    Failure,
    Kind,
    State,
    Task,
    TaskSpec,
)
from hub.store.base import Txn
from kit import errors

DEPENDANTS_MAX: Final = 1000
"""Tasks that may wait for one task: its end is followed up in one transaction."""

RUN_GRACE_S: Final = 60.0
"""The sidecar ends an attempt at its run timeout; the hub steps in this much later, when the sidecar did not."""

_GONE: Final = frozenset({State.DEAD, State.CANCELLED})


def file(
    txn: Txn,
    task_id: str,
    spec: TaskSpec,
    now: float,
    *,
    actor: str = "hub",
    goal: str = "",
    plan_task: str = "",
    change: str = "",
    hold: str = "",
    announce: bool = True,
) -> Task:
    """File a new task in the state that its contract asks for; `hold` (a sentence) files it PARKED instead of QUEUED.

    `announce=False` leaves the dispatcher's hint out of the event: the caller assigns it in the same transaction.
    Raises NotFound for an unknown dependency, IllegalState for one that is gone, Exhausted for one with too many
    dependants.
    """
    waits_for = _unfinished(txn, spec)
    state, reason, wake_at = State.QUEUED, "", spec.queue_deadline_at
    if waits_for:
        state, reason = State.PENDING, f"waits for {waits_for} tasks"
    elif hold:
        state, reason = State.PARKED, hold
    elif spec.start_at is not None and spec.start_at > now:
        state, reason, wake_at = State.SCHEDULED, "waits for its start time", _earliest(spec.start_at, wake_at)
    requirement = spec.requirement
    task = Task(
        id=task_id,
        state=state,
        class_id=txn.class_for(requirement),
        lane=spec.lane,
        kind=requirement.kind,
        delivery=spec.delivery,
        repo=requirement.repo,
        goal=goal,
        plan_task=plan_task,
        change=change,
        attempts_max=spec.attempts_max,
        waits_for=waits_for,
        dependency_policy=spec.dependency_policy,
        reason=reason,
        created_at=now,
        updated_at=now,
        queued_at=now if state is State.QUEUED else None,
        start_at=spec.start_at,
        queue_deadline_at=spec.queue_deadline_at,
        start_timeout_s=spec.start_timeout_s,
        run_timeout_s=spec.run_timeout_s,
        wake_at=wake_at,
        labels=spec.labels,
        check_count=len(spec.checks),
    )
    txn.add_task(task, spec)
    fields = {"state": state.name}
    if state is State.QUEUED and announce:
        fields["class"] = str(task.class_id)
    txn.append(now, "task.created", f"tasks/{task_id}", goal=goal, actor=actor, **fields)
    return task


def move(
    txn: Txn,
    task: Task,
    event: Event,
    now: float,
    event_type: str,
    *,
    actor: str = "hub",
    fields: dict[str, str] | None = None,
    **changes: Any,
) -> Task:
    """Apply one event of the table: the new record, its times and index entries, and the line in the log.

    `changes` are further fields of the record; `reason` is cleared unless given. Raises IllegalState and changes
    nothing for a pair that is not in the table.
    """
    state = core.step(task.id, task.state, event)
    changes.setdefault("reason", "")
    deadline = changes.get("queue_deadline_at", task.queue_deadline_at)
    match state:
        case State.QUEUED:
            if event is not Event.RELEASE or task.queued_at is None:
                changes.setdefault("queued_at", now)  # a release keeps its place: it was no fault of the task's
            changes |= {"agent": "", "assigned_at": None, "accepted_at": None, "wake_at": deadline}
        case State.SCHEDULED | State.PARKED:
            start_at = changes.setdefault("start_at", None)
            changes |= {"agent": "", "assigned_at": None, "accepted_at": None, "queued_at": None}
            changes["wake_at"] = _earliest(start_at, deadline)
        case State.PENDING:
            changes |= {"agent": "", "queued_at": None, "wake_at": deadline, "start_at": None}
        case State.ASSIGNED:
            # Once assigned, the deadline for waiting has been met and a return to the queue must not trip over it.
            changes |= {"assigned_at": now, "wake_at": now + task.start_timeout_s, "queue_deadline_at": None}
        case State.RUNNING:
            changes |= {"accepted_at": now}
            changes.setdefault("wake_at", now + task.run_timeout_s + RUN_GRACE_S)
        case State.MERGING:
            changes |= {"agent": "", "wake_at": None}
        case State.SUCCEEDED | State.CANCELLED | State.DEAD:
            changes |= {"agent": "", "wake_at": None, "ended_at": now}
    after = msgspec.structs.replace(task, state=state, updated_at=now, revision=task.revision + 1, **changes)
    txn.put_task(after, task)
    told = dict(fields or {})
    if state is State.QUEUED:
        told["class"] = str(after.class_id)
    txn.append(now, event_type, f"tasks/{task.id}", goal=task.goal, actor=actor, **told)
    if state is State.QUEUED and task.goal and task.kind is not Kind.MERGE:
        return _held_back(txn, after, now)
    return after


def kill(txn: Txn, task: Task, failure: Failure, now: float, *, revoke: str = "", actor: str = "hub") -> Task:
    """Dead-letter a task. A held one has its attempt ended and its agent told to stop (`revoke` is the reason)."""
    fields = {"reason": failure.reason, "attribution": failure.attribution.name}
    fields |= end_attempt(txn, task, AttemptOutcome.REVOKED, now, failure=failure, revoke=revoke) if revoke else {}
    return move(
        txn,
        task,
        Event.KILL,
        now,
        "task.dead",
        actor=actor,
        fields=fields,
        reason=failure.message or failure.reason,
        failure=failure,
    )


def end_attempt(
    txn: Txn,
    task: Task,
    outcome: AttemptOutcome,
    now: float,
    *,
    failure: Failure | None = None,
    revoke: str = "",
    **changes: Any,
) -> dict[str, str]:
    """End the running attempt of a held task; the event fields that tell of it (and of a revocation, when there is a
    reason).
    """
    if task.state not in core.HELD:
        return {}
    attempt = txn.attempt(task.id, task.generation)
    assert attempt is not None, task.id
    txn.put_attempt(msgspec.structs.replace(attempt, ended_at=now, outcome=outcome, failure=failure, **changes))
    fields = {"agent": task.agent, "generation": str(task.generation)}
    if revoke:
        fields["revoke"] = revoke
    return fields


def new_attempt(txn: Txn, task: Task, agent: str, now: float) -> Attempt:
    """The attempt of a fresh assignment."""
    attempt = Attempt(task=task.id, generation=task.generation, agent=agent, assigned_at=now)
    txn.put_attempt(attempt)
    return attempt


def held(txn: Txn, holding: Holding, agent: str) -> Task:
    """The task of a holding that is good. Raises Fenced when it is not this agent's any more, at this generation.

    This is THE fence: every verb of a worker goes through it, inside its transaction.
    """
    task = txn.task(holding.task)
    if task is None or task.generation != holding.generation or task.agent != agent or task.state not in core.HELD:
        raise errors.Fenced(
            f"holding {holding} of agents/{agent} is not good any more",
            metadata={
                "task": f"tasks/{holding.task}",
                "generation": holding.generation,
                "current_generation": task.generation if task is not None else 0,
                "state": task.state.name if task is not None else "DELETED",
            },
        )
    return task


def follow_dependants(txn: Txn, task: Task, now: float) -> list[Task]:
    """Tell the tasks that wait for this one that it has ended; those that ended because of it."""
    ended = []
    for id in txn.dependants(task.id, limit=DEPENDANTS_MAX):
        waiting = txn.task(id)
        if waiting is None or waiting.state is not State.PENDING:
            continue
        if task.state is State.SUCCEEDED:
            _satisfied(txn, waiting, now)
        elif task.state in _GONE:
            after = _bereaved(txn, waiting, task, now)
            if after.state in core.FINAL:
                ended.append(after)
    return ended


def revive_dependants(txn: Txn, task: Task, now: float, actor: str) -> None:
    """Put back what ended or parked only because this task had: it is tried again.

    What waits for another one that is gone stays as it is: it would wait for ever, and comes back with that one.
    """
    pending = [task.id]
    while pending:
        for id in txn.dependants(pending.pop(), limit=DEPENDANTS_MAX):
            waiting = txn.task(id)
            if waiting is None or waiting.failure is None or waiting.failure.reason != "DEPENDENCY_FAILED":
                continue
            if waiting.state in (State.DEAD, State.PARKED) and not gone_dependency(txn, waiting):
                waits_for = unfinished_count(txn, waiting)
                move(
                    txn,
                    waiting,
                    Event.BLOCK,
                    now,
                    "task.revived",
                    actor=actor,
                    waits_for=waits_for,
                    failure=None,
                    ended_at=None,
                    reason=f"waits for {waits_for} tasks",
                )
                pending.append(id)


def unfinished_count(txn: Txn, task: Task) -> int:
    """How many of a task's dependencies have not succeeded."""
    spec = txn.spec(task.id)
    assert spec is not None, task.id
    found = (txn.task(id) for id in spec.depends_on)
    return sum(1 for one in found if one is None or one.state is not State.SUCCEEDED)


def gone_dependency(txn: Txn, task: Task) -> str:
    """Id of a dependency that will not succeed, as it is now (dead, cancelled, deleted); empty: there is none."""
    spec = txn.spec(task.id)
    assert spec is not None, task.id
    for id in spec.depends_on:
        other = txn.task(id)
        if other is None or other.state in _GONE:
            return id
    return ""


def _held_back(txn: Txn, task: Task, now: float) -> Task:
    """Park a task that enters the queue while its goal is paused, by whichever way it comes."""
    goal = txn.goals.get(task.goal)
    if goal is None or not goal.paused:
        return task
    return move(txn, task, Event.PARK, now, "task.parked", reason=HELD_BACK)


def _satisfied(txn: Txn, waiting: Task, now: float) -> None:
    left = waiting.waits_for - 1
    if left > 0:
        txn.put_task(
            msgspec.structs.replace(
                waiting, waits_for=left, reason=f"waits for {left} tasks", updated_at=now, revision=waiting.revision + 1
            ),
            waiting,
        )
        return
    if waiting.start_at is not None and waiting.start_at > now:
        reason = "waits for its start time"
        move(
            txn,
            waiting,
            Event.RETRY_LATER,
            now,
            "task.scheduled",
            waits_for=0,
            start_at=waiting.start_at,
            reason=reason,
        )
    else:
        move(txn, waiting, Event.DEPENDENCIES_DONE, now, "task.queued", waits_for=0)


def _bereaved(txn: Txn, waiting: Task, gone: Task, now: float) -> Task:
    failure = Failure(
        reason="DEPENDENCY_FAILED",
        message=f"tasks/{gone.id}, which it depends on, is {gone.state.name.lower()}",
        attribution=Attribution.TASK,
    )
    match waiting.dependency_policy:
        case DependencyPolicy.FAIL:
            return kill(txn, waiting, failure, now)
        case DependencyPolicy.PARK:
            fields = {"reason": failure.reason}
            return move(
                txn,
                waiting,
                Event.PARK,
                now,
                "task.parked",
                fields=fields,
                failure=failure,
                reason=failure.message,
            )


def _unfinished(txn: Txn, spec: TaskSpec) -> int:
    count = 0
    for index, id in enumerate(spec.depends_on):
        other = txn.task(id)
        field = f"spec.depends_on[{index}]"
        if other is None:
            raise errors.NotFound(
                f"{field}: there is no tasks/{id}", reason="TASK_NOT_FOUND", metadata={"field": field}
            )
        if other.state in _GONE:
            raise errors.IllegalState(
                f"{field}: tasks/{id} is {other.state.name.lower()}",
                state=other.state.name,
                reason="DEPENDENCY_GONE",
                metadata={"field": field, "task": f"tasks/{id}"},
            )
        if other.state is State.SUCCEEDED:
            continue
        if len(txn.dependants(id, limit=DEPENDANTS_MAX)) >= DEPENDANTS_MAX:
            raise errors.Exhausted(
                f"{field}: {DEPENDANTS_MAX} tasks wait for tasks/{id} already",
                reason="DEPENDANTS_FULL",
                metadata={"field": field, "limit": DEPENDANTS_MAX},
            )
        count += 1
    return count


def _earliest(*times: float | None) -> float | None:
    known = [at for at in times if at is not None]
    return min(known) if known else None
