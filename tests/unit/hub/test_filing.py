"""What the filing of goals refuses beyond their plans: a hub that drains, a queue that is full."""

from __future__ import annotations

import random

import pytest

from hub.core.goal import Goal, State
from hub.core.repo import Repo
from hub.engine.desk import filing
from hub.engine.live import context
from hub.engine.script import requests
from hub.store.memory import MemoryStore
from kit import clock, errors
from tests.support.goalbench import assertion, plan_task

GOAL = Goal(id="", title="a goal", repo="app", state=State.AWAITING_PLAN, assertions=(assertion(),))
DRAFT = filing.Draft(GOAL, (plan_task("T1"), plan_task("T2", "T1", fulfills=["A1"])))


async def made(queue_max: int = 3) -> tuple[context.Context, filing.Filing]:
    store = MemoryStore.open(rehearse=True)
    settings = context.EngineSettings(queue_max=queue_max)
    ctx = context.Context.make(store, clock.ManualClock(), random.Random(1), settings)
    await store.write(lambda txn: txn.repos.put(Repo(id="app", url="/srv/app.git")))
    return ctx, filing.Filing(ctx)


def request(number: int) -> requests.Request:
    return requests.Request("me", "CreateGoal", f"request-{number}", b"f")


async def test_a_plan_that_does_not_fit_into_the_queue_is_refused_whole():
    ctx, desk = await made()
    await desk.create(DRAFT, request(1))
    with pytest.raises(errors.Exhausted) as refused:
        await desk.create(DRAFT, request(2))
    assert refused.value.reason == "QUEUE_FULL"
    assert refused.value.retry_delay_s
    assert len(ctx.store.read(lambda reader: reader.tasks(limit=10))) == 2
    assert len(ctx.store.read(lambda reader: reader.goals.page(limit=10))) == 1


async def test_a_full_queue_still_answers_a_request_that_it_has_answered():
    _, desk = await made(queue_max=2)
    first = await desk.create(DRAFT, request(1))
    assert (await desk.create(DRAFT, request(1))).goal == first.goal


async def test_a_draining_hub_takes_no_goal_and_checks_none():
    ctx, desk = await made()
    ctx.gate.draining = True
    with pytest.raises(errors.Unavailable):
        await desk.create(DRAFT, request(1))
    with pytest.raises(errors.Unavailable):
        desk.check(DRAFT)


async def test_a_refused_plan_names_each_field_in_the_words_of_its_source():
    _, desk = await made()
    broken = filing.Draft(GOAL, (plan_task("T1", "T9"),))
    with pytest.raises(errors.Invalid) as refused:
        await desk.create(broken, request(1))
    assert [violation.field for violation in refused.value.violations] == [
        "goal.plan.tasks[0].depends_on[0]",
        "goal.assertions[0]",
    ]
    assert refused.value.reason == "PLAN_REFUSED"

    def in_file(violation: errors.Violation) -> errors.Violation:
        return errors.Violation(violation.field, f"line 3: {violation.description}")

    with pytest.raises(errors.Invalid) as refused:
        await desk.create(broken._replace(locate=in_file), request(1))
    assert refused.value.violations[0].field == "plan.tasks[0].depends_on[0]"
    assert refused.value.violations[0].description.startswith("line 3: ")
