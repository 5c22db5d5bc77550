"""What has ended and is old is forgotten: which of it may go, and how it goes, inside transactions.

`look` reads the next piece of a list of what has ended and says which of it nothing needs any more; `forget` makes sure
of that once more, inside its transaction, and forgets. So what must be kept (and stands first in its list, as it is the
oldest) costs a read and no write, and does not hide what may go. Each thing that goes says so in the log, as if a
person had deleted it; but for contents of artefacts, answers and events themselves.

What is needed:
- a task, by its goal as long as that is there, and by tasks that depend on it and have not succeeded: those that wait,
  and those that a person may retry;
- a goal, by tasks of it that are held, queued or merged; what waits in vain for a lost one goes with it;
- a change, by the task that made it;
- a token, by the agent whose it is, or was until its last rotation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from hub.core import change as changes
from hub.core import goal as goals
from hub.core import task as core
from hub.core.task import State, Task
from hub.engine.script import lifecycle, queue
from hub.engine.script.settle import settle
from hub.store.base import Ended, EndedOne, Reader, Txn

ARTIFACTS_KEY: Final = "artifacts_gone"
"""Fact of the store: the last task, in the order of ends, whose artefacts were dropped. The tasks are still listed."""

GOAL_TASKS_MAX: Final = 2_000
"""Tasks of a goal looked at: a plan has 200 at most, each with a few merges. A goal with more is kept."""

CASCADE_MAX: Final = 200
"""Tasks forgotten in one transaction, with those that were kept for their sake: about twelve milliseconds."""

REASON: Final = "RETENTION"
_IN_VAIN: Final = frozenset({State.PENDING, State.PARKED})


class Span(NamedTuple):
    """A piece of a list of what has ended."""

    sort: Ended
    until: float
    """What ended later is kept."""
    after: EndedOne | None
    limit: int


class Look(NamedTuple):
    """What is in it."""

    may_go: list[str]
    last: EndedOne | None
    """Where the next piece begins; None: there was nothing."""
    more: bool


def look(reader: Reader, span: Span) -> Look:
    """Which of the next ones may go."""
    found = reader.ended(span.sort, until=span.until, after=span.after, limit=span.limit)
    may_go = _RULES[span.sort].may_go
    going = [one.id for one in found if may_go(reader, one.id)]
    return Look(going, found[-1] if found else None, len(found) == span.limit)


def forget(txn: Txn, sort: Ended, ids: Sequence[str], untils: Mapping[Ended, float], now: float) -> int:
    """Forget those that still may go, and what was kept for their sake only and is old enough, too; how many.

    `untils` says what is old enough, by sort.
    """
    rule, count = _RULES[sort], 0
    pending = list(reversed(ids))
    while pending:
        id = pending.pop()
        if rule.may_go(txn, id):
            pending += _kept_for(txn, id, untils) if rule is _TASKS and count < CASCADE_MAX else ()
            rule.forget(txn, id, now)
            count += 1
    return count


def artifacts(txn: Txn, until: float, limit: int) -> tuple[int, bool]:
    """Forget what the artefacts of the next `limit` finished tasks contain; how many, and whether there may be more.

    That they were there, and how large, is still told. Dead letters keep theirs: whoever looks into one needs them.
    """
    found = _with_artifacts(txn, until, limit)
    count = sum(txn.drop_artifacts(one.id) for one in found)
    if found:
        txn.set_meta(ARTIFACTS_KEY, f"{found[-1].at!r} {found[-1].id}".encode())
    return count, len(found) == limit


def any_artifacts(reader: Reader, until: float) -> bool:
    """Is there a task that `artifacts` has not looked at?"""
    return bool(_with_artifacts(reader, until, 1))


def _with_artifacts(reader: Reader, until: float, limit: int) -> list[EndedOne]:
    raw = reader.meta(ARTIFACTS_KEY)
    after = None
    if raw is not None:
        at, id = raw.decode().split(" ")
        after = EndedOne(float(at), id)
    return reader.ended(Ended.TASK, until=until, after=after, limit=limit)


# Tasks


def _task_may_go(reader: Reader, id: str) -> bool:
    task = reader.task(id)
    if task is None or task.state not in core.FINAL or (task.goal and reader.goals.get(task.goal) is not None):
        return False
    for dependant in reader.dependants(id, limit=lifecycle.DEPENDANTS_MAX):
        other = reader.task(dependant)
        if other is not None and other.state is not State.SUCCEEDED:
            return False
    return True


def _kept_for(txn: Txn, id: str, untils: Mapping[Ended, float]) -> list[str]:
    """What a task depends on, as far as that is old. In a chain the last one goes first: one walk takes them all."""
    spec = txn.spec(id)
    found = (txn.task(one) for one in (spec.depends_on if spec is not None else ()))
    return [
        one.id
        for one in found
        if one is not None
        and one.ended_at is not None
        and one.ended_at <= untils[Ended.DEAD_TASK if one.state is State.DEAD else Ended.TASK]
    ]


def _forget_task(txn: Txn, id: str, now: float) -> None:
    task = txn.task(id)
    assert task is not None, id
    txn.delete_task(task)
    txn.append(now, "task.deleted", f"tasks/{id}", goal=task.goal, reason=REASON)


# Goals


def _goal_may_go(reader: Reader, id: str) -> bool:
    goal = reader.goals.get(id)
    if goal is None or goal.state not in goals.FINAL:
        return False
    found = reader.tasks_of_goal(id, limit=GOAL_TASKS_MAX + 1)
    return len(found) <= GOAL_TASKS_MAX and all(task.state in _IN_VAIN for task in _alive(found))


def _forget_goal(txn: Txn, id: str, now: float) -> None:
    """With its plan. Its tasks and changes follow by themselves: nothing needs them any more."""
    for one in _alive(txn.tasks_of_goal(id, limit=GOAL_TASKS_MAX)):
        task = txn.task(one.id)
        if task is not None and task.state not in core.FINAL:  # the end of another one may have ended it
            settle(txn, [queue.cancel_one(txn, task, now, actor="hub", reason="its goal is forgotten")], now)
    txn.plans.delete(id)
    txn.goals.delete(id)
    txn.append(now, "goal.deleted", f"goals/{id}", goal=id, reason=REASON)


def _alive(found: Sequence[Task]) -> list[Task]:
    return [task for task in found if task.state not in core.FINAL]


# Changes and tokens


def _change_may_go(reader: Reader, id: str) -> bool:
    change = reader.changes.get(id)
    return change is not None and change.state in changes.FINAL and reader.task(change.task) is None


def _forget_change(txn: Txn, id: str, now: float) -> None:
    change = txn.changes.get(id)
    assert change is not None, id
    txn.changes.delete(id)
    txn.append(now, "change.deleted", f"changes/{id}", goal=change.goal, reason=REASON)


def _token_may_go(reader: Reader, id: str) -> bool:
    token = reader.tokens.get(id)
    if token is None or (token.revoked_at is None and token.expires_at is None):
        return False
    agent = reader.agents.get(token.agent) if token.agent else None
    return agent is None or id not in (agent.token, agent.token_before)


def _forget_token(txn: Txn, id: str, now: float) -> None:
    txn.tokens.delete(id)
    txn.append(now, "token.deleted", f"tokens/{id}", reason=REASON)


class _Rule(NamedTuple):
    may_go: Callable[[Reader, str], bool]
    forget: Callable[[Txn, str, float], None]


_TASKS: Final = _Rule(_task_may_go, _forget_task)
_GOALS: Final = _Rule(_goal_may_go, _forget_goal)
_RULES: Final = {
    Ended.TASK: _TASKS,
    Ended.DEAD_TASK: _TASKS,
    Ended.GOAL: _GOALS,
    Ended.FAILED_GOAL: _GOALS,
    Ended.CHANGE: _Rule(_change_may_go, _forget_change),
    Ended.TOKEN: _Rule(_token_may_go, _forget_token),
}
