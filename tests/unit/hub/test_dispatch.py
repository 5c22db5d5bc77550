"""The dispatcher on a memory store: slots, classes, spread, pauses, and that nothing leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from hub.core.holding import Holding
from hub.core.repo import Repo
from hub.core.task import Failure, Lane, Requirement, Result, State, Task
from hub.engine.live import dispatch
from hub.engine.script import queue, work
from hub.store.base import Txn
from kit import errors
from tests.support.stage import Stage, offer, spec


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


async def file_many(stage: Stage, count: int, **changes: Any) -> list[str]:
    """Tasks that wait: filed without looking for a slot."""
    contract, now = spec(**changes), stage.clock.now()
    ids = [stage.ctx.ids.new(now) for _ in range(count)]

    def write(txn: Txn) -> None:
        for id in ids:
            queue.submit(txn, id, contract, now, actor="test")

    await stage.do(write)
    return ids


async def test_a_submit_with_an_idle_slot_is_assigned_in_its_own_commit(stage: Stage) -> None:
    await stage.online("a1")
    before = stage.store.facts().commits
    task = await stage.submit()
    assert stage.state(task) is State.ASSIGNED
    assert stage.store.facts().commits == before + 1


async def test_no_slot_is_reserved_while_older_work_waits_for_it(stage: Stage) -> None:
    old = await stage.submit()
    await stage.online("a1")
    new = await stage.submit()
    assert (stage.state(old), stage.state(new)) == (State.QUEUED, State.QUEUED)
    await stage.dispatch()
    assert (stage.state(old), stage.state(new)) == (State.ASSIGNED, State.QUEUED)


async def test_after_the_queue_is_empty_submits_take_the_short_way_again(stage: Stage) -> None:
    waiting = await file_many(stage, 2)
    await stage.online("a1", slots=5)
    assert await stage.dispatch() == 2
    assert {stage.state(id) for id in waiting} == {State.ASSIGNED}
    assert stage.state(await stage.submit()) is State.ASSIGNED


async def test_twenty_tasks_spread_evenly_over_four_agents(stage: Stage) -> None:
    for name in ("a1", "a2", "a3", "a4"):
        await stage.online(name, slots=8)
    await file_many(stage, 20)
    assert await stage.dispatch() == 20
    shares = Counter(seat.agent for seat in stage.dispatcher.fleet for _ in seat.holdings)
    assert max(shares.values()) - min(shares.values()) <= 1
    assert len(shares) == 4


async def test_submits_spread_evenly_too(stage: Stage) -> None:
    for name in ("a1", "a2", "a3", "a4"):
        await stage.online(name, slots=8)
    for _ in range(20):
        await stage.submit()
    assert [seat.used for seat in stage.dispatcher.fleet] == [5, 5, 5, 5]


async def test_an_agent_gets_no_more_than_its_slots(stage: Stage) -> None:
    await stage.online("a1", slots=3)
    await file_many(stage, 10)
    assert await stage.dispatch() == 3
    assert len(stage.held("a1")) == 3


async def test_urgent_work_goes_first_whatever_class_it_is_in(stage: Stage) -> None:
    low = await file_many(stage, 3, lane=Lane.LOW)
    urgent = await file_many(stage, 1, lane=Lane.URGENT, capabilities=("git",))
    await stage.online("a1")
    await stage.dispatch()
    assert stage.state(urgent[0]) is State.ASSIGNED
    assert {stage.state(id) for id in low} == {State.QUEUED}


async def test_an_aged_task_overtakes_a_fresh_one_of_a_higher_lane(stage: Stage) -> None:
    (old,) = await file_many(stage, 1, lane=Lane.LOW)
    stage.clock.advance(3 * 600.0 + 1)
    (fresh,) = await file_many(stage, 1, lane=Lane.URGENT)
    await stage.online("a1")
    await stage.dispatch()
    assert (stage.state(old), stage.state(fresh)) == (State.ASSIGNED, State.QUEUED)


async def test_a_task_for_one_agent_only_waits_for_it(stage: Stage) -> None:
    await stage.online("a1")
    task = await stage.submit(agent="a2")
    assert await stage.dispatch() == 0
    await stage.online("a2")
    assert await stage.dispatch() == 1
    assert stage.task(task).agent == "a2"
    assert stage.state(await stage.submit()) is State.ASSIGNED  # a1 was not held up by it


async def test_a_task_for_one_idle_agent_is_assigned_in_its_own_commit(stage: Stage) -> None:
    await stage.online("a1")
    await stage.online("a2")
    assert stage.task(await stage.submit(agent="a2")).agent == "a2"
    assert stage.state(await stage.submit(agent="a2")) is State.QUEUED


async def test_a_failing_transaction_gives_the_slot_back(stage: Stage) -> None:
    await stage.online("a1")

    def broken(_txn: Txn) -> None:
        raise errors.Unavailable("no")

    agent = stage.dispatcher.reserve(Requirement())
    assert agent == "a1"
    assert stage.dispatcher.reserve(Requirement()) == ""
    with pytest.raises(errors.Unavailable):
        await stage.do(broken)
    stage.dispatcher.release(agent)
    assert stage.dispatcher.reserve(Requirement()) == "a1"


async def test_a_dispatch_that_fails_gives_all_its_slots_back(stage: Stage) -> None:
    await stage.online("a1", slots=4)
    await file_many(stage, 2)
    write = stage.store.write

    async def full(fn: Any, *, essential: bool = False) -> Any:
        raise errors.Exhausted("the store is full", reason="STORE_FULL")

    stage.store.write = full  # type: ignore[method-assign]  # put in the place of the real one
    assert await stage.dispatch() == 0
    seat = stage.dispatcher.fleet.seat("a1")
    assert seat.reserved == 0
    assert stage.dispatcher.prospects(seat, 1) is None  # reports bring no next task while the store takes none
    stage.store.write = write  # type: ignore[method-assign]  # put in the place of the real one
    assert await stage.dispatch() == 2


async def test_every_way_to_end_frees_its_slot(stage: Stage) -> None:
    await stage.online("a1", slots=4)
    now = stage.clock.now()
    done, failed, cancelled, lost = [Holding(await stage.submit(), 1) for _ in range(4)]
    assert stage.dispatcher.reserve(Requirement()) == ""
    red = Failure(reason="CHECK_FAILED")
    await stage.do(lambda txn: work.complete(txn, done, "a1", Result(), {}, now, roll=0.5))
    await stage.do(lambda txn: work.fail(txn, failed, "a1", red, now, roll=0.5))
    await stage.do(lambda txn: queue.cancel(txn, cancelled.task, now, actor="test"))
    await stage.do(lambda txn: work.lose(txn, lost, now, reason="X", message="x", agent_died=False, roll=0.5))
    assert stage.dispatcher.fleet.seat("a1").used == 0


async def test_a_claimed_task_fills_no_slot(stage: Stage) -> None:
    (task,) = await file_many(stage, 1)
    await stage.do(lambda txn: queue.claim(txn, task, "a1", 3600.0, stage.clock.now(), actor="person"))
    stream = await stage.online("a1")
    assert stage.dispatcher.fleet.seat("a1").used == 0
    assert stream.session.holds() == []
    await stage.dispatch()
    assert stage.state(await stage.submit()) is State.ASSIGNED
    assert stage.state(task) is State.RUNNING


async def test_a_paused_hub_assigns_nothing(stage: Stage) -> None:
    await stage.online("a1")
    await stage.do(lambda txn: _pause_hub(txn, True))
    task = await stage.submit()
    assert await stage.dispatch() == 0
    await stage.do(lambda txn: _pause_hub(txn, False))
    assert stage.dispatcher.wake.is_set()
    assert await stage.dispatch() == 1
    assert stage.state(task) is State.ASSIGNED


def _pause_hub(txn: Txn, paused: bool) -> None:
    txn.set_meta("paused", b"1" if paused else b"0")
    txn.append(0.0, "hub.paused" if paused else "hub.resumed", "hub")


async def test_a_pause_that_commits_before_a_decided_dispatch_stops_it(stage: Stage) -> None:
    await stage.online("a1")
    await file_many(stage, 1)
    seat = stage.dispatcher.fleet.seat("a1")
    plan = stage.dispatcher.prospects(seat, 1)
    assert plan is not None
    await stage.do(lambda txn: txn.set_meta("paused", b"1"))
    assert await stage.do(lambda txn: dispatch.take(txn, plan, 0.0, 600.0)) is dispatch.NOTHING


async def test_a_paused_repo_gets_nothing_and_holds_up_nobody(stage: Stage) -> None:
    await stage.do(lambda txn: txn.repos.put(Repo(id="r", url="/r")))
    await file_many(stage, 3, repo="r")
    await stage.do(lambda txn: _pause(txn, "r", True))
    await stage.online("a1", slots=8)
    assert await stage.dispatch() == 0
    assert stage.state(await stage.submit()) is State.ASSIGNED
    await stage.do(lambda txn: _pause(txn, "r", False))
    assert await stage.dispatch() == 3


def _pause(txn: Txn, id: str, paused: bool) -> None:
    repo = txn.repos.get(id)
    assert repo is not None
    txn.repos.put(msgspec.structs.replace(repo, paused=paused))
    txn.append(0.0, "repo.paused" if paused else "repo.resumed", f"repos/{id}")


async def test_a_repo_paused_after_the_decision_gets_nothing_either(stage: Stage) -> None:
    await stage.do(lambda txn: txn.repos.put(Repo(id="r", url="/r")))
    await file_many(stage, 1, repo="r")
    await stage.online("a1")
    plan = stage.dispatcher.prospects(stage.dispatcher.fleet.seat("a1"), 1)
    assert plan is not None
    await stage.do(lambda txn: txn.repos.put(Repo(id="r", url="/r", paused=True)))
    assert not (await stage.do(lambda txn: dispatch.take(txn, plan, 0.0, 600.0))).placed


async def test_an_agent_that_fails_its_self_test_gets_nothing(stage: Stage) -> None:
    await stage.online("a1", self_test=None)
    await file_many(stage, 1)
    assert await stage.dispatch() == 0


async def test_an_isolated_agent_gets_work_again_when_its_time_is_over(stage: Stage) -> None:
    await stage.online("a1")
    until = stage.clock.now() + 300.0
    await stage.do(lambda txn: _isolate(txn, "a1", until))
    await file_many(stage, 1)
    assert await stage.dispatch() == 0
    assert stage.dispatcher.fleet.next_due() == until
    stage.clock.advance(300.0)
    assert await stage.dispatch() == 1


def _isolate(txn: Txn, id: str, until: float) -> None:
    agent = txn.agents.get(id)
    assert agent is not None
    txn.agents.put(msgspec.structs.replace(agent, isolated_until=until))
    txn.append(0.0, "agent.isolated", f"agents/{id}")


async def test_a_task_goes_to_who_has_not_refused_it_and_only_then_back(stage: Stage) -> None:
    await stage.online("a1", slots=2)
    (task,) = await file_many(stage, 1)
    await stage.do(lambda txn: _refused(txn, task, ("a1",)))
    behind = await file_many(stage, 1)
    await stage.online("a2")
    other = (await file_many(stage, 1))[0]
    await stage.dispatch()
    assert stage.task(task).agent == "a2"
    assert stage.task(behind[0]).agent == "a1"
    assert stage.task(other).agent == "a1"


async def test_a_refused_task_goes_back_at_once_when_no_other_agent_fits(stage: Stage) -> None:
    await stage.online("a1")
    (task,) = await file_many(stage, 1)
    await stage.do(lambda txn: _refused(txn, task, ("a1",)))
    assert await stage.dispatch() == 1
    assert stage.task(task).agent == "a1"


async def test_a_refused_task_waits_a_while_for_a_busy_agent_that_fits(stage: Stage) -> None:
    await stage.online("a1")
    await stage.online("a2")
    busy = await stage.submit(agent="a2")
    (task,) = await file_many(stage, 1)
    await stage.do(lambda txn: _refused(txn, task, ("a1",)))
    assert await stage.dispatch() == 0
    stage.clock.advance(dispatch.PATIENCE_S)
    assert await stage.dispatch() == 1
    assert (stage.task(task).agent, stage.task(busy).agent) == ("a1", "a2")


def _refused(txn: Txn, id: str, refused_by: tuple[str, ...]) -> Task:
    task = txn.task(id)
    assert task is not None
    after = msgspec.structs.replace(task, refused_by=refused_by)
    txn.put_task(after, task)
    return after


async def test_a_head_that_all_refused_does_not_livelock_those_behind_it(stage: Stage) -> None:
    await stage.online("a1")
    await stage.online("a2")
    await stage.submit(agent="a2")
    heads = await file_many(stage, 5)
    for id in heads:
        await stage.do(lambda txn, id=id: _refused(txn, id, ("a1",)))  # type: ignore[misc]  # mypy types no default of a lambda
    behind = await file_many(stage, 1)
    assert await stage.dispatch() == 1
    assert stage.task(behind[0]).agent == "a1"


async def test_dispatch_looks_only_where_an_idle_agent_can_serve(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        await file_many(stage, 1, capabilities=(f"rare-{number}",))
    mine = await file_many(stage, 2)
    await stage.online("a1")
    looked: list[int] = []
    heads = dispatch._heads

    def watched(txn: Txn, looks: Any, depth: int, step: float) -> Any:
        looked.extend(look.class_id for look in looks)
        return heads(txn, looks, depth, step)

    monkeypatch.setattr(dispatch, "_heads", watched)
    assert await stage.dispatch() == 1
    assert set(looked) == {stage.task(mine[0]).class_id}


async def test_with_more_servable_classes_than_are_looked_at_the_best_are_served_first(stage: Stage) -> None:
    names = [f"c{number}" for number in range(100)]
    first = await file_many(stage, 1, capabilities=("c0",))
    for name in names[1:]:
        stage.clock.advance(1.0)
        await file_many(stage, 1, capabilities=(name,))
    await stage.online("a1", offer=offer(capabilities=frozenset(names), slots=100))
    assert await stage.dispatch() == 100
    assert stage.state(first[0]) is State.ASSIGNED


async def test_a_hub_that_starts_finds_what_waits_and_what_is_held(stage: Stage) -> None:
    await stage.online("a1")
    held = await stage.submit()
    waiting = await file_many(stage, 3)
    again = Stage(stage.store)
    assert again.dispatcher.fleet.seat("a1").used == 1
    assert not again.dispatcher.fleet.seat("a1").online
    await again.online("a2", slots=5)
    assert await again.dispatch() == 3
    assert {again.task(id).agent for id in waiting} == {"a2"}
    assert again.task(held).agent == "a1"


async def test_the_sweep_heals_a_lost_hint(stage: Stage) -> None:
    waiting = await file_many(stage, 1)
    await stage.online("a1")
    stage.dispatcher.waiting._leave(stage.task(waiting[0]).class_id)
    assert await stage.dispatch() == 0
    await stage.pass_time(30.0)
    stage.sessions.heard((await stage.online("a1")).session, 0)
    assert await stage.dispatch() == 1


async def test_the_sweep_heals_a_wrong_count_of_slots(stage: Stage) -> None:
    await stage.online("a1")
    task = await stage.submit()
    seat = stage.dispatcher.fleet.seat("a1")
    seat.holdings.clear()
    stage.dispatcher.fleet.recount("a1")
    assert list(seat.holdings) == [task]


async def test_a_changed_offer_changes_what_an_agent_gets(stage: Stage) -> None:
    task = await stage.submit(capabilities=("gpu",))
    await stage.online("a1")
    assert await stage.dispatch() == 0
    await stage.online("a1", offer=offer(capabilities=frozenset({"gpu"})))
    assert await stage.dispatch() == 1
    assert stage.task(task).agent == "a1"


async def test_a_commit_wakes_the_dispatcher_only_when_it_queued_something(stage: Stage) -> None:
    await stage.online("a1")
    stage.dispatcher.wake.clear()
    await stage.submit()  # assigned at once
    assert not stage.dispatcher.wake.is_set()
    await stage.submit()  # waits
    assert stage.dispatcher.wake.is_set()
