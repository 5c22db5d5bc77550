"""The verbs of whoever steers the queue: file, assign, claim, cancel, revive, delete.

Plain functions over a transaction, each one decision with everything that belongs to it. A hub-initiated end of a
held task says so in its event (field `revoke`); the sessions read it there. What workers report is in `work.py`,
what the clock brings in `timer.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from hub.core import task as core
from hub.core.backup import GENERATION_FLOOR_KEY
from hub.core.task import Attempt, AttemptOutcome, Attribution, Event, Failure, Kind, State, Task, TaskSpec
from hub.engine.script import goals, lifecycle, merge
from hub.engine.script.settle import settle
from hub.store.base import Reader, Txn
from kit import errors


class Placed(NamedTuple):
    """A task that was just assigned, with all that its agent is told."""

    task: Task
    spec: TaskSpec
    attempt: Attempt


def submit(
    txn: Txn, task_id: str, spec: TaskSpec, now: float, *, actor: str, agent: str = "", goal: str = ""
) -> tuple[Task, Placed | None]:
    """File a task; with `agent` it is assigned to that agent at once, in the same commit, when it is ready to run."""
    task = lifecycle.file(txn, task_id, spec, now, actor=actor, goal=goal, announce=not agent)
    if not agent:
        return task, None
    if task.state is not State.QUEUED:
        return task, None
    placed = place(txn, task, spec, agent, now)
    return placed.task, placed


def assign(txn: Txn, task_id: str, agent: str, now: float) -> Placed | None:
    """Assign a waiting task; None when it does not wait any more."""
    task = txn.task(task_id)
    if task is None or task.state is not State.QUEUED:
        return None
    spec = txn.spec(task_id)
    assert spec is not None, task_id
    return place(txn, task, spec, agent, now)


def place(txn: Txn, task: Task, spec: TaskSpec, agent: str, now: float) -> Placed:
    """Assign a QUEUED task at the next generation, above all that were handed out before the last restore."""
    floor = txn.meta(GENERATION_FLOOR_KEY)
    generation = max(task.generation, int(floor) if floor is not None else 0) + 1
    fields = {"agent": agent, "generation": str(generation)}
    after = lifecycle.move(
        txn, task, Event.ASSIGN, now, "task.assigned", fields=fields, agent=agent, generation=generation
    )
    return Placed(after, spec, lifecycle.new_attempt(txn, after, agent, now))


def claim(txn: Txn, task_id: str, agent: str, lease_s: float, now: float, *, actor: str) -> Placed:
    """Take a waiting task for work by hand: assigned and accepted in one, held until `lease_s` has passed."""
    task = found(txn, task_id)
    if task.state is not State.QUEUED:
        core.step(task.id, task.state, Event.ASSIGN)  # raises IllegalState with the state
    placed = assign(txn, task_id, agent, now)
    assert placed is not None
    fields = {"agent": agent, "generation": str(placed.task.generation), "claimed_by": actor}
    running = lifecycle.move(
        txn, placed.task, Event.ACCEPT, now, "task.accepted", fields=fields, wake_at=now + lease_s, claimed=True
    )
    attempt = msgspec.structs.replace(placed.attempt, accepted_at=now)
    txn.put_attempt(attempt)
    return Placed(running, placed.spec, attempt)


def cancel(txn: Txn, task_id: str, now: float, *, actor: str, reason: str = "", etag: str = "") -> Task:
    """End a task for good; a held one is revoked, the change of a merging one abandoned."""
    task = found(txn, task_id, etag)
    after = cancel_one(txn, task, now, actor=actor, reason=reason)
    settle(txn, [after], now)
    return after


def cancel_one(txn: Txn, task: Task, now: float, *, actor: str, reason: str = "") -> Task:
    """The same without what follows from it."""
    core.step(task.id, task.state, Event.CANCEL)
    was_merging = task.state is State.MERGING
    failure = Failure(reason="CANCELLED", message=reason or f"cancelled by {actor}", attribution=Attribution.HUB)
    fields = lifecycle.end_attempt(txn, task, AttemptOutcome.REVOKED, now, failure=failure, revoke="CANCELLED")
    after = lifecycle.move(
        txn, task, Event.CANCEL, now, "task.cancelled", actor=actor, fields=fields, reason=failure.message
    )
    if was_merging:
        merge.abandon(txn, after, now)
    return after


def revive(txn: Txn, task_id: str, now: float, *, actor: str, etag: str = "") -> Task:
    """Try a dead, cancelled, parked or delayed task again with fresh attempts, and what ended only because it had."""
    task = found(txn, task_id, etag)
    if task.kind is Kind.MERGE and task.state in core.FINAL:
        # Its change went back to the task that made it, which has a life of its own now.
        raise errors.IllegalState(
            f"task tasks/{task.id} is a merge that has ended; retry the task that made the change",
            state=task.state.name,
            reason="TASK_STATE",
            metadata={"task": f"tasks/{task.id}", "change": f"changes/{task.change}"},
        )
    gone = lifecycle.gone_dependency(txn, task) if task.state is not State.SUCCEEDED else ""
    if gone:
        # It would wait for ever. The retry of that one brings back what ended because of it.
        raise errors.IllegalState(
            f"task tasks/{task.id} depends on tasks/{gone}, which is gone; retry that one first",
            state=task.state.name,
            reason="DEPENDENCY_GONE",
            metadata={"task": f"tasks/{task.id}", "dependency": f"tasks/{gone}"},
        )
    waits_for = lifecycle.unfinished_count(txn, task) if task.state is not State.SUCCEEDED else 0
    event = Event.BLOCK if waits_for else Event.REVIVE
    after = lifecycle.move(
        txn,
        task,
        event,
        now,
        "task.revived",
        actor=actor,
        waits_for=waits_for,
        attempts_used=0,
        reworks=0,
        releases=0,
        parks=0,
        refunds=0,
        killed_agents=(),
        refused_by=(),
        start_at=None,
        queue_deadline_at=None,
        ended_at=None,
        reason=f"waits for {waits_for} tasks" if waits_for else "",
    )
    if task.state in core.FINAL:
        lifecycle.revive_dependants(txn, after, now, actor)
        if task.goal:
            goals.revive(txn, after, now, actor)
    return txn.task(task_id) or after


def delete(txn: Txn, task_id: str, now: float, *, actor: str, etag: str = "") -> None:
    """Forget a task that has reached its end and that nothing alive depends on. Its events stay."""
    task = found(txn, task_id, etag)
    if task.state not in core.FINAL:
        raise errors.IllegalState(
            f"task tasks/{task.id} is {task.state.name.lower()}, cannot delete",
            state=task.state.name,
            reason="TASK_STATE",
            metadata={"task": f"tasks/{task.id}"},
        )
    for id in txn.dependants(task.id, limit=lifecycle.DEPENDANTS_MAX):
        other = txn.task(id)
        if other is not None and other.state not in core.FINAL:
            raise errors.IllegalState(
                f"task tasks/{task.id} is needed by tasks/{id}, cannot delete",
                state=task.state.name,
                reason="TASK_NEEDED",
                metadata={"task": f"tasks/{task.id}", "needed_by": f"tasks/{id}"},
            )
    goals.check_delete(txn, task)
    txn.delete_task(task)
    txn.append(now, "task.deleted", f"tasks/{task.id}", goal=task.goal, actor=actor)


def found(txn: Reader, task_id: str, etag: str = "") -> Task:
    """The task. Raises NotFound, or Conflict when the etag is another one."""
    task = txn.task(task_id)
    if task is None:
        raise errors.NotFound(
            f"there is no tasks/{task_id}", reason="TASK_NOT_FOUND", metadata={"name": f"tasks/{task_id}"}
        )
    if etag and etag != str(task.revision):
        raise errors.Conflict(
            f"task tasks/{task_id} has changed: its etag is {task.revision}, not {etag}",
            reason="ETAG_MISMATCH",
            metadata={"name": f"tasks/{task_id}", "etag": task.revision},
        )
    return task
