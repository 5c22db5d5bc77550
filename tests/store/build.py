"""Builders of records for the tests of the stores."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from hub.core.task import Lane, Requirement, State, Task, TaskSpec
from hub.store.base import Store, Txn

NOW = 1_700_000_000.0


def task_id(number: int) -> str:
    """Ids in the order of their numbers."""
    return f"{number:020d}"


def task(number: int = 1, **fields: Any) -> Task:
    """A waiting task of class 1."""
    given: dict[str, Any] = {
        "id": task_id(number),
        "state": State.QUEUED,
        "class_id": 1,
        "lane": Lane.NORMAL,
        "queued_at": NOW + number,
        "created_at": NOW + number,
    }
    return Task(**{**given, **fields})


def spec(title: str = "do it", **fields: Any) -> TaskSpec:
    """A contract."""
    return TaskSpec(title=title, **fields)


def filed(*tasks: Task, depends_on: tuple[str, ...] = ()) -> Callable[[Txn], None]:
    """A script that files tasks."""

    def script(txn: Txn) -> None:
        txn.class_for(Requirement())
        for each in tasks:
            txn.add_task(each, spec(depends_on=depends_on))

    return script


def changed(after: Task) -> Callable[[Txn], None]:
    """A script that writes a task anew."""

    def script(txn: Txn) -> None:
        before = txn.task(after.id)
        assert before is not None
        txn.put_task(after, before)

    return script


async def together(store: Store, *scripts: Callable[[Txn], Any]) -> list[Any]:
    """Run scripts in one commit where the store has batches: the writer is held until all of them wait."""
    if store.facts().kind == "memory":
        return [await asyncio.gather(store.write(script), return_exceptions=True) for script in scripts]
    gate = threading.Event()
    held = asyncio.ensure_future(store.write(lambda txn: gate.wait(10)))
    waiting = [asyncio.ensure_future(store.write(script)) for script in scripts]
    await asyncio.sleep(0)  # each of them runs up to its future
    gate.set()
    assert await held
    return [await asyncio.gather(each, return_exceptions=True) for each in waiting]
