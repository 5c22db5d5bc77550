"""A person's hand on a goal, inside transactions: cancel, pause, resume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hub.core import goal as core
from hub.core import task as tasks
from hub.core.change import State as ChangeState
from hub.core.goal import HELD_BACK, Goal
from hub.core.task import Event, Kind, State, Task
from hub.engine.script import goals, lifecycle, queue
from hub.engine.script.settle import settle
from hub.store.base import Reader, Txn
from kit import errors

TASKS_PAGE: Final = 200
"""Tasks of a goal read at once."""


def found(txn: Reader, goal_id: str, etag: str = "") -> Goal:
    """The goal. Raises NotFound, or Conflict when the etag is another one."""
    name = f"goals/{goal_id}"
    goal = txn.goals.get(goal_id)
    if goal is None:
        raise errors.NotFound(f"there is no {name}", reason="GOAL_NOT_FOUND", metadata={"name": name})
    if etag and etag != str(goal.revision):
        raise errors.Conflict(
            f"goal {name} has changed: its etag is {goal.revision}, not {etag}",
            reason="ETAG_MISMATCH",
            metadata={"name": name, "etag": goal.revision},
        )
    return goal


def cancel(txn: Txn, goal_id: str, now: float, *, actor: str, reason: str = "", etag: str = "") -> Goal:
    """End a goal and all its tasks: what runs is revoked, changes that are not merged yet are abandoned."""
    goal = found(txn, goal_id, etag)
    why = reason or f"cancelled by {actor}"
    # The goal first: it must not fail over the tasks that are cancelled now.
    goal = goals.move(
        txn,
        goal,
        core.Event.CANCEL,
        now,
        "goal.cancelled",
        actor=actor,
        reason=why,
        paused=False,
        fields={"reason": why},
    )
    ended = []
    for task_id in _cancel_order(txn, goal_id):
        task = txn.task(task_id)
        if task is not None and task.state not in tasks.FINAL:
            ended.append(queue.cancel_one(txn, task, now, actor=actor, reason=f"its goal was cancelled: {why}"))
    settle(txn, ended, now)
    counts = goals.tally(txn, goal)
    return goals.put(txn, goal, now, task_succeeded=counts.succeeded, task_failed=counts.failed)


def pause(txn: Txn, goal_id: str, now: float, *, actor: str) -> Goal:
    """Hold the waiting tasks back. What becomes ready later is held back as it does (`lifecycle.move`).

    Its MERGE tasks go on: a change in the train would hold up the changes of others. Nothing happens when it is paused.
    """
    goal = found(txn, goal_id)
    _alive(goal, "pause")
    if goal.paused:
        return goal
    goal = goals.put(txn, goal, now, paused=True)
    txn.append(now, "goal.paused", f"goals/{goal_id}", goal=goal_id, actor=actor)
    for task in _tasks(txn, goal_id):
        if task.state is State.QUEUED and task.kind is not Kind.MERGE:
            lifecycle.move(txn, task, Event.PARK, now, "task.parked", actor=actor, reason=HELD_BACK)
    return goal


def resume(txn: Txn, goal_id: str, now: float, *, actor: str) -> Goal:
    """Let the tasks go on that were held back. Nothing happens when it is not paused."""
    goal = found(txn, goal_id)
    _alive(goal, "resume")
    if not goal.paused:
        return goal
    goal = goals.put(txn, goal, now, paused=False)
    txn.append(now, "goal.resumed", f"goals/{goal_id}", goal=goal_id, actor=actor)
    for task in _tasks(txn, goal_id):
        if task.state is State.PARKED and task.reason == HELD_BACK:
            lifecycle.move(txn, task, Event.UNPARK, now, "task.queued", actor=actor)
    return goal


def _alive(goal: Goal, verb: str) -> None:
    if goal.state in core.FINAL:
        raise errors.IllegalState(
            f"goal goals/{goal.id} is {goal.state.name.lower()}, cannot {verb}",
            state=goal.state.name,
            reason="GOAL_STATE",
            metadata={"goal": f"goals/{goal.id}", "state": goal.state.name, "event": verb.upper()},
        )


def _tasks(txn: Reader, goal_id: str) -> Iterator[Task]:
    """All tasks of a goal, page by page."""
    after = ""
    while True:
        page = txn.tasks_of_goal(goal_id, after=after, limit=TASKS_PAGE)
        yield from page
        if len(page) < TASKS_PAGE:
            return
        after = page[-1].id


def _cancel_order(txn: Reader, goal_id: str) -> list[str]:
    """Live tasks, and of those that merge the one whose turn it is last: else each change would board to be abandoned.

    MERGE tasks come after all; they have ended by then, with the change that they bring in.
    """
    ranked = []
    for task in _tasks(txn, goal_id):
        rank = 0
        if task.kind is Kind.MERGE:
            rank = 2
        elif task.state is State.MERGING:
            change = txn.changes.get(task.change)
            rank = int(change is not None and change.state is ChangeState.MERGING)
        if task.state not in tasks.FINAL:
            ranked.append((rank, task.id))
    return [id for _, id in sorted(ranked)]
