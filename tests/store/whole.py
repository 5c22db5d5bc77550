"""A store with something of every sort, for the tests of its care; `python -m tests.store.whole WHAT FOLDER ...`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import lmdb

from hub.core import goal as goals
from hub.core.agent import Agent
from hub.core.change import Change
from hub.core.goal import Goal, Plan
from hub.core.repo import Repo
from hub.core.task import Attempt, Requirement, State
from hub.core.token import Scope, Token
from hub.store.base import Answer, Txn
from hub.store.care import compaction, restore
from hub.store.lmdb import LmdbStore
from kit import errors, logs
from tests.store.build import NOW, spec, task, task_id


def everything(first: int, count: int = 20):
    """A script that files something of every sort."""

    def script(txn: Txn) -> None:
        number = txn.class_for(Requirement())
        for at in range(first, first + count):
            depends_on = (task_id(at - 1),) if at > first else ()
            state = State.RUNNING if at % 5 == 0 else State.SUCCEEDED if at % 5 == 1 else State.QUEUED
            fields: dict[str, Any] = {"agent": "anna", "generation": 3} if state is State.RUNNING else {}
            filed = task(at, state=state, class_id=number, goal=task_id(first), wake_at=NOW + at, **fields)
            txn.add_task(filed, spec(depends_on=depends_on))
            txn.put_attempt(Attempt(task=task_id(at), generation=3, agent="anna", assigned_at=NOW))
            txn.put_artifact(task_id(at), 3, "log", b"x" * (9_000 if at % 7 == 0 else 90))
            txn.append(NOW + at, "task.created", f"tasks/{task_id(at)}", goal=task_id(first))
            txn.put_answer("local", "CreateTask", f"r-{at}", Answer(b"f" * 16, f"tasks/{task_id(at)}", NOW + at))
        txn.goals.put(Goal(id=task_id(first), title="g", repo="r", state=goals.State.ACTIVE, created_at=NOW))
        txn.plans.put(Plan(goal=task_id(first), tasks=()))
        txn.repos.put(Repo(id="r", url="file:///r", created_at=NOW))
        txn.agents.put(Agent(id="anna", created_at=NOW))
        token = Token(id=task_id(first), display_name="t", scope=Scope.VIEWER, secret_sha256=f"{first:064x}")
        txn.tokens.put(token)
        pushed: dict[str, Any] = {"generation": 3, "branch": "b", "head_sha": "0" * 40}
        txn.changes.put(Change(id=task_id(first), task=task_id(first), repo="r", created_at=NOW, **pushed))

    return script


async def make(path: Path, rounds: int = 5, **options: Any) -> LmdbStore:
    """Such a store, open."""
    store = LmdbStore.open(path, **options)
    for number in range(rounds):
        await store.write(everything(1 + 20 * number))
    return store


def raw_edit(path: Path, edit: Any) -> None:
    """Change the map behind the store's back."""
    with lmdb.open(str(path), map_size=1 << 30) as env, env.begin(write=True) as txn:
        edit(txn)


async def _compact_for_ever(path: Path) -> None:
    """Write and compact until somebody ends this process; each acknowledged id is printed."""
    store = LmdbStore.open(path)
    print("open", flush=True)
    first = 10_001
    while True:
        await store.write(everything(first))
        print(task_id(first), flush=True)
        first += 20
        await store.compact()


async def _restore_for_ever(path: Path, backup: Path) -> None:
    """Restore again and again until somebody ends this process."""
    print("open", flush=True)
    while True:
        await restore.restore(backup, path, NOW, force=True)
        print("restored", flush=True)


def _hold(path: Path) -> None:
    """Keep a snapshot of the store until somebody ends this process, as a tool may."""
    with lmdb.open(str(path), readonly=True, map_size=0) as env, env.begin() as txn:
        print(txn.stat()["entries"], flush=True)
        sys.stdin.read()


async def main(words: list[str]) -> None:
    """What the child runs."""
    logs.configure(level="error")
    paths = [Path(word) for word in words[1:]]
    if words[0] == "hold":
        _hold(*paths)
    elif words[0] == "compact":
        await _compact_for_ever(*paths)
    elif words[0] == "restore":
        await _restore_for_ever(*paths)
    elif words[0] == "compact_offline":
        try:
            compaction.compact(*paths)
        except errors.Problem as problem:
            print(problem.reason)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
