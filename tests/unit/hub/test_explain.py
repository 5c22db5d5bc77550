"""Why a task does not run: the answer for each state, each gate and each obstacle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.core.attach import SelfTest
from hub.core.goal import Goal
from hub.core.goal import State as GoalState
from hub.core.repo import Repo
from hub.core.task import Lane, State
from hub.engine.desk.explain import Explanation
from hub.engine.script import agents, goals, queue, steering
from kit import errors, ids
from tests.support.goalbench import assertion, plan_task
from tests.support.stage import Stage, offer
from tests.unit.hub.test_dispatch import _isolate, _pause, _refused, file_many


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


def reasons(told: Explanation) -> dict[str, str]:
    return {one.agent: str(one.reason) for one in told.obstacles}


async def test_without_agents_one_has_to_be_enrolled(stage: Stage) -> None:
    told = stage.explainer.explain(await stage.submit())
    assert told.state is State.QUEUED
    assert "no agent" in told.summary and told.unblock


@pytest.mark.parametrize(
    ("wanted", "given", "reason"),
    [
        ({"capabilities": ("gpu",)}, {}, "MISSING_CAPABILITY"),
        ({"executor": "fake"}, {}, "NO_EXECUTOR"),
        ({"agent": "other"}, {}, "OTHER_AGENT"),
        ({}, {"offer": offer(kinds=frozenset())}, "WRONG_KIND"),
        ({}, {"offer": offer(tiers=frozenset())}, "WRONG_TIER"),
        ({}, {"self_test": SelfTest(False)}, "UNAVAILABLE"),
        ({}, {"draining": True}, "DRAINING"),
        ({}, {"offer": offer(slots=0)}, "NO_SLOT"),
    ],
)
async def test_each_obstacle_is_named_with_what_would_help(
    stage: Stage, wanted: dict[str, Any], given: dict[str, Any], reason: str
) -> None:
    (task,) = await file_many(stage, 1, **wanted)
    await stage.online("a1", **given)
    told = stage.explainer.explain(task)
    assert reasons(told) == {"a1": reason}
    assert told.summary and told.unblock


async def test_a_task_that_demands_a_sandbox_says_that_no_agent_offers_one_and_waits_for_one_that_does(
    stage: Stage,
) -> None:
    (task,) = await file_many(stage, 1, sandbox=True)
    await stage.online("a1")
    await stage.online("a2")
    told = stage.explainer.explain(task)
    assert reasons(told) == {"a1": "NO_SANDBOX", "a2": "NO_SANDBOX"}
    assert "no agent offers a sandbox" in told.summary
    assert "install bubblewrap" in told.unblock[0]
    await stage.dispatch()
    assert stage.state(task) is State.QUEUED
    await stage.online("a3", offer=offer(sandbox=True))
    await stage.dispatch()
    assert stage.task(task).agent == "a3"


async def test_an_agent_that_is_offline_isolated_or_refused_it_is_named(stage: Stage) -> None:
    (task,) = await file_many(stage, 1)
    stream = await stage.online("a1", offer=offer())
    stage.sessions.close(stream, "lost")
    assert reasons(stage.explainer.explain(task)) == {"a1": "OFFLINE"}
    await stage.online("a1")
    await stage.do(lambda txn: _isolate(txn, "a1", stage.clock.now() + 60.0))
    assert reasons(stage.explainer.explain(task)) == {"a1": "ISOLATED"}
    await stage.do(lambda txn: agents.resume(txn, "a1", stage.clock.now(), actor="test"))
    await stage.do(lambda txn: _refused(txn, task, ("a1",)))
    assert reasons(stage.explainer.explain(task)) == {"a1": "FAILED_IT_BEFORE"}


async def test_the_agent_nearest_to_fitting_comes_first(stage: Stage) -> None:
    (task,) = await file_many(stage, 1, capabilities=("gpu",))
    await stage.online("far", offer=offer(kinds=frozenset(), tiers=frozenset()))
    await stage.online("near")
    assert [one.agent for one in stage.explainer.explain(task).obstacles] == ["near", "far"]


async def test_a_task_behind_others_is_told_how_many_are_before_it(stage: Stage) -> None:
    await stage.online("a1")
    await stage.submit()
    first = await file_many(stage, 3)
    urgent = await file_many(stage, 1, lane=Lane.URGENT)
    told = stage.explainer.explain(first[2])
    assert told.ahead_count == 3
    assert "busy" in told.summary and "3 tasks" in told.summary
    assert stage.explainer.explain(urgent[0]).ahead_count == 0


async def test_a_task_that_waited_long_is_told_how_far_it_has_risen(stage: Stage) -> None:
    task = await stage.submit(lane=Lane.LOW)
    stage.clock.advance(1300.0)
    assert "from lane LOW to HIGH" in stage.explainer.explain(task).summary


async def test_a_task_that_can_run_at_once_has_nothing_in_its_way(stage: Stage) -> None:
    (task,) = await file_many(stage, 1)
    await stage.online("a1")
    told = stage.explainer.explain(task)
    assert (told.unblock, told.obstacles) == ([], [])


async def test_pauses_and_drains_are_told_before_agents(stage: Stage) -> None:
    await stage.do(lambda txn: txn.repos.put(Repo(id="r", url="/r")))
    (task,) = await file_many(stage, 1, repo="r")
    await stage.do(lambda txn: _pause(txn, "r", True))
    assert "repos/r is paused" in stage.explainer.explain(task).summary
    stage.ctx.gate.draining = True
    assert "draining" in stage.explainer.explain(task).summary
    stage.ctx.gate.paused = True
    assert "paused" in stage.explainer.explain(task).summary


async def test_a_pending_task_names_what_it_waits_for(stage: Stage) -> None:
    first = await stage.submit()
    second = await stage.submit(depends_on=(first,))
    told = stage.explainer.explain(second)
    assert (told.state, told.waits_for) == (State.PENDING, [first])
    assert told.unblock


async def test_a_delayed_task_tells_when_it_is_looked_at_again(stage: Stage) -> None:
    task = await stage.submit(start_at=stage.clock.now() + 90.0)
    assert "in 90 s" in stage.explainer.explain(task).summary


async def test_a_task_that_its_goal_holds_back_goes_on_with_the_goal(stage: Stage) -> None:
    now = stage.clock.now()
    draft = Goal(
        id=ids.derived(now, "goal"), title="a goal", repo="r", state=GoalState.AWAITING_PLAN, assertions=(assertion(),)
    )
    await stage.do(lambda txn: txn.repos.put(Repo(id="r", url="/r")))
    await stage.do(lambda txn: goals.create(txn, draft, (plan_task("T1", fulfills=["A1"]),), now, actor="me"))
    await stage.do(lambda txn: steering.pause(txn, draft.id, now, actor="me"))
    plan = stage.store.read(lambda reader: reader.plans.get(draft.id))
    assert plan is not None
    told = stage.explainer.explain(plan.tasks[0].task)
    assert (told.state, told.unblock) == (State.PARKED, [f"resume goals/{draft.id}"])


async def test_held_and_ended_tasks_are_told_too(stage: Stage) -> None:
    await stage.online("a1")
    task = await stage.submit()
    assert "offered to agents/a1" in stage.explainer.explain(task).summary
    await stage.do(lambda txn: queue.cancel(txn, task, stage.clock.now(), actor="test", reason="not wanted"))
    told = stage.explainer.explain(task)
    assert "not wanted" in told.summary and told.unblock
    with pytest.raises(errors.NotFound):
        stage.explainer.explain("0" * 20)
