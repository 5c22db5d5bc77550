"""What the clock brings: start times, ends of backoffs and parks, deadlines for waiting, for accepting and for
running.
"""

from __future__ import annotations

import msgspec

from hub.core import retry
from hub.core import task as core
from hub.core.holding import Holding
from hub.core.task import AttemptOutcome, Attribution, Event, Failure, State, Task
from hub.engine.script import lifecycle, work
from hub.engine.script.settle import settle
from hub.store.base import Txn


def wake(txn: Txn, now: float, limit: int, *, roll: float, patience_s: float = 0.0, jumped_s: float = 0.0) -> int:
    """Do what is due: start times, backoffs, parked tasks, deadlines for waiting, for accepting and for running. How
    many.

    With `patience_s` the hub was away, and no lease passes for so long: who has a task could not say that it began or
    ended, and has as long to say it now. With `jumped_s` the date has just jumped forward by so much: the deadlines of
    who has a task, which are dates, jump with it.
    """
    due = txn.due(now, limit)
    for id in due:
        task = txn.task(id)
        assert task is not None, id
        if task.wake_at is None or task.wake_at > now:
            continue  # it ended with one that came before it in this very list
        if task.queue_deadline_at is not None and task.queue_deadline_at <= now and task.state in core.WAITING:
            failure = Failure(reason="QUEUE_DEADLINE", message="it was not assigned before its deadline")
            settle(txn, [lifecycle.kill(txn, task, failure, now)], now)
            continue
        later_at = max(task.wake_at + jumped_s, now + patience_s)
        if later_at > now and task.state in core.HELD and not task.claimed:
            later = msgspec.structs.replace(task, wake_at=later_at, revision=task.revision + 1)
            txn.put_task(later, task)
            continue
        _due(txn, task, now, roll)
    return len(due)


def _due(txn: Txn, task: Task, now: float, roll: float) -> None:
    match task.state:
        case State.SCHEDULED:
            lifecycle.move(txn, task, Event.DUE, now, "task.queued")
        case State.PARKED:
            lifecycle.move(txn, task, Event.UNPARK, now, "task.queued")
        case State.ASSIGNED:
            work.lose(
                txn,
                Holding(task.id, task.generation),
                now,
                reason="START_TIMEOUT",
                message=f"agents/{task.agent} did not accept it in {task.start_timeout_s:g} s",
                agent_died=False,
                roll=roll,
                revoke="START_TIMEOUT",
            )
        case State.RUNNING if task.claimed:
            work.lose(
                txn,
                Holding(task.id, task.generation),
                now,
                reason="CLAIM_EXPIRED",
                message=f"agents/{task.agent} did not report in time",
                agent_died=False,
                roll=roll,
            )
        case State.RUNNING:
            _overrun(txn, task, now, roll)
        case _:
            raise AssertionError(f"tasks/{task.id} is {task.state.name} and has a wake time")


def _overrun(txn: Txn, task: Task, now: float, roll: float) -> None:
    failure = Failure(
        reason="TIMEOUT", message=f"it ran longer than {task.run_timeout_s:g} s", attribution=Attribution.TASK
    )
    decision = retry.after_failure(task, failure, stopped=False, roll=roll)
    fields = lifecycle.end_attempt(
        txn, task, AttemptOutcome.FAILED, now, failure=failure, revoke="DEADLINE", charged=decision.charged
    )
    fields |= {"reason": failure.reason, "attribution": failure.attribution.name, "charged": "true"}
    txn.append(now, "task.failed", f"tasks/{task.id}", goal=task.goal, **fields)
    work.carry_out(txn, task, decision, failure, now, {})
