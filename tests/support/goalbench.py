"""A memory store with a repo and the verbs around goals, shortened to what a test varies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from hub.core import proof
from hub.core.change import Change
from hub.core.goal import Assertion, Goal, PlanTask, State
from hub.core.holding import Holding
from hub.core.repo import Repo
from hub.core.task import (
    Attribution,
    Check,
    Delivery,
    Failure,
    Kind,
    Phase,
    Receipt,
    Requirement,
    Result,
    Task,
    TaskSpec,
    Verdict,
)
from hub.engine.script import goals, queue, steering, timer, work
from hub.store.base import Reader, Txn
from hub.store.memory import MemoryStore
from kit import ids

T = TypeVar("T")

CONFLICT = Failure(reason="MERGE_CONFLICT", message="conflict in a.py", evidence="a.py")
RED = Failure(reason="CHECK_FAILED", message="check c is red", evidence="1 failed")
UNREACHABLE = Failure(reason="FETCH_FAILED", message="no route", attribution=Attribution.ENVIRONMENT)


def check(id: str = "c", run: str = "make test") -> Check:
    return Check(id=id, run=run)


def plan_task(id: str, *depends_on: str, fulfills: Sequence[str] = (), **spec: Any) -> PlanTask:
    fields: dict[str, Any] = {
        "title": f"do {id}",
        "command": f"do-{id}",
        "checks": (check(run=f"test-{id}"),),
        "delivery": Delivery.MERGE,
        "requirement": Requirement(),
    } | spec
    return PlanTask(id=id, spec=TaskSpec(**fields), depends_on=depends_on, fulfills=tuple(fulfills))


def assertion(id: str = "A1", run: str | None = None) -> Assertion:
    return Assertion(id=id, text=f"{id} holds", check=check(id, run or f"assert-{id}"))


class GoalBench:
    """One store, one clock; every function is run twice by the store, so that a script with state of its own shows."""

    def __init__(self) -> None:
        self.store = MemoryStore.open(rehearse=True)
        self.now = 1000.0
        self.repo = Repo(id="app", url="/srv/app.git", checks=(check("lint", "make lint"),))
        self.do(lambda txn: txn.repos.put(self.repo))

    def do(self, fn: Callable[[Txn], T]) -> T:
        async def write() -> T:
            return await self.store.write(fn, essential=True)

        return asyncio.run(write())

    def read(self, fn: Callable[[Reader], T]) -> T:
        return self.store.read(fn)

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds

    # Goals

    def create(self, *tasks: PlanTask, assertions: Sequence[Assertion] | None = None, **fields: Any) -> str:
        wanted = (assertion(),) if assertions is None else tuple(assertions)
        draft = Goal(
            id=ids.derived(self.now, "goal", self.read(lambda reader: reader.position())),
            title="a goal",
            repo="app",
            state=State.AWAITING_PLAN,
            assertions=wanted,
            **fields,
        )
        made = self.do(lambda txn: goals.create(txn, draft, tasks or None, self.now, actor="me"))
        self.tick()
        return made.id

    def goal(self, goal_id: str) -> Goal:
        return self.read(lambda reader: steering.found(reader, goal_id))

    def task(self, goal_id: str, plan_id: str) -> Task:
        plan = self.read(lambda reader: reader.plans.get(goal_id))
        assert plan is not None
        (task_id,) = (one.task for one in plan.tasks if one.id == plan_id)
        return self.at(task_id)

    def at(self, task_id: str) -> Task:
        task = self.read(lambda reader: reader.task(task_id))
        assert task is not None
        return task

    def states(self, goal_id: str) -> dict[str, str]:
        plan = self.read(lambda reader: reader.plans.get(goal_id))
        assert plan is not None
        return {one.id: self.at(one.task).state.name for one in plan.tasks}

    def tasks(self, goal_id: str, kind: Kind) -> list[Task]:
        return [
            task for task in self.read(lambda reader: reader.tasks_of_goal(goal_id, limit=1000)) if task.kind is kind
        ]

    def changes(self) -> list[Change]:
        return self.read(lambda reader: reader.changes.page(limit=1000))

    def change_of(self, task: Task) -> Change:
        found = self.read(lambda reader: reader.changes.get(task.change))
        assert found is not None
        return found

    def events(self, goal_id: str) -> list[str]:
        found = self.read(lambda reader: reader.events_of(f"goals/{goal_id}", limit=1000))
        return [event.type for event in found]

    # Work

    def hold(self, task: Task, agent: str = "a") -> Holding:
        placed = self.do(lambda txn: queue.assign(txn, task.id, agent, self.now))
        assert placed is not None, task
        return Holding(task.id, placed.task.generation)

    def done(self, task: Task, agent: str = "a") -> Task:
        """Assign the task and report its completion with the proof that it needs."""
        holding = self.hold(task, agent)
        spec = self.read(lambda reader: reader.spec(task.id))
        assert spec is not None
        result = proven(spec, f"sha-{task.id}-{holding.generation}")
        after = self.do(lambda txn: work.complete(txn, holding, agent, result, {}, self.now, roll=0.5))
        self.tick()
        return after

    def fail(self, task: Task, failure: Failure = RED, agent: str = "a", **more: Any) -> Task:
        holding = self.hold(task, agent)
        after = self.do(lambda txn: work.fail(txn, holding, agent, failure, self.now, roll=0.5, **more))
        self.tick()
        return after

    def kill(self, task: Task, failure: Failure = RED) -> Task:
        """Fail a task until it is dead."""
        while task.state.name != "DEAD":
            self.tick(1000.0)
            self.wake()
            task = self.fail(self.at(task.id), failure)
        return task

    def merge(self, failure: Failure | None = None, agent: str = "m") -> Task:
        """Do the one MERGE task that is alive, or fail it."""
        (task,) = self.merges()
        return self.fail(task, failure, agent) if failure is not None else self.done(task, agent)

    def merges(self) -> list[Task]:
        """MERGE tasks that are alive."""
        found = self.read(lambda reader: reader.tasks(limit=1000))
        return [task for task in found if task.kind is Kind.MERGE and task.ended_at is None]

    def finish(self, goal_id: str, *plan_ids: str) -> None:
        """Do these tasks of a plan and merge what each has made."""
        for plan_id in plan_ids:
            self.done(self.task(goal_id, plan_id))
            self.merge()

    def wake(self) -> None:
        self.do(lambda txn: timer.wake(txn, self.now, 1000, roll=0.5))


def proven(spec: TaskSpec, sha: str) -> Result:
    """A result whose receipts prove every check of the contract."""
    merged = spec.requirement.kind is Kind.MERGE
    receipts = tuple(receipt(one, sha, phase=Phase.MERGED if merged else Phase.HEAD) for one in spec.checks)
    made = Result(head_sha=sha, branch="agentcom/a/x", base_sha="base", receipts=receipts, change_title="Do it")
    return msgspec.structs.replace(made, merge_sha=sha if merged else "")


def receipt(one: Check, sha: str, *, verdict: Verdict = Verdict.PASS, phase: Phase = Phase.HEAD) -> Receipt:
    return Receipt(check=one.id, command_sha256=proof.command_hash(one.run), head_sha=sha, verdict=verdict, phase=phase)
