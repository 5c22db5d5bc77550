"""What follows when tasks end: those that wait for them, the merge train, their goals; worked off until nothing more
ends.

An end may end other tasks (a failed dependency, a change that came back once too often), which have followers of
their own. A list instead of recursion keeps that flat, and inside the transaction of the verb that began it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from hub.core.task import Kind, Task
from hub.engine.script import goals, lifecycle, merge
from hub.store.base import Txn


def settle(txn: Txn, ended: Iterable[Task], now: float) -> None:
    """Work off everything that follows from these tasks having reached their end."""
    pending = deque(ended)
    while pending:
        task = pending.popleft()
        pending.extend(lifecycle.follow_dependants(txn, task, now))
        if task.kind is Kind.MERGE:
            pending.extend(merge.after(txn, task, now))
        if task.goal:
            pending.extend(goals.after(txn, task, now))
