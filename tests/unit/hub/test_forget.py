"""What may be forgotten, and what is still needed: the rules of retention, over the verbs that people use."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hub.core.goal import State as GoalState
from hub.core.holding import Holding
from hub.core.task import Attribution, Delivery, DependencyPolicy, Failure, State, Task, TaskSpec
from hub.core.token import Scope
from hub.engine.script import agents, forget, queue, requests, steering, tokens, work
from hub.engine.script.forget import Span
from hub.store.base import Ended
from kit import errors
from tests.support.goalbench import GoalBench, plan_task

OLD = dict.fromkeys(Ended, 1e10)
FAULT = Failure(reason="EXIT_CODE", message="it exited with 1")


@pytest.fixture
def bench() -> GoalBench:
    return GoalBench()


def run(bench, *sorts):
    """Forget all that may go, however old."""
    total = 0
    for sort in sorts or tuple(Ended):
        span = Span(sort, bench.now + 1e9, None, 999)
        going = bench.read(lambda reader, span=span: forget.look(reader, span)).may_go
        total += bench.do(lambda txn, sort=sort, going=going: forget.forget(txn, sort, going, OLD, bench.now))
    return total


def submit(bench: GoalBench, **fields: Any) -> Task:
    id = f"{bench.read(lambda reader: reader.position()):020d}"
    spec = TaskSpec(title="t", command="true", **fields)
    task, _ = bench.do(lambda txn: queue.submit(txn, id, spec, bench.now, actor="me"))
    bench.tick()
    return task


def gone(bench: GoalBench, task: Task) -> bool:
    return bench.read(lambda reader: reader.task(task.id)) is None


def types(bench: GoalBench, subject: str) -> list[str]:
    return [event.type for event in bench.read(lambda reader: reader.events_of(subject, limit=99))]


def test_a_finished_task_goes_with_all_that_belongs_to_it_and_says_so(bench: GoalBench):
    task = bench.done(submit(bench))
    assert run(bench) == 1
    assert gone(bench, task)
    assert bench.read(lambda reader: reader.spec(task.id)) is None
    assert bench.read(lambda reader: reader.attempts(task.id)) == []
    assert bench.read(lambda reader: reader.counts()) == {}
    assert types(bench, f"tasks/{task.id}")[-1] == "task.deleted"
    assert bench.store.verify_chain() == bench.read(lambda reader: reader.position())


def test_a_task_that_is_alive_stays(bench: GoalBench):
    alive = [submit(bench), submit(bench, start_at=bench.now + 99)]
    bench.hold(submit(bench))
    assert run(bench) == 0
    assert not any(gone(bench, task) for task in alive)


def test_a_task_that_was_retried_between_the_look_and_the_act_stays(bench: GoalBench):
    task = bench.fail(submit(bench, attempts_max=1), FAULT)
    assert task.state is State.DEAD
    going = bench.read(lambda reader: forget.look(reader, Span(Ended.DEAD_TASK, 1e10, None, 9))).may_go
    bench.do(lambda txn: queue.revive(txn, task.id, bench.now, actor="me"))
    assert bench.do(lambda txn: forget.forget(txn, Ended.DEAD_TASK, going, OLD, bench.now)) == 0
    assert not gone(bench, task)


def test_a_task_is_needed_by_those_that_wait_for_it(bench: GoalBench):
    first, other = submit(bench), submit(bench)
    waiting = submit(bench, depends_on=(first.id, other.id))
    bench.done(first)
    assert run(bench) == 0
    bench.done(other)
    bench.done(bench.at(waiting.id))
    assert run(bench) == 3


def test_a_task_is_needed_by_a_dead_letter_that_may_be_retried(bench: GoalBench):
    """Without it the retry would wait for ever for something that is not there."""
    first = submit(bench)
    waiting = submit(bench, depends_on=(first.id,), attempts_max=1)
    bench.done(first)
    dead = bench.fail(bench.at(waiting.id), FAULT)
    assert dead.state is State.DEAD
    assert run(bench, Ended.TASK) == 0
    again = bench.do(lambda txn: queue.revive(txn, dead.id, bench.now, actor="me"))
    assert again.state is State.QUEUED
    bench.done(again)
    assert run(bench, Ended.TASK) == 2


def test_a_chain_goes_in_one_walk_though_its_last_one_must_go_first(bench: GoalBench):
    chain = [submit(bench)]
    for _ in range(30):
        chain.append(submit(bench, depends_on=(chain[-1].id,)))
    bench.do(lambda txn: queue.cancel(txn, chain[0].id, bench.now, actor="me"))
    assert all(bench.at(task.id).state in (State.DEAD, State.CANCELLED) for task in chain)
    assert run(bench, Ended.TASK, Ended.DEAD_TASK) == 31


def test_what_was_kept_for_another_goes_with_it_only_when_it_is_old_itself(bench):
    first = submit(bench)
    last = submit(bench, depends_on=(first.id,), attempts_max=1)
    bench.done(first)
    bench.fail(bench.at(last.id), FAULT)
    young = {**OLD, Ended.TASK: bench.at(first.id).ended_at - 1}
    assert bench.do(lambda txn: forget.forget(txn, Ended.DEAD_TASK, [last.id], young, bench.now)) == 1
    assert not gone(bench, first)


def test_a_task_whose_dependency_was_deleted_is_not_retried_to_wait_for_ever(bench: GoalBench):
    first, second = submit(bench), submit(bench)
    waiting = submit(bench, depends_on=(first.id, second.id))
    bench.done(first)
    bench.do(lambda txn: queue.cancel(txn, second.id, bench.now, actor="me"))
    assert bench.at(waiting.id).state is State.DEAD
    bench.do(lambda txn: queue.delete(txn, first.id, bench.now, actor="me"))
    with pytest.raises(errors.IllegalState, match="is gone") as caught:
        bench.do(lambda txn: queue.revive(txn, waiting.id, bench.now, actor="me"))
    assert caught.value.reason == "DEPENDENCY_GONE"
    bench.do(lambda txn: queue.revive(txn, second.id, bench.now, actor="me"))
    assert bench.at(waiting.id).state is State.DEAD, "what follows a retry is no exception"
    bench.done(bench.at(second.id))
    assert bench.at(waiting.id).state is State.DEAD


def test_what_is_needed_does_not_hide_what_may_go(bench: GoalBench):
    needed = submit(bench)
    submit(bench, depends_on=(needed.id,), start_at=bench.now + 9999)
    bench.done(needed)
    free = bench.done(submit(bench))
    first = bench.read(lambda reader: forget.look(reader, Span(Ended.TASK, 1e10, None, 1)))
    assert (first.may_go, first.more) == ([], True)
    assert first.last is not None and first.last.id == needed.id
    second = bench.read(lambda reader: forget.look(reader, Span(Ended.TASK, 1e10, first.last, 1)))
    assert second.may_go == [free.id]


def test_tasks_of_a_goal_stay_as_long_as_it_does(bench: GoalBench):
    goal = bench.create(plan_task("one"), plan_task("two", "one"))
    bench.finish(goal, "one", "two")
    assert run(bench) == 0
    assert bench.goal(goal).state is GoalState.VERIFYING


def test_a_finished_goal_goes_with_its_plan_then_its_tasks_then_their_changes(bench: GoalBench):
    goal = bench.create(plan_task("one"), plan_task("two", "one"))
    bench.finish(goal, "one", "two")
    bench.done(bench.at(bench.goal(goal).verify_task))
    assert bench.goal(goal).state is GoalState.SUCCEEDED
    assert run(bench, Ended.TASK, Ended.CHANGE) == 0
    assert run(bench, Ended.GOAL) == 1
    with pytest.raises(errors.NotFound):
        bench.goal(goal)
    assert bench.read(lambda reader: reader.plans.get(goal)) is None
    assert run(bench, Ended.CHANGE) == 0
    assert run(bench, Ended.TASK) == 5  # two, their merges, the verification
    assert run(bench, Ended.CHANGE) == 2
    assert bench.changes() == []
    assert types(bench, f"goals/{goal}").count("goal.deleted") == 1


def test_a_failed_goal_goes_with_what_waits_in_vain(bench: GoalBench):
    parked = plan_task("two", "one", dependency_policy=DependencyPolicy.PARK)
    goal = bench.create(plan_task("one", attempts_max=1), parked, plan_task("three", "two"))
    two = bench.task(goal, "two")
    bench.fail(bench.task(goal, "one"), FAULT)
    assert bench.goal(goal).state is GoalState.FAILED
    assert bench.at(two.id).state is State.PARKED
    assert run(bench, Ended.FAILED_GOAL) == 1
    assert bench.at(two.id).state is State.CANCELLED
    assert run(bench, Ended.TASK, Ended.DEAD_TASK) == 3
    assert bench.read(lambda reader: reader.tasks(limit=99)) == []


def test_a_goal_with_something_alive_stays(bench: GoalBench):
    goal = bench.create(plan_task("one", attempts_max=1), plan_task("two"))
    assert run(bench) == 0
    bench.fail(bench.task(goal, "one"), FAULT)
    assert bench.goal(goal).state is GoalState.ACTIVE
    assert run(bench) == 0


def test_a_goal_that_ended_while_something_of_it_runs_stays(bench: GoalBench):
    """No verb leaves a goal behind like that; what runs must not lose its goal if one does."""
    goal = bench.create(plan_task("one"))
    holding = bench.hold(bench.task(goal, "one"))
    failed = msgspec.structs.replace(bench.goal(goal), state=GoalState.FAILED, ended_at=bench.now)
    bench.do(lambda txn: txn.goals.put(failed))
    assert run(bench) == 0
    assert bench.at(holding.task).state is State.ASSIGNED


def test_a_failed_goal_that_was_revived_in_between_stays(bench: GoalBench):
    goal = bench.create(plan_task("one", attempts_max=1))
    one = bench.fail(bench.task(goal, "one"), FAULT)
    going = bench.read(lambda reader: forget.look(reader, Span(Ended.FAILED_GOAL, 1e10, None, 9))).may_go
    assert going == [goal]
    bench.do(lambda txn: queue.revive(txn, one.id, bench.now, actor="me"))
    assert bench.do(lambda txn: forget.forget(txn, Ended.FAILED_GOAL, going, OLD, bench.now)) == 0
    assert bench.goal(goal).state is GoalState.ACTIVE


def test_a_change_in_the_train_holds_its_task_and_its_merge(bench: GoalBench):
    goal = bench.create(plan_task("one"))
    bench.done(bench.task(goal, "one"))
    cancelled = bench.create(plan_task("one", delivery=Delivery.NONE))
    bench.do(lambda txn: steering.cancel(txn, cancelled, bench.now, actor="me"))
    assert run(bench, Ended.GOAL, Ended.TASK) == 2  # the cancelled goal and its task; nothing of the one that merges
    bench.merge()
    assert bench.task(goal, "one").state is State.SUCCEEDED


def test_a_merge_that_was_given_up_goes_and_its_train_goes_on(bench: GoalBench):
    goal = bench.create(plan_task("one"), plan_task("two"))
    bench.done(bench.task(goal, "one"))
    bench.done(bench.task(goal, "two"))
    (merge,) = bench.merges()
    bench.do(lambda txn: queue.cancel(txn, merge.id, bench.now, actor="me"))
    assert run(bench, Ended.TASK, Ended.CHANGE) == 0  # its goal is there
    assert len(bench.merges()) == 1


def test_artefacts_go_before_their_tasks_and_those_of_dead_letters_stay(bench: GoalBench):
    good, bad = submit(bench), submit(bench, attempts_max=1)
    bench.done(good)
    bench.do(lambda txn: txn.put_artifact(good.id, 1, "log", b"x"))
    bench.fail(bad, FAULT, artifacts={"log": b"y"})
    assert bench.do(lambda txn: forget.artifacts(txn, bench.now, 9)) == (1, False)
    assert bench.read(lambda reader: reader.artifact(good.id, 1, "log")) is None
    assert bench.read(lambda reader: reader.artifact(bad.id, 1, "log")) == b"y"
    assert not gone(bench, good)
    assert not bench.read(lambda reader: forget.any_artifacts(reader, bench.now)), "the same ones are looked at again"
    later = bench.done(submit(bench))
    bench.do(lambda txn: txn.put_artifact(later.id, 1, "log", b"z"))
    assert bench.do(lambda txn: forget.artifacts(txn, bench.now, 9)) == (1, False)
    assert bench.read(lambda reader: reader.artifact(later.id, 1, "log")) is None


def test_a_void_token_goes_but_not_the_one_that_an_agent_has(bench):
    wanted = agents.Wanted("a", "", "tokenofa", "secret")
    request = requests.Request("me", "EnrollAgent", "", b"")
    bench.do(lambda txn: agents.enroll(txn, wanted, request, bench.now, actor="me", window_s=9))
    for id in ("revoked", "tokenofa"):
        if id == "revoked":
            made = tokens.new(id, id, Scope.VIEWER, bench.now)
            bench.do(lambda txn, made=made: tokens.create(txn, made, bench.now, actor="me"))
        bench.do(lambda txn, id=id: tokens.revoke(txn, id, bench.now, actor="me"))
    assert run(bench) == 1
    assert bench.read(lambda reader: reader.tokens.get("revoked")) is None
    bench.do(lambda txn: agents.rotate(txn, "a", "another", "another secret", bench.now, actor="me"))
    assert run(bench) == 1
    assert bench.read(lambda reader: reader.tokens.get("tokenofa")) is None
    assert bench.read(lambda reader: reader.tokens.get("another")) is not None


def test_the_token_before_the_last_rotation_stays_for_the_verbs_that_revoke_it(bench):
    wanted = agents.Wanted("a", "", "first", "secret")
    request = requests.Request("me", "EnrollAgent", "", b"")
    bench.do(lambda txn: agents.enroll(txn, wanted, request, bench.now, actor="me", window_s=9))
    bench.do(lambda txn: agents.rotate(txn, "a", "second", "secret 2", bench.now, actor="me", grace_s=60))
    bench.tick(1e6)
    assert run(bench) == 0
    bench.do(lambda txn: agents.rotate(txn, "a", "third", "secret 3", bench.now, actor="me", grace_s=60))
    assert run(bench) == 1
    bench.do(lambda txn: agents.delete(txn, "a", bench.now, actor="me", roll=0.5))
    assert run(bench) == 2


def test_a_report_on_a_forgotten_task_is_refused_as_any_old_one(bench: GoalBench):
    task = bench.done(submit(bench))
    run(bench)
    late = Failure(reason="EXIT_CODE", attribution=Attribution.TASK)
    with pytest.raises(errors.Fenced) as caught:
        bench.do(lambda txn: work.fail(txn, Holding(task.id, 1), "a", late, bench.now, roll=0.5))
    assert caught.value.metadata["state"] == "DELETED"
