"""A store as a fleet leaves it after some days: a million tasks in all states, goals, changes, repos, events.

It is written through the store's own transactions, not through the hub, and without syncing: it is thrown away.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hub.core import change, goal
from hub.core.repo import Repo
from hub.core.task import (
    ArtifactInfo,
    Attempt,
    AttemptOutcome,
    Check,
    DiffStat,
    Failure,
    Lane,
    Receipt,
    Requirement,
    Result,
    State,
    Task,
    TaskSpec,
    Verdict,
)
from hub.store.base import Txn
from hub.store.lmdb import LmdbStore
from kit import ids

BATCH: Final = 5_000
DAYS: Final = 5
REPOS: Final = 20
GOAL_EVERY: Final = 500
"""One task in so many begins a goal of `GOAL_TASKS`."""
GOAL_TASKS: Final = 10
CHANGE_EVERY: Final = 50
CAPABILITY: Final = "busy"
"""Offered by the fleet, wanted by most of what waits."""
PROSE: Final = "Read the configuration before you change the parser, keep the public names, and add a test. "
LOG: Final = "".join(f"line {number}: compiled one more file\n" for number in range(6_000)).encode()
DIFF: Final = "".join(f"@@ -{n} +{n} @@\n-old line {n}\n+new line {n}\n" for n in range(3_000)).encode()

_SHARES: Final = (
    (State.SUCCEEDED, 0.45), (State.QUEUED, 0.40), (State.PENDING, 0.05), (State.DEAD, 0.04), (State.SCHEDULED, 0.03),
    (State.PARKED, 0.02), (State.CANCELLED, 0.01),
)  # fmt: skip
_ENDED: Final = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED})


class Landmarks(NamedTuple):
    """Ids of things whose own pages are asked for."""

    queued: str
    dead: str
    succeeded: str
    goal: str


class _One(NamedTuple):
    task: Task
    spec: TaskSpec


async def build(folder: Path, count: int) -> Landmarks:
    """Fill a new store. Takes about two minutes for a million."""
    store = LmdbStore.open(folder, map_bytes_first=4 << 30, lose_data_on_power_cut=True)
    try:
        rng, now = random.Random(7), time.time()
        source = ids.IdSource(rng)
        await store.write(lambda txn: _repos(txn, now))
        made: dict[str, str] = {}
        tasks = _tasks(rng, source, now, count)
        while chunk := list(itertools.islice(tasks, BATCH)):
            await store.write(lambda txn, chunk=chunk: _write(txn, chunk, source, made))  # type: ignore[misc]  # mypy types no default of a lambda
            await asyncio.sleep(0)
        return Landmarks(made["queued"], made["dead"], made["succeeded"], made["goal"])
    finally:
        await store.close()


def _repos(txn: Txn, now: float) -> None:
    for number in range(REPOS):
        txn.repos.put(Repo(id=f"repo-{number}", url=f"https://example.com/repo-{number}.git", created_at=now))


def _tasks(rng: random.Random, source: ids.IdSource, now: float, count: int) -> Iterator[_One]:
    """In the order of their creation."""
    states, weights = zip(*_SHARES, strict=True)
    before = ""
    for index in range(count):
        at = now - DAYS * 86_400 * (1 - index / count) - 60
        state: State = rng.choices(states, weights)[0]
        id, lane = source.new(at), rng.choice((Lane.URGENT, Lane.HIGH, Lane.NORMAL, Lane.NORMAL, Lane.LOW))
        capability = CAPABILITY if rng.random() < 0.8 else f"nobody-{index % 50}"
        needs = Requirement(capabilities=(capability,))
        waits = state is State.PENDING and bool(before)
        spec = TaskSpec(
            title=f"mend finding {index:07d} of the nightly run",
            instructions=PROSE * 3,
            command="make check",
            lane=lane,
            requirement=needs,
            checks=(Check(id="c1", run="make test"),),
            depends_on=(before,) if waits else (),
            labels={"shard": str(index % 10)},
        )
        ended = at + rng.uniform(60, 3_600)
        if not waits and state is State.PENDING:
            state = State.QUEUED
        task = Task(
            id=id,
            state=state,
            class_id=0,
            lane=lane,
            waits_for=int(waits),
            generation=1 if state in _ENDED else 0,
            attempts_used=3 if state is State.DEAD else 0,
            failure=Failure(reason="CHECK_FAILED", message="make test: exit code 2") if state is State.DEAD else None,
            reason="out of attempts: make test: exit code 2" if state is State.DEAD else "",
            created_at=at,
            updated_at=min(ended, now),
            queued_at=at,
            ended_at=min(ended, now) if state in _ENDED else None,
            wake_at=now + 864_000 if state in (State.SCHEDULED, State.PARKED) else None,
            labels=spec.labels,
            check_count=1,
        )
        if state is State.QUEUED:
            before = id
        yield _One(task, spec)


def _write(txn: Txn, chunk: Sequence[_One], source: ids.IdSource, made: dict[str, str]) -> None:
    current, left = "", 0
    for index, (task, spec) in enumerate(chunk):
        if index % GOAL_EVERY == 0:
            current, left = source.new(task.created_at), GOAL_TASKS
            _goal(txn, current, task.created_at, index)
            made["goal"] = current
        repo = f"repo-{index % REPOS}" if left else ""
        fields = {"goal": current, "plan_task": f"T{GOAL_TASKS - left + 1}", "repo": repo} if left else {}
        left = max(0, left - 1)
        filed = _with(task, class_id=txn.class_for(spec.requirement), **fields)
        if filed.state is State.SUCCEEDED and index % CHANGE_EVERY == 0:
            filed = _with(filed, change=_change(txn, filed, source))
        txn.add_task(filed, spec)
        _events(txn, filed)
        if filed.state in _ENDED:
            _attempt(txn, filed, full=index < 2 * len(_SHARES))
        if index < 200 and filed.state in (State.QUEUED, State.DEAD, State.SUCCEEDED) and not filed.goal:
            made.setdefault(filed.state.name.lower(), filed.id)


def _with(task: Task, **fields: object) -> Task:
    return Task(**{name: getattr(task, name) for name in Task.__struct_fields__} | fields)


def _goal(txn: Txn, id: str, at: float, index: int) -> None:
    plan = tuple(
        goal.PlanTask(
            id=f"T{number}",
            spec=TaskSpec(title=f"step {number}"),
            depends_on=(f"T{number - 1}",) if number > 1 else (),
            fulfills=("A1",) if number == GOAL_TASKS else (),
        )
        for number in range(1, GOAL_TASKS + 1)
    )
    asserted = goal.Assertion(id="A1", text="the nightly run is clean", check=Check(id="a1", run="make nightly"))
    txn.goals.put(
        goal.Goal(
            id=id,
            title=f"mend the nightly run {id[-6:]}",
            repo=f"repo-{index % REPOS}",
            state=goal.State.ACTIVE if id[-1] in "0123456789abcd" else goal.State.SUCCEEDED,
            assertions=(asserted,),
            plan_version=1,
            task_total=GOAL_TASKS,
            task_succeeded=4,
            created_at=at,
            updated_at=at,
        )
    )
    txn.plans.put(goal.Plan(goal=id, tasks=plan))
    txn.append(at, "goal.created", f"goals/{id}", goal=id)


def _change(txn: Txn, task: Task, source: ids.IdSource) -> str:
    id = source.new(task.created_at)
    state = (change.State.MERGED, change.State.RETURNED, change.State.ABANDONED)[int(task.created_at) % 3]
    txn.changes.put(
        change.Change(
            id=id,
            task=task.id,
            generation=1,
            repo=task.repo or "repo-0",
            branch=f"agentcom/anna/{task.id}",
            head_sha="a" * 40,
            state=state,
            title="mend the parser",
            reason="" if state is change.State.MERGED else "red on fresh main: make test",
            diff_stat=DiffStat(files=3, insertions=40, deletions=7),
            created_at=task.created_at,
            updated_at=task.created_at,
            ended_at=task.created_at + 60,
        )
    )
    return id


def _events(txn: Txn, task: Task) -> None:
    subject = f"tasks/{task.id}"
    txn.append(task.created_at, "task.created", subject, goal=task.goal, actor="local", lane=task.lane.name)
    if task.ended_at is not None:
        verb = {State.SUCCEEDED: "task.succeeded", State.DEAD: "task.dead", State.CANCELLED: "task.cancelled"}
        txn.append(task.ended_at, verb[task.state], subject, goal=task.goal)


def _attempt(txn: Txn, task: Task, *, full: bool) -> None:
    good = task.state is State.SUCCEEDED
    receipt = Receipt(check="c1", verdict=Verdict.PASS if good else Verdict.FAIL, exit_code=0 if good else 2)
    infos = (ArtifactInfo(id="log", size_bytes=len(LOG)), ArtifactInfo(id="diff", size_bytes=len(DIFF))) if full else ()
    txn.put_attempt(
        Attempt(
            task=task.id,
            generation=1,
            agent=f"idle-{int(task.created_at) % 1_000}",
            assigned_at=task.created_at + 5,
            accepted_at=task.created_at + 6,
            ended_at=task.ended_at,
            outcome=AttemptOutcome.COMPLETED if good else AttemptOutcome.FAILED,
            failure=None if good else Failure(reason="CHECK_FAILED", message="make test: exit code 2"),
            charged=not good,
            result=Result(summary="done", receipts=(receipt,), artifacts=infos) if good else None,
            receipts=() if good else (receipt,),
            artifacts=() if good else infos,
        )
    )
    if full:
        txn.put_artifact(task.id, 1, "log", LOG)
        txn.put_artifact(task.id, 1, "diff", DIFF)
