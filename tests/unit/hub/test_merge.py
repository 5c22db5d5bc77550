"""The merge train: serial per repo, in order, and what each end of a MERGE task means for the change and its task."""

from __future__ import annotations

import msgspec
import pytest

from hub.core.change import State as ChangeState
from hub.core.holding import Holding
from hub.core.policy import Isolation, Policy
from hub.core.repo import MergeStyle, Repo
from hub.core.task import Failure, Kind, Requirement, State, Task
from hub.engine.script import merge, queue, work
from kit import errors, ids
from tests.support.goalbench import CONFLICT, RED, UNREACHABLE, GoalBench, check, plan_task, proven


@pytest.fixture
def bench() -> GoalBench:
    return GoalBench()


def filed(bench: GoalBench, number: int = 1, repo: str = "app") -> Task:
    """A task without a goal, whose change is to be merged."""
    spec = plan_task(f"T{number}").spec
    spec = msgspec.structs.replace(spec, requirement=msgspec.structs.replace(spec.requirement, repo=repo))
    task_id = ids.derived(bench.now, "task", number)
    return bench.do(lambda txn: queue.submit(txn, task_id, spec, bench.now, actor="me")[0])


def state_of(bench: GoalBench, task: Task) -> str:
    return bench.at(task.id).state.name


def lose(bench: GoalBench, holding: Holding) -> None:
    """The agent dies with it, and the backoff passes."""
    bench.do(lambda txn: work.lose(txn, holding, bench.now, reason="LEASE", message="gone", agent_died=True, roll=0.5))
    bench.tick(1000.0)
    bench.wake()


def test_an_accepted_change_waits_in_the_train_with_a_merge_task(bench: GoalBench) -> None:
    task = bench.done(filed(bench))
    assert task.state is State.MERGING
    change = bench.change_of(task)
    (merging,) = bench.merges()
    assert (change.state, change.merge_task, change.repo) == (ChangeState.MERGING, merging.id, "app")
    assert (change.branch, change.head_sha, change.title) == ("agentcom/a/x", f"sha-{task.id}-1", "Do it")
    assert (merging.kind, merging.change, merging.repo) == (Kind.MERGE, change.id, "app")


def test_a_merge_runs_the_tasks_checks_and_then_those_of_the_repo(bench: GoalBench) -> None:
    bench.done(filed(bench))
    spec = bench.read(lambda reader: reader.spec(bench.merges()[0].id))
    assert spec is not None
    assert [(one.id, one.run) for one in spec.checks] == [("c", "test-T1"), ("lint", "make lint")]
    assert spec.labels == {"merge_style": "merge_commit"}
    assert spec.title == "Merge: Do it"


def test_a_merge_runs_under_the_policy_of_the_task_that_wrote_the_change(bench: GoalBench) -> None:
    policy = Policy(isolation=Isolation.REQUIRED, network=True)
    spec = plan_task("T1", requirement=Requirement(repo="app", sandbox=True), policy=policy).spec
    task = bench.do(lambda txn: queue.submit(txn, ids.derived(bench.now, "t", 1), spec, bench.now, actor="me")[0])
    bench.done(task)
    made = bench.read(lambda reader: reader.spec(bench.merges()[0].id))
    assert made is not None
    assert (made.requirement.sandbox, made.policy) == (True, policy)


def test_a_merge_takes_the_style_of_its_repo(bench: GoalBench) -> None:
    bench.do(lambda txn: txn.repos.put(msgspec.structs.replace(bench.repo, merge_style=MergeStyle.FAST_FORWARD)))
    bench.done(filed(bench))
    spec = bench.read(lambda reader: reader.spec(bench.merges()[0].id))
    assert spec is not None
    assert spec.labels == {"merge_style": "fast_forward"}


def test_checks_of_task_and_repo_with_one_id_are_both_run_and_equal_commands_once() -> None:
    own = [check("lint", "ruff"), check("unit", "pytest")]
    repo = [check("lint", "mypy"), check("unit", "make"), check("again", "pytest"), check("repo-lint", "x")]
    found = merge.combined(own, repo)
    assert {(one.id, one.run) for one in found} == {
        ("lint", "ruff"),
        ("unit", "pytest"),
        ("repo-lint", "mypy"),
        ("repo-unit", "make"),
        ("repo-repo-lint", "x"),
    }


def test_ids_of_the_greatest_length_stay_different_and_within_the_bound() -> None:
    long = "c" * 64
    found = merge.combined([check(long, "a")], [check(long, "b"), check(long + "", "c")])
    assert len({one.id for one in found}) == 3
    assert max(len(one.id) for one in found) <= 64


def test_a_merged_change_ends_its_task(bench: GoalBench) -> None:
    task = bench.done(filed(bench))
    merging = bench.merge(agent="m")
    change = bench.change_of(task)
    assert state_of(bench, task) == "SUCCEEDED"
    assert (change.state, change.merge_agent) == (ChangeState.MERGED, "m")
    assert change.merge_sha == f"sha-{merging.id}-1"
    assert change.ended_at is not None


def test_one_repo_merges_one_change_at_a_time_in_the_order_of_their_ids(bench: GoalBench) -> None:
    first, second, third = (filed(bench, number) for number in (1, 2, 3))
    for task in (second, third, first):  # the order in which they were pushed
        bench.done(task)
    merged = []
    while bench.merges():
        (alive,) = bench.merges()
        merged.append(alive.change)
        bench.merge()
    assert merged == sorted(merged)
    assert [state_of(bench, task) for task in (first, second, third)] == ["SUCCEEDED"] * 3
    assert [change.task for change in bench.changes()] == [second.id, third.id, first.id]


def test_two_repos_merge_side_by_side(bench: GoalBench) -> None:
    bench.do(lambda txn: txn.repos.put(Repo(id="lib", url="/srv/lib.git")))
    bench.done(filed(bench, 1))
    bench.done(filed(bench, 2, repo="lib"))
    assert {task.repo for task in bench.merges()} == {"app", "lib"}


@pytest.mark.parametrize("failure", [CONFLICT, RED])
def test_a_conflict_or_a_red_check_sends_the_task_back_at_once_with_the_evidence(
    bench: GoalBench, failure: Failure
) -> None:
    task = bench.done(filed(bench))
    merging = bench.merge(failure)
    back = bench.at(task.id)
    assert merging.state is State.DEAD
    assert (back.state, back.reworks, back.failure) == (State.QUEUED, 1, failure)
    assert back.reason == f"its change came back from the merge: {failure.message}"
    change = bench.change_of(back)
    assert (change.state, change.failure) == (ChangeState.RETURNED, failure)
    assert bench.merges() == []


def test_a_task_that_was_sent_back_makes_a_new_change_and_may_succeed(bench: GoalBench) -> None:
    task = bench.done(filed(bench))
    bench.merge(CONFLICT)
    again = bench.done(bench.at(task.id))
    assert again.generation == 2
    bench.merge()
    assert state_of(bench, task) == "SUCCEEDED"
    assert [change.state.name for change in bench.changes()] == ["RETURNED", "MERGED"]


def test_a_change_comes_back_twice_and_the_third_time_its_task_is_dead(bench: GoalBench) -> None:
    task = bench.done(filed(bench))
    bench.merge(CONFLICT)
    bench.done(bench.at(task.id))
    bench.merge(RED)
    assert bench.at(task.id).reworks == 2
    bench.done(bench.at(task.id))
    bench.merge(CONFLICT)
    dead = bench.at(task.id)
    assert dead.state is State.DEAD
    assert dead.failure is not None
    assert (dead.failure.reason, dead.failure.evidence) == ("MERGE_RETURNED_TOO_OFTEN", "a.py")
    assert "3 times" in dead.reason


def test_the_train_goes_on_with_the_next_change_after_a_return(bench: GoalBench) -> None:
    first, second = bench.done(filed(bench, 1)), bench.done(filed(bench, 2))
    bench.merge(CONFLICT)
    assert bench.merges()[0].change == bench.change_of(second).id
    bench.merge()
    assert (state_of(bench, first), state_of(bench, second)) == ("QUEUED", "SUCCEEDED")


def test_a_repo_that_cannot_be_fetched_parks_the_merge_and_burns_nothing(bench: GoalBench) -> None:
    task = bench.done(filed(bench))
    parked = bench.merge(UNREACHABLE)
    assert (parked.state, parked.attempts_used) == (State.PARKED, 0)
    assert state_of(bench, task) == "MERGING"
    bench.tick(1000.0)
    bench.wake()
    bench.merge()
    assert state_of(bench, task) == "SUCCEEDED"


def test_a_merge_that_dies_of_something_else_kills_the_task_instead_of_sending_it_back(bench: GoalBench) -> None:
    task = bench.done(filed(bench))
    (merging,) = bench.merges()
    for number in range(3):
        lose(bench, bench.hold(bench.at(merging.id), f"m{number}"))
    dead = bench.at(task.id)
    assert (dead.state, dead.reworks) == (State.DEAD, 0)
    assert dead.failure is not None
    assert dead.failure.reason == "MERGE_FAILED"
    assert bench.change_of(task).state is ChangeState.RETURNED


def test_cancelling_a_task_that_merges_abandons_its_change_and_revokes_its_merge(bench: GoalBench) -> None:
    task, behind = bench.done(filed(bench, 1)), bench.done(filed(bench, 2))
    holding = bench.hold(bench.merges()[0], "m")
    bench.do(lambda txn: queue.cancel(txn, task.id, bench.now, actor="me"))
    assert bench.at(holding.task).state is State.CANCELLED
    assert bench.change_of(task).state is ChangeState.ABANDONED
    told = bench.read(lambda reader: reader.events_of(f"tasks/{holding.task}", limit=100))[-1]
    assert (told.type, told.fields["revoke"], told.fields["agent"]) == ("task.cancelled", "CANCELLED", "m")
    assert bench.merges()[0].change == bench.change_of(behind).id


def test_the_late_result_of_a_revoked_merge_is_fenced(bench: GoalBench) -> None:
    task = bench.done(filed(bench))
    holding = bench.hold(bench.merges()[0], "m")
    bench.do(lambda txn: queue.cancel(txn, task.id, bench.now, actor="me"))
    spec = bench.read(lambda reader: reader.spec(holding.task))
    assert spec is not None
    with pytest.raises(errors.Fenced):
        bench.do(lambda txn: work.complete(txn, holding, "m", proven(spec, "late"), {}, bench.now, roll=0.5))
    assert bench.change_of(task).state is ChangeState.ABANDONED


def test_cancelling_a_waiting_change_leaves_the_merge_of_another_alone(bench: GoalBench) -> None:
    first, second = bench.done(filed(bench, 1)), bench.done(filed(bench, 2))
    (merging,) = bench.merges()
    bench.do(lambda txn: queue.cancel(txn, second.id, bench.now, actor="me"))
    assert bench.merges() == [merging]
    bench.merge()
    assert (state_of(bench, first), bench.merges()) == ("SUCCEEDED", [])


def test_a_cancelled_merge_cancels_its_task_and_a_retry_of_the_task_starts_again(bench: GoalBench) -> None:
    task = bench.done(filed(bench))
    (merging,) = bench.merges()
    bench.do(lambda txn: queue.cancel(txn, merging.id, bench.now, actor="me"))
    assert state_of(bench, task) == "CANCELLED"
    assert bench.change_of(task).state is ChangeState.ABANDONED
    bench.do(lambda txn: queue.revive(txn, task.id, bench.now, actor="me"))
    bench.done(bench.at(task.id))
    bench.merge()
    assert state_of(bench, task) == "SUCCEEDED"


def test_a_merge_that_has_ended_cannot_be_retried(bench: GoalBench) -> None:
    bench.done(filed(bench))
    merging = bench.merge(CONFLICT)
    with pytest.raises(errors.IllegalState):
        bench.do(lambda txn: queue.revive(txn, merging.id, bench.now, actor="me"))


def test_a_merge_without_proof_of_its_checks_merges_nothing(bench: GoalBench) -> None:
    task = bench.done(filed(bench))
    holding = bench.hold(bench.merges()[0], "m")
    spec = bench.read(lambda reader: reader.spec(holding.task))
    assert spec is not None
    bare = msgspec.structs.replace(proven(spec, "s"), receipts=())
    bench.do(lambda txn: work.complete(txn, holding, "m", bare, {}, bench.now, roll=0.5))
    assert state_of(bench, task) == "MERGING"
    assert bench.change_of(task).state is ChangeState.MERGING


def test_the_end_of_a_merge_told_twice_changes_nothing_the_second_time(bench: GoalBench) -> None:
    task = bench.done(filed(bench))
    merging = bench.merge(CONFLICT)
    position = bench.read(lambda reader: reader.position())
    assert bench.do(lambda txn: merge.after(txn, merging, bench.now)) == []
    assert bench.read(lambda reader: reader.position()) == position
    assert state_of(bench, task) == "QUEUED"


def test_a_change_that_nobody_waits_for_does_not_stop_the_train(bench: GoalBench) -> None:
    first, second = bench.done(filed(bench, 1)), bench.done(filed(bench, 2))
    change = bench.change_of(second)
    # Its task forgets it, as no verb of ours does.
    forgetful = bench.at(second.id)
    bench.do(lambda txn: txn.put_task(msgspec.structs.replace(forgetful, change=""), forgetful))
    third = bench.done(filed(bench, 3))
    bench.merge()
    found = bench.read(lambda reader: reader.changes.get(change.id))
    assert found is not None
    assert found.state is ChangeState.ABANDONED
    assert bench.merges()[0].change == bench.change_of(third).id
    assert state_of(bench, first) == "SUCCEEDED"


def test_a_merge_of_a_goal_is_in_the_goals_history(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1", fulfills=["A1"]))
    bench.finish(goal_id, "T1")
    told = [type for type in bench.events(goal_id) if type.startswith("change.")]
    assert told == ["change.created", "change.merging", "change.merged"]


def test_the_time_of_a_merge_follows_from_its_checks() -> None:
    slow = [msgspec.structs.replace(check(), timeout_s=21_600.0)] * 10
    assert merge.run_timeout_s([check()]) == merge.RUN_MIN_S
    assert merge.run_timeout_s(slow) == merge.RUN_MAX_S
    assert merge.silence_timeout_s([]) == 600.0
    assert merge.silence_timeout_s(slow) == 21_600.0


def test_the_train_is_not_moved_on_while_a_change_is_being_merged(bench: GoalBench) -> None:
    for number in (1, 2):
        bench.done(filed(bench, number))
    (merging,) = bench.merges()
    assert bench.do(lambda txn: merge.advance(txn, "app", bench.now)) is None
    assert bench.merges() == [merging]
