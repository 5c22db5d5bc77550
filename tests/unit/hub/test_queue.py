"""The verbs of the queue on the memory store: what each does to the task, its attempts and the log, and what it
refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest

from hub.core import proof
from hub.core.agent import Agent
from hub.core.holding import Holding
from hub.core.task import (
    AttemptOutcome,
    Attribution,
    Check,
    DependencyPolicy,
    Failure,
    Phase,
    Receipt,
    Result,
    State,
    Task,
    TaskSpec,
    Verdict,
)
from hub.engine.script import queue, timer, work
from hub.store.base import Txn
from hub.store.memory import MemoryStore
from kit import errors, ids

T = TypeVar("T")
RED = Failure(reason="CHECK_FAILED", message="red")


def named(number: int) -> str:
    return ids.encode(number)


class Bench:
    """A memory store and a clock, with the verbs shortened to what a test varies."""

    def __init__(self) -> None:
        self.store = MemoryStore.open()
        self.now = 1000.0
        self.number = 0

    def do(self, fn: Callable[[Txn], T]) -> T:
        return asyncio.run(self._write(fn))

    async def _write(self, fn: Callable[[Txn], T]) -> T:
        return await self.store.write(fn, essential=True)

    def submit(self, agent: str = "", **spec: Any) -> Task:
        self.number += 1
        id = named(self.number)
        contract = TaskSpec(title="t", **spec)
        return self.do(lambda txn: queue.submit(txn, id, contract, self.now, actor="me", agent=agent)[0])

    def assign(self, task: Task | str, agent: str = "a") -> Holding:
        id = task if isinstance(task, str) else task.id
        placed = self.do(lambda txn: queue.assign(txn, id, agent, self.now))
        assert placed is not None
        return Holding(placed.task.id, placed.task.generation)

    def accept(self, holding: Holding, agent: str = "a") -> Task:
        return self.do(lambda txn: work.accept(txn, holding, agent, self.now))

    def complete(self, holding: Holding, result: Result | None = None, agent: str = "a") -> Task:
        return self.do(lambda txn: work.complete(txn, holding, agent, result or Result(), {}, self.now, roll=0.5))

    def fail(self, holding: Holding, failure: Failure = RED, agent: str = "a", **more: Any) -> Task:
        return self.do(lambda txn: work.fail(txn, holding, agent, failure, self.now, roll=0.5, **more))

    def lose(self, holding: Holding, *, agent_died: bool = True) -> Task:
        return self.do(
            lambda txn: work.lose(
                txn, holding, self.now, reason="LEASE", message="m", agent_died=agent_died, roll=0.5, revoke="LEASE"
            )
        )

    def wake(self, now: float) -> int:
        self.now = now
        return self.do(lambda txn: timer.wake(txn, now, 100, roll=0.5))

    def task(self, id: str) -> Task:
        found = self.store.read(lambda reader: reader.task(id))
        assert found is not None
        return found

    def attempt(self, holding: Holding) -> Any:
        return self.store.read(lambda reader: reader.attempt(*holding))

    def events(self, task: Task) -> list[str]:
        return [e.type for e in self.store.read(lambda reader: reader.events_of(f"tasks/{task.id}", limit=100))]

    def last_fields(self, task: Task, type: str) -> dict[str, str]:
        found = self.store.read(lambda reader: reader.events_of(f"tasks/{task.id}", limit=100))
        return [e.fields for e in found if e.type == type][-1]

    def position(self) -> int:
        return self.store.read(lambda reader: reader.position())


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_task_goes_from_the_queue_to_its_success(bench: Bench) -> None:
    task = bench.submit()
    assert task.state is State.QUEUED
    holding = bench.assign(task)
    assert bench.task(task.id).state is State.ASSIGNED
    assert bench.accept(holding).state is State.RUNNING
    done = bench.complete(holding)
    assert (done.state, done.agent, done.ended_at) == (State.SUCCEEDED, "", 1000.0)
    assert bench.attempt(holding).outcome is AttemptOutcome.COMPLETED
    assert bench.events(task) == ["task.created", "task.assigned", "task.accepted", "task.succeeded"]


def test_a_submission_with_an_idle_agent_is_assigned_in_the_same_write(bench: Bench) -> None:
    task = bench.submit(agent="a")
    assert (task.state, task.agent, task.generation) == (State.ASSIGNED, "a", 1)
    assert bench.events(task) == ["task.created", "task.assigned"]
    assert "class" not in bench.last_fields(task, "task.created")


def test_a_queued_task_tells_the_dispatcher_its_class(bench: Bench) -> None:
    task = bench.submit()
    assert bench.last_fields(task, "task.created")["class"] == str(task.class_id)


@pytest.mark.parametrize("verb", ["accept", "complete", "fail"])
@pytest.mark.parametrize(
    "how", ["old generation", "old generation of the same agent", "another agent", "not held", "deleted"]
)
def test_a_worker_verb_of_a_holding_that_is_not_good_is_fenced_and_changes_nothing(
    bench: Bench, verb: str, how: str
) -> None:
    task = bench.submit()
    holding = bench.assign(task)
    agent = "a"
    match how:
        case "old generation":
            bench.lose(holding)
            bench.assign(task, "b")
        case "old generation of the same agent":
            bench.lose(holding)
            bench.assign(task, agent)
        case "another agent":
            agent = "b"
        case "not held":
            bench.lose(holding)
        case "deleted":
            bench.do(lambda txn: queue.cancel(txn, task.id, bench.now, actor="me"))
            bench.do(lambda txn: queue.delete(txn, task.id, bench.now, actor="me"))
    position = bench.position()
    with pytest.raises(errors.Fenced):
        getattr(bench, verb)(holding, agent=agent)
    assert bench.position() == position


def test_a_completion_said_twice_is_accepted_once(bench: Bench) -> None:
    task = bench.submit()
    holding = bench.assign(task)
    bench.complete(holding)
    position = bench.position()
    assert bench.complete(holding).state is State.SUCCEEDED
    assert bench.position() == position


def test_a_failure_said_twice_is_charged_once(bench: Bench) -> None:
    task = bench.submit()
    holding = bench.assign(task)
    bench.fail(holding)
    assert bench.fail(holding).attempts_used == 1


def test_a_first_failure_is_retried_at_once_and_a_second_one_after_half_a_minute(bench: Bench) -> None:
    task = bench.submit()
    after = bench.fail(bench.assign(task))
    assert (after.state, after.attempts_used) == (State.QUEUED, 1)
    after = bench.fail(bench.assign(task))
    assert (after.state, after.wake_at) == (State.SCHEDULED, 1030.0)
    assert bench.wake(1029.0) == 0
    assert bench.wake(1030.0) == 1
    assert bench.task(task.id).state is State.QUEUED


def test_the_last_failure_dead_letters_with_the_whole_history(bench: Bench) -> None:
    task = bench.submit(attempts_max=1)
    after = bench.fail(bench.assign(task), wip_ref="refs/agentcom/wip/x/1")
    assert after.state is State.DEAD
    assert after.failure == RED
    assert after.wip_ref == "refs/agentcom/wip/x/1"
    assert bench.events(task)[-2:] == ["task.failed", "task.dead"]


def test_an_environment_fault_parks_the_task_and_burns_no_attempt(bench: Bench) -> None:
    task = bench.submit(attempts_max=1)
    after = bench.fail(bench.assign(task), Failure(reason="FETCH_FAILED", attribution=Attribution.ENVIRONMENT))
    assert (after.state, after.attempts_used, after.wake_at) == (State.PARKED, 0, 1060.0)
    assert after.failure is not None
    assert after.failure.attribution is Attribution.ENVIRONMENT
    bench.wake(1060.0)
    assert bench.task(task.id).state is State.QUEUED


def test_a_rejected_task_goes_back_at_no_cost_and_remembers_who_refused(bench: Bench) -> None:
    task = bench.submit()
    holding = bench.assign(task)
    after = bench.do(lambda txn: work.reject(txn, holding, "a", "NO_SLOT", "full", bench.now, roll=0.5))
    assert (after.state, after.attempts_used, after.refused_by, after.queued_at) == (State.QUEUED, 0, ("a",), 1000.0)
    again = bench.do(lambda txn: work.reject(txn, holding, "a", "NO_SLOT", "full", bench.now, roll=0.5))
    assert again.revision == after.revision


def test_a_lost_holding_is_released_and_its_agent_told_to_stop(bench: Bench) -> None:
    task = bench.submit()
    holding = bench.assign(task)
    after = bench.lose(holding)
    assert (after.state, after.killed_agents) == (State.QUEUED, ("a",))
    assert bench.attempt(holding).outcome is AttemptOutcome.LOST
    assert bench.last_fields(task, "task.released")["revoke"] == "LEASE"


def test_a_task_that_was_lost_with_three_different_agents_is_dead_lettered(bench: Bench) -> None:
    task = bench.submit()
    for agent in ("a", "b", "b"):
        bench.lose(bench.assign(task, agent))
        bench.wake(bench.now + 1000)
    after = bench.lose(bench.assign(task, "c"))
    assert (after.state, after.attempts_used) == (State.DEAD, 0)


def test_a_task_whose_agents_died_and_were_started_again_at_once_is_dead_lettered_too(bench: Bench) -> None:
    task = bench.submit()
    died = Failure(reason="SIDECAR_RESTARTED", message="it ended", attribution=Attribution.AGENT)
    for agent in ("a", "b", "b"):
        bench.fail(bench.assign(task, agent), died, agent, stopped=True)
        bench.wake(bench.now + 1000)
    assert bench.task(task.id).killed_agents == ("a", "b")
    after = bench.fail(bench.assign(task, "c"), died, "c", stopped=True)
    assert (after.state, after.attempts_used) == (State.DEAD, 0)
    assert after.failure is not None
    assert after.failure.reason == "POISON"
    assert after.failure.message == "it was lost with 3 different agents, last: it ended"


def test_three_different_tasks_failed_by_one_agent_isolate_it_and_are_refunded(bench: Bench) -> None:
    bench.do(lambda txn: txn.agents.put(Agent(id="a")))
    tasks = [bench.submit() for _ in range(3)]
    for task in tasks:
        bench.fail(bench.assign(task))
    agent = bench.store.read(lambda reader: reader.agents.get("a"))
    assert agent is not None
    assert agent.isolated_until == 1300.0
    assert [bench.task(task.id).attempts_used for task in tasks] == [0, 0, 0]
    assert all("task.refunded" in bench.events(task) for task in tasks)


def test_a_refund_brings_back_a_task_that_died_of_the_attempt(bench: Bench) -> None:
    bench.do(lambda txn: txn.agents.put(Agent(id="a")))
    tasks = [bench.submit(attempts_max=1) for _ in range(3)]
    waits = bench.submit(depends_on=(tasks[0].id,))
    for task in tasks:
        bench.fail(bench.assign(task))
    assert {bench.task(task.id).state for task in tasks} == {State.QUEUED}
    assert [bench.task(task.id).attempts_used for task in tasks] == [0, 0, 0]
    assert bench.task(waits.id).state is State.PENDING


def test_refunds_of_one_task_are_bounded(bench: Bench) -> None:
    bench.do(lambda txn: txn.agents.put(Agent(id="a")))
    tasks = [bench.submit() for _ in range(3)]
    for _ in range(8):
        for task in tasks:
            if bench.task(task.id).state is State.QUEUED:
                bench.fail(bench.assign(task))
        bench.wake(bench.now + 10_000)
    assert {bench.task(task.id).state for task in tasks} == {State.DEAD}


def test_a_completion_without_proof_counts_as_a_failure_of_the_agent(bench: Bench) -> None:
    task = bench.submit(checks=(Check(id="c", run="make test"),))
    after = bench.complete(bench.assign(task), Result(head_sha="h"))
    assert (after.state, after.attempts_used) == (State.QUEUED, 0)
    assert after.failure is not None
    assert (after.failure.reason, after.failure.attribution) == ("UNPROVEN", Attribution.AGENT)
    receipt = Receipt(
        check="c", command_sha256=proof.command_hash("make test"), head_sha="h", verdict=Verdict.PASS, phase=Phase.HEAD
    )
    done = bench.complete(bench.assign(task), Result(head_sha="h", receipts=(receipt,)))
    assert done.state is State.SUCCEEDED


def test_cancelling_held_work_revokes_it(bench: Bench) -> None:
    task = bench.submit()
    holding = bench.assign(task)
    after = bench.do(lambda txn: queue.cancel(txn, task.id, bench.now, actor="me", reason="no more"))
    assert after.state is State.CANCELLED
    fields = bench.last_fields(task, "task.cancelled")
    assert (fields["agent"], fields["generation"], fields["revoke"]) == ("a", "1", "CANCELLED")
    with pytest.raises(errors.Fenced):
        bench.complete(holding)
    with pytest.raises(errors.IllegalState) as caught:
        bench.do(lambda txn: queue.cancel(txn, task.id, bench.now, actor="me"))
    assert caught.value.state == "CANCELLED"


def test_a_stale_etag_is_refused(bench: Bench) -> None:
    task = bench.submit()
    bench.assign(task)
    with pytest.raises(errors.Conflict):
        bench.do(lambda txn: queue.cancel(txn, task.id, bench.now, actor="me", etag=str(task.revision)))


def test_a_stopped_worker_may_say_where_it_left_its_work_until_somebody_else_has_the_task(bench: Bench) -> None:
    task = bench.submit()
    holding = bench.assign(task)
    bench.lose(holding)
    stopped = Failure(reason="STOPPED", attribution=Attribution.AGENT)
    ref = f"refs/agentcom/wip/{task.id}/1"
    after = bench.fail(holding, stopped, wip_ref=ref, stopped=True)
    assert (after.state, after.wip_ref, after.attempts_used) == (State.QUEUED, ref, 0)
    bench.assign(task, "b")
    with pytest.raises(errors.Fenced):
        bench.fail(holding, stopped, wip_ref="refs/agentcom/wip/other/1", stopped=True)


def test_a_task_waits_for_its_dependencies(bench: Bench) -> None:
    first, second = bench.submit(), bench.submit()
    third = bench.submit(depends_on=(first.id, second.id))
    assert (third.state, third.waits_for) == (State.PENDING, 2)
    bench.complete(bench.assign(first))
    assert bench.task(third.id).state is State.PENDING
    bench.complete(bench.assign(second))
    assert bench.task(third.id).state is State.QUEUED
    assert bench.submit(depends_on=(first.id,)).state is State.QUEUED


@pytest.mark.parametrize(
    ("policy", "state"), [(DependencyPolicy.FAIL, State.DEAD), (DependencyPolicy.PARK, State.PARKED)]
)
def test_a_failed_dependency_ends_or_parks_what_waits_and_its_retry_brings_it_back(
    bench: Bench, policy: DependencyPolicy, state: State
) -> None:
    first = bench.submit(attempts_max=1)
    second = bench.submit(depends_on=(first.id,), dependency_policy=policy)
    third = bench.submit(depends_on=(second.id,), dependency_policy=policy)
    bench.fail(bench.assign(first))
    assert bench.task(second.id).state is state
    assert bench.task(third.id).state is (State.DEAD if state is State.DEAD else State.PENDING)
    bench.do(lambda txn: queue.revive(txn, first.id, bench.now, actor="me"))
    assert [bench.task(t.id).state for t in (first, second, third)] == [State.QUEUED, State.PENDING, State.PENDING]
    for task in (first, second, third):
        bench.complete(bench.assign(task))
    assert bench.task(third.id).state is State.SUCCEEDED


def test_a_dependency_that_is_unknown_or_gone_is_refused_and_nothing_is_filed(bench: Bench) -> None:
    gone = bench.submit()
    bench.do(lambda txn: queue.cancel(txn, gone.id, bench.now, actor="me"))
    position = bench.position()
    with pytest.raises(errors.NotFound):
        bench.submit(depends_on=(named(999),))
    with pytest.raises(errors.IllegalState):
        bench.submit(depends_on=(gone.id,))
    assert bench.position() == position


def test_a_task_with_a_start_time_waits_for_it(bench: Bench) -> None:
    task = bench.submit(start_at=1500.0)
    assert (task.state, task.wake_at) == (State.SCHEDULED, 1500.0)
    bench.wake(1500.0)
    assert bench.task(task.id).state is State.QUEUED


def test_a_deadline_for_waiting_dead_letters_what_still_waits_and_nothing_else(bench: Bench) -> None:
    late, held = bench.submit(queue_deadline_at=1100.0), bench.submit(queue_deadline_at=1100.0, start_timeout_s=3600.0)
    scheduled = bench.submit(queue_deadline_at=1100.0, start_at=2000.0)
    bench.assign(held)
    bench.wake(1100.0)
    assert bench.task(late.id).state is State.DEAD
    assert bench.task(scheduled.id).state is State.DEAD
    assert bench.task(held.id).state is State.ASSIGNED


def test_an_assignment_that_is_not_accepted_returns(bench: Bench) -> None:
    task = bench.submit()
    holding = bench.assign(task)
    bench.wake(1060.0)
    after = bench.task(task.id)
    assert (after.state, after.attempts_used, after.killed_agents) == (State.QUEUED, 0, ())
    assert bench.last_fields(task, "task.released")["revoke"] == "START_TIMEOUT"
    with pytest.raises(errors.Fenced):
        bench.accept(holding)


def test_an_attempt_that_runs_too_long_is_charged_and_revoked(bench: Bench) -> None:
    task = bench.submit(run_timeout_s=100.0)
    holding = bench.assign(task)
    bench.accept(holding)
    bench.wake(1159.0)
    assert bench.task(task.id).state is State.RUNNING
    bench.wake(1160.0)
    after = bench.task(task.id)
    assert (after.state, after.attempts_used) == (State.QUEUED, 1)
    assert bench.last_fields(task, "task.failed")["revoke"] == "DEADLINE"
    assert bench.attempt(holding).charged


def test_work_by_hand_is_held_until_its_lease_ends(bench: Bench) -> None:
    task = bench.submit()
    placed = bench.do(lambda txn: queue.claim(txn, task.id, "ann", 100.0, bench.now, actor="ann"))
    assert (placed.task.state, placed.task.claimed) == (State.RUNNING, True)
    with pytest.raises(errors.IllegalState):
        bench.do(lambda txn: queue.claim(txn, task.id, "bob", 100.0, bench.now, actor="bob"))
    bench.wake(1100.0)
    assert (bench.task(task.id).state, bench.task(task.id).claimed) == (State.QUEUED, False)


def test_only_what_has_ended_and_is_not_needed_is_deleted(bench: Bench) -> None:
    task = bench.submit()
    waits = bench.submit(depends_on=(task.id,), dependency_policy=DependencyPolicy.PARK)

    def delete() -> None:
        bench.do(lambda txn: queue.delete(txn, task.id, bench.now, actor="me"))

    with pytest.raises(errors.IllegalState):
        delete()
    bench.complete(bench.assign(task))
    with pytest.raises(errors.IllegalState):
        delete()
    bench.complete(bench.assign(waits))
    delete()
    assert bench.store.read(lambda reader: reader.task(task.id)) is None
    assert bench.events(task)[-1] == "task.deleted"


def test_a_revived_task_has_fresh_attempts(bench: Bench) -> None:
    task = bench.submit(attempts_max=1)
    bench.fail(bench.assign(task))
    after = bench.do(lambda txn: queue.revive(txn, task.id, bench.now, actor="me"))
    assert (after.state, after.attempts_used, after.generation, after.ended_at) == (State.QUEUED, 0, 1, None)
    assert bench.assign(task).generation == 2


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
def test_a_retry_of_what_depends_on_something_gone_is_refused_because_it_would_wait_for_ever(
    bench: Bench, how: str
) -> None:
    first = bench.submit()
    second = bench.submit(depends_on=(first.id,))
    bench.do(lambda txn: queue.cancel(txn, first.id, bench.now, actor="me"))
    if how == "deleted":
        bench.do(lambda txn: queue.delete(txn, first.id, bench.now, actor="me"))
    with pytest.raises(errors.IllegalState) as refused:
        bench.do(lambda txn: queue.revive(txn, second.id, bench.now, actor="me"))
    assert refused.value.reason == "DEPENDENCY_GONE"
    assert bench.task(second.id).state is State.DEAD


def test_what_waits_for_two_that_are_gone_comes_back_with_the_second(bench: Bench) -> None:
    one, other = bench.submit(), bench.submit()
    waits = bench.submit(depends_on=(one.id, other.id))
    bench.do(lambda txn: queue.cancel(txn, one.id, bench.now, actor="me"))
    bench.do(lambda txn: queue.cancel(txn, other.id, bench.now, actor="me"))
    bench.do(lambda txn: queue.revive(txn, one.id, bench.now, actor="me"))
    assert bench.task(waits.id).state is State.DEAD
    bench.do(lambda txn: queue.revive(txn, other.id, bench.now, actor="me"))
    assert bench.task(waits.id).state is State.PENDING
    for task in (one, other, waits):
        bench.complete(bench.assign(task))
    assert bench.task(waits.id).state is State.SUCCEEDED


def test_a_release_keeps_its_place_and_a_retry_goes_to_the_end(bench: Bench) -> None:
    task = bench.submit()
    bench.now = 1005.0
    assert bench.lose(bench.assign(task)).queued_at == 1000.0
    assert bench.fail(bench.assign(task, "b"), agent="b").queued_at == 1005.0


def test_records_are_not_changed_in_place(bench: Bench) -> None:
    task = bench.submit()
    with pytest.raises(AttributeError):
        task.state = State.DEAD  # type: ignore[misc]  # that it is frozen is what is tested
    assert msgspec.structs.replace(task, state=State.DEAD).state is State.DEAD
