"""A goal's way through its plan: filed, counted, verified, and what its end is when a task is lost."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import msgspec
import pytest

from hub.core.goal import State
from hub.core.policy import Isolation, Policy
from hub.core.task import DependencyPolicy, Kind, Lane, Phase, Result, Verdict
from hub.core.task import State as TaskState
from hub.engine.script import goals, queue, steering, work
from kit import errors
from tests.support.goalbench import RED, UNREACHABLE, GoalBench, assertion, check, plan_task, receipt


@pytest.fixture
def bench() -> GoalBench:
    return GoalBench()


def diamond(bench: GoalBench, **fields: Any) -> str:
    """Six tasks: T1 before T2 and T3, both before T4; T5 alone; T6 after T4 and T5."""
    return bench.create(
        plan_task("T1"),
        plan_task("T2", "T1"),
        plan_task("T3", "T1"),
        plan_task("T4", "T2", "T3"),
        plan_task("T5"),
        plan_task("T6", "T4", "T5", fulfills=["A1"]),
        **fields,
    )


def test_a_goal_with_a_plan_files_its_tasks_with_repo_goal_and_dependencies(bench: GoalBench) -> None:
    goal_id = diamond(bench, lane=Lane.HIGH)
    goal = bench.goal(goal_id)
    assert (goal.state, goal.task_total, goal.plan_version) == (State.ACTIVE, 6, 1)
    assert bench.states(goal_id) == {
        "T1": "QUEUED",
        "T2": "PENDING",
        "T3": "PENDING",
        "T4": "PENDING",
        "T5": "QUEUED",
        "T6": "PENDING",
    }
    task = bench.task(goal_id, "T4")
    spec = bench.read(lambda reader: reader.spec(task.id))
    assert spec is not None
    assert (task.repo, task.goal, task.plan_task, task.waits_for) == ("app", goal_id, "T4", 2)
    assert set(spec.depends_on) == {bench.task(goal_id, "T2").id, bench.task(goal_id, "T3").id}


def test_the_ids_of_a_plans_tasks_sort_in_the_order_of_the_plan(bench: GoalBench) -> None:
    goal_id = bench.create(*(plan_task(f"T{n}") for n in range(1, 60)))
    listed = bench.read(lambda reader: reader.tasks_of_goal(goal_id, limit=100))
    assert [task.plan_task for task in listed] == [f"T{n}" for n in range(1, 60)]


def test_a_goal_without_a_plan_waits_for_one(bench: GoalBench) -> None:
    goal = bench.goal(bench.create())
    assert (goal.state, goal.task_total) == (State.AWAITING_PLAN, 0)


def test_a_goal_of_an_unknown_repo_is_refused_and_nothing_is_filed(bench: GoalBench) -> None:
    bench.do(lambda txn: txn.repos.delete("app"))
    before = bench.read(lambda reader: reader.position())
    with pytest.raises(errors.NotFound):
        diamond(bench)
    assert bench.read(lambda reader: reader.position()) == before
    assert bench.read(lambda reader: reader.tasks(limit=10)) == []


def test_six_tasks_are_done_merged_and_verified_and_the_goal_succeeds(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.finish(goal_id, "T1", "T2", "T5", "T3", "T4")
    assert bench.goal(goal_id).task_succeeded == 5
    assert bench.goal(goal_id).state is State.ACTIVE
    bench.finish(goal_id, "T6")
    goal = bench.goal(goal_id)
    assert (goal.state, goal.task_succeeded) == (State.VERIFYING, 6)
    (verify,) = bench.tasks(goal_id, Kind.VERIFY)
    spec = bench.read(lambda reader: reader.spec(verify.id))
    assert spec is not None
    assert [(one.id, one.run) for one in spec.checks] == [("A1", "assert-A1")]
    bench.done(verify)
    goal = bench.goal(goal_id)
    assert goal.state is State.SUCCEEDED
    assert goal.ended_at is not None
    assert goal.assertions[0].receipt is not None
    assert goal.assertions[0].receipt.verdict is Verdict.PASS
    told = [type for type in bench.events(goal_id) if type.startswith("goal.")]
    assert told == ["goal.created", "goal.started", "goal.verifying", "goal.succeeded"]


@pytest.mark.parametrize(
    ("one", "other", "verify"),
    [
        (Policy(), Policy(), Policy()),
        (Policy(), Policy(isolation=Isolation.REQUIRED), Policy(isolation=Isolation.REQUIRED)),
        (Policy(network=True), Policy(), Policy()),
        (Policy(network=True), Policy(network=True), Policy(network=True)),
    ],
)
def test_the_assertions_are_verified_under_the_strictest_policy_of_the_plan(
    bench: GoalBench, one: Policy, other: Policy, verify: Policy
) -> None:
    goal_id = bench.create(plan_task("T1", policy=one), plan_task("T2", policy=other, fulfills=["A1"]))
    bench.finish(goal_id, "T1", "T2")
    (task,) = bench.tasks(goal_id, Kind.VERIFY)
    spec = bench.read(lambda reader: reader.spec(task.id))
    assert spec is not None
    assert spec.policy == verify
    assert spec.requirement.sandbox is (verify.isolation is Isolation.REQUIRED)


def test_a_task_is_not_done_before_its_change_is_merged(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.done(bench.task(goal_id, "T1"))
    assert bench.states(goal_id)["T1"] == "MERGING"
    assert bench.states(goal_id)["T2"] == "PENDING"
    bench.merge()
    assert bench.states(goal_id)["T1"] == "SUCCEEDED"
    assert bench.states(goal_id)["T2"] == "QUEUED"


def test_a_red_assertion_fails_the_goal_by_name_with_its_receipt(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1", fulfills=["A1", "A2"]), assertions=(assertion("A1"), assertion("A2")))
    bench.finish(goal_id, "T1")
    (verify,) = bench.tasks(goal_id, Kind.VERIFY)
    receipts = (
        receipt(check("A1", "assert-A1"), "s"),
        msgspec.structs.replace(receipt(check("A2", "assert-A2"), "s", verdict=Verdict.FAIL), output_tail="x" * 5000),
    )
    bench.fail(verify, RED, receipts=receipts)
    goal = bench.goal(goal_id)
    assert goal.state is State.FAILED
    assert goal.reason == "not true on the merged default branch: A2"
    kept = [one.receipt for one in goal.assertions]
    assert [one and one.verdict for one in kept] == [Verdict.PASS, Verdict.FAIL]
    assert kept[1] is not None
    assert len(kept[1].output_tail) == goals.RECEIPT_TAIL_MAX


def test_a_verification_that_cannot_fetch_is_parked_and_does_not_fail_the_goal(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1", fulfills=["A1"]))
    bench.finish(goal_id, "T1")
    (verify,) = bench.tasks(goal_id, Kind.VERIFY)
    parked = bench.fail(verify, UNREACHABLE)
    assert parked.state is TaskState.PARKED
    assert bench.goal(goal_id).state is State.VERIFYING
    bench.tick(1000.0)
    bench.wake()
    bench.done(bench.at(verify.id))
    assert bench.goal(goal_id).state is State.SUCCEEDED


def test_a_retried_verification_brings_a_failed_goal_back(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1", fulfills=["A1"]))
    bench.finish(goal_id, "T1")
    (verify,) = bench.tasks(goal_id, Kind.VERIFY)
    bench.fail(verify, RED)
    assert bench.goal(goal_id).state is State.FAILED
    bench.do(lambda txn: queue.revive(txn, verify.id, bench.now, actor="me"))
    goal = bench.goal(goal_id)
    assert (goal.state, goal.ended_at, goal.verify_task) == (State.VERIFYING, None, verify.id)
    bench.done(bench.at(verify.id))
    assert bench.goal(goal_id).state is State.SUCCEEDED


def test_a_cancelled_verification_fails_the_goal(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1", fulfills=["A1"]))
    bench.finish(goal_id, "T1")
    (verify,) = bench.tasks(goal_id, Kind.VERIFY)
    bench.do(lambda txn: queue.cancel(txn, verify.id, bench.now, actor="me", reason="no"))
    goal = bench.goal(goal_id)
    assert goal.state is State.FAILED
    assert goal.reason == "its assertions could not be checked: no"


def test_what_does_not_depend_on_a_dead_task_goes_on_and_then_the_goal_fails(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.kill(bench.task(goal_id, "T1"))
    goal = bench.goal(goal_id)
    assert goal.state is State.ACTIVE
    assert goal.reason == "T1 is lost: check c is red; 1 other tasks go on"
    assert bench.states(goal_id)["T5"] == "QUEUED"
    bench.finish(goal_id, "T5")
    goal = bench.goal(goal_id)
    assert goal.state is State.FAILED
    assert goal.reason == "T1 is lost: check c is red"
    assert (goal.task_succeeded, goal.task_failed) == (1, 5)


def test_a_task_that_is_parked_behind_a_dead_one_does_not_keep_its_goal_alive(bench: GoalBench) -> None:
    goal_id = bench.create(
        plan_task("T1"), plan_task("T2", "T1", fulfills=["A1"], dependency_policy=DependencyPolicy.PARK)
    )
    bench.kill(bench.task(goal_id, "T1"))
    assert bench.states(goal_id) == {"T1": "DEAD", "T2": "PARKED"}
    assert bench.goal(goal_id).state is State.FAILED


def test_what_waits_behind_a_parked_task_is_blocked_as_well(bench: GoalBench) -> None:
    goal_id = bench.create(
        plan_task("T1"),
        plan_task("T2", "T1", dependency_policy=DependencyPolicy.PARK),
        plan_task("T3", "T2", fulfills=["A1"]),
    )
    bench.kill(bench.task(goal_id, "T1"))
    assert bench.states(goal_id) == {"T1": "DEAD", "T2": "PARKED", "T3": "PENDING"}
    assert bench.goal(goal_id).state is State.FAILED


def test_a_retried_task_brings_its_failed_goal_and_what_died_with_it_back(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.finish(goal_id, "T5")
    bench.kill(bench.task(goal_id, "T1"))
    assert bench.goal(goal_id).state is State.FAILED
    bench.do(lambda txn: queue.revive(txn, bench.task(goal_id, "T1").id, bench.now, actor="me"))
    goal = bench.goal(goal_id)
    assert (goal.state, goal.reason, goal.task_failed, goal.task_succeeded) == (State.ACTIVE, "", 0, 1)
    bench.finish(goal_id, "T1", "T2", "T3", "T4", "T6")
    bench.done(bench.tasks(goal_id, Kind.VERIFY)[0])
    assert bench.goal(goal_id).state is State.SUCCEEDED


def test_a_cancelled_task_counts_as_lost(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1", fulfills=["A1"]))
    bench.do(lambda txn: queue.cancel(txn, bench.task(goal_id, "T1").id, bench.now, actor="me", reason="not now"))
    goal = bench.goal(goal_id)
    assert (goal.state, goal.reason) == (State.FAILED, "T1 is lost: not now")


def test_a_task_of_a_live_goal_cannot_be_deleted_and_one_of_an_ended_goal_can(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1"), plan_task("T2", fulfills=["A1"]))
    bench.finish(goal_id, "T1")
    task_id = bench.task(goal_id, "T1").id
    with pytest.raises(errors.IllegalState) as refused:
        bench.do(lambda txn: queue.delete(txn, task_id, bench.now, actor="me"))
    assert refused.value.metadata["needed_by"] == f"goals/{goal_id}"
    bench.do(lambda txn: steering.cancel(txn, goal_id, bench.now, actor="me"))
    bench.do(lambda txn: queue.delete(txn, task_id, bench.now, actor="me"))


def test_cancelling_a_goal_cancels_every_task_and_abandons_every_change(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.finish(goal_id, "T5")
    bench.done(bench.task(goal_id, "T1"))  # its change is being merged
    bench.hold(bench.merges()[0], "m")
    bench.do(lambda txn: steering.cancel(txn, goal_id, bench.now, actor="me", reason="changed my mind"))
    goal = bench.goal(goal_id)
    assert (goal.state, goal.reason, goal.task_succeeded, goal.task_failed) == (
        State.CANCELLED,
        "changed my mind",
        1,
        5,
    )
    assert set(bench.states(goal_id).values()) == {"CANCELLED", "SUCCEEDED"}
    assert bench.merges() == []
    assert [change.state.name for change in bench.changes()] == ["MERGED", "ABANDONED"]
    assert "goal.failed" not in bench.events(goal_id)


def test_cancelling_a_goal_files_no_merge_for_the_changes_that_wait_behind(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1"), plan_task("T2"), plan_task("T3", fulfills=["A1"]))
    for id in ("T2", "T1", "T3"):  # T2 has its turn
        bench.done(bench.task(goal_id, id))
    bench.do(lambda txn: steering.cancel(txn, goal_id, bench.now, actor="me"))
    assert len(bench.tasks(goal_id, Kind.MERGE)) == 1
    assert {change.state.name for change in bench.changes()} == {"ABANDONED"}


def test_a_goal_that_has_ended_cannot_be_cancelled_paused_or_resumed(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.do(lambda txn: steering.cancel(txn, goal_id, bench.now, actor="me"))
    for verb in (steering.cancel, steering.pause, steering.resume):
        with pytest.raises(errors.IllegalState) as refused:
            bench.do(functools.partial(verb, goal_id=goal_id, now=bench.now, actor="me"))
        assert refused.value.state == "CANCELLED"


def test_no_task_of_a_cancelled_goal_can_be_retried(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.do(lambda txn: steering.cancel(txn, goal_id, bench.now, actor="me"))
    task_id = bench.task(goal_id, "T1").id
    with pytest.raises(errors.IllegalState):
        bench.do(lambda txn: queue.revive(txn, task_id, bench.now, actor="me"))
    assert bench.at(task_id).state is TaskState.CANCELLED


def test_a_stale_etag_refuses_the_cancel(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    with pytest.raises(errors.Conflict):
        bench.do(lambda txn: steering.cancel(txn, goal_id, bench.now, actor="me", etag="99"))
    assert bench.goal(goal_id).state is State.ACTIVE


def test_a_paused_goal_holds_back_what_waits_and_lets_go_on_what_runs(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    running = bench.hold(bench.task(goal_id, "T1"))
    bench.do(lambda txn: steering.pause(txn, goal_id, bench.now, actor="me"))
    assert bench.goal(goal_id).paused
    assert bench.states(goal_id)["T5"] == "PARKED"
    assert bench.at(running.task).state is TaskState.ASSIGNED


@pytest.mark.parametrize("way", ["failed", "returned", "dependency", "released"])
def test_nothing_enters_the_queue_of_a_paused_goal_by_any_way(bench: GoalBench, way: str) -> None:
    goal_id = diamond(bench)
    task = bench.task(goal_id, "T1")
    if way in ("returned", "dependency"):
        bench.done(task)
    else:
        holding = bench.hold(task)
    bench.do(lambda txn: steering.pause(txn, goal_id, bench.now, actor="me"))
    if way == "returned":
        bench.merge(RED)
    elif way == "dependency":
        bench.merge()
    else:
        bench.do(lambda txn: work.fail(txn, holding, "a", RED, bench.now, roll=0.5, stopped=way == "released"))
        bench.tick(1000.0)
        bench.wake()
    held = {"T2", "T3"} if way == "dependency" else {"T1"}
    states = bench.states(goal_id)
    assert {states[id] for id in held} == {"PARKED"}
    assert "QUEUED" not in states.values()
    bench.do(lambda txn: steering.resume(txn, goal_id, bench.now, actor="me"))
    assert {bench.states(goal_id)[id] for id in held} == {"QUEUED"}


def test_a_paused_goal_does_not_hold_up_the_merge_train(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.done(bench.task(goal_id, "T1"))
    bench.do(lambda txn: steering.pause(txn, goal_id, bench.now, actor="me"))
    bench.merge()
    assert bench.states(goal_id)["T1"] == "SUCCEEDED"


def test_a_merge_of_a_paused_goal_that_was_parked_for_the_repo_is_tried_again(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.done(bench.task(goal_id, "T1"))
    bench.do(lambda txn: steering.pause(txn, goal_id, bench.now, actor="me"))
    bench.merge(UNREACHABLE)
    bench.tick(1000.0)
    bench.wake()
    assert [task.state for task in bench.merges()] == [TaskState.QUEUED]


def test_a_resumed_goal_leaves_parked_what_was_parked_for_another_reason(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.fail(bench.task(goal_id, "T1"), UNREACHABLE)
    bench.do(lambda txn: steering.pause(txn, goal_id, bench.now, actor="me"))
    bench.do(lambda txn: steering.resume(txn, goal_id, bench.now, actor="me"))
    assert bench.states(goal_id)["T1"] == "PARKED"
    assert bench.states(goal_id)["T5"] == "QUEUED"


def test_pausing_twice_and_resuming_twice_change_nothing_more(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    for verb in (steering.pause, steering.resume):
        bench.do(functools.partial(verb, goal_id=goal_id, now=bench.now, actor="me"))
        position = bench.read(lambda reader: reader.position())
        bench.do(functools.partial(verb, goal_id=goal_id, now=bench.now, actor="me"))
        assert bench.read(lambda reader: reader.position()) == position


def test_a_verification_filed_while_the_goal_is_paused_waits_for_the_resume(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1", fulfills=["A1"]))
    bench.done(bench.task(goal_id, "T1"))
    bench.do(lambda txn: steering.pause(txn, goal_id, bench.now, actor="me"))
    bench.merge()
    assert bench.goal(goal_id).state is State.VERIFYING
    assert bench.tasks(goal_id, Kind.VERIFY)[0].state is TaskState.PARKED
    bench.do(lambda txn: steering.resume(txn, goal_id, bench.now, actor="me"))
    assert bench.tasks(goal_id, Kind.VERIFY)[0].state is TaskState.QUEUED


def test_tasks_that_touch_the_same_paths_run_one_after_the_other(bench: GoalBench) -> None:
    goal_id = bench.create(
        plan_task("T1", touches=("src/**",)),
        plan_task("T2", touches=("docs/a.md",)),
        plan_task("T3", touches=("src/a.py",), fulfills=["A1"]),
    )
    assert bench.states(goal_id) == {"T1": "QUEUED", "T2": "QUEUED", "T3": "PENDING"}


def test_a_work_task_that_was_done_already_needs_no_merge(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1", fulfills=["A1"]))
    task = bench.task(goal_id, "T1")
    holding = bench.hold(task)
    result = Result(already_done=True, base_sha="b", receipts=(receipt(check(run="test-T1"), "b", phase=Phase.BASE),))
    bench.do(lambda txn: work.complete(txn, holding, "a", result, {}, bench.now, roll=0.5))
    assert bench.changes() == []
    assert bench.goal(goal_id).state is State.VERIFYING


def test_the_tally_tells_waiting_active_succeeded_and_failed(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    bench.finish(goal_id, "T5")
    bench.hold(bench.task(goal_id, "T1"))
    found = bench.read(lambda reader: goals.tally(reader, steering.found(reader, goal_id)))
    assert (found.total, found.waiting, found.active, found.succeeded, found.failed) == (6, 4, 1, 1, 0)


def test_the_store_stays_usable_after_a_refused_verb(bench: GoalBench) -> None:
    goal_id = diamond(bench)
    with pytest.raises(errors.NotFound):
        bench.do(lambda txn: steering.cancel(txn, "0" * 20, bench.now, actor="me"))
    assert bench.goal(goal_id).state is State.ACTIVE
    asyncio.run(bench.store.close())
