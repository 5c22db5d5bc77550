"""The sweep: due times, timers, bounds, and that an idle hub writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hub.core.holding import Holding
from hub.core.task import State
from hub.engine.script import work
from tests.support.stage import Stage
from tests.unit.hub.test_dispatch import file_many


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage(sweep_batch=10)
    yield made
    await made.close()


async def test_an_idle_hub_sweeps_without_writing(stage: Stage) -> None:
    await stage.online("a1")
    before = stage.store.facts().writes
    for _ in range(5):
        session = stage.sessions.get("a1")
        assert session is not None
        stage.sessions.heard(session, 0)
        await stage.pass_time(29.0)
    assert stage.store.facts().writes == before


async def test_a_task_is_queued_when_its_start_time_has_come(stage: Stage) -> None:
    task = await stage.submit(start_at=stage.clock.now() + 50.0)
    await stage.pass_time(49.0)
    assert stage.state(task) is State.SCHEDULED
    stage.dispatcher.wake.clear()
    await stage.pass_time(1.0)
    assert stage.state(task) is State.QUEUED
    assert stage.dispatcher.wake.is_set()


async def test_a_queue_deadline_ends_what_waited_too_long(stage: Stage) -> None:
    task = await stage.submit(queue_deadline_at=stage.clock.now() + 20.0)
    await stage.pass_time(20.0)
    assert stage.state(task) is State.DEAD


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_hub_that_was_away_gives_a_lease_of_time_before_it_takes_back_what_is_late(
    stage: Stage, accepted: bool
) -> None:
    """Found by the simulator (seed 2060): work that ended while the hub was down was taken back and done again."""
    await stage.online("a1")
    task = await stage.submit(start_timeout_s=60.0, run_timeout_s=60.0)
    session = stage.sessions.get("a1")
    assert session is not None
    stage.sessions.heard(session, 1)
    if accepted:
        await stage.do(lambda txn: work.accept(txn, Holding(task, 1), "a1", stage.clock.now()))
    stage.clock.advance(100.0)
    stage.sessions.be_patient()  # as a hub that starts is
    await stage.pass_time(0.0)
    assert stage.state(task) is (State.RUNNING if accepted else State.ASSIGNED)
    stage.sessions.heard(session, 0)
    await stage.pass_time(stage.ctx.settings.lease_s - 1.0)
    assert stage.state(task) is (State.RUNNING if accepted else State.ASSIGNED)
    stage.sessions.heard(session, 0)
    await stage.pass_time(2.0)
    assert stage.state(task) is State.QUEUED
    attempt = stage.see(lambda reader: reader.attempt(task, 1))
    assert attempt is not None and attempt.failure is not None
    assert "TIMEOUT" in attempt.failure.reason


async def test_two_that_wait_for_each_other_and_pass_their_deadlines_together_end_together(stage: Stage) -> None:
    """Found by the simulator (seed 7655): the second had ended with the first, and the sweep broke down for ever."""
    at = stage.clock.now() + 20.0
    first = await stage.submit(queue_deadline_at=at)
    second = await stage.submit(queue_deadline_at=at, depends_on=(first,))
    await stage.pass_time(20.0)
    assert [stage.state(id) for id in (first, second)] == [State.DEAD, State.DEAD]


async def test_one_run_is_bounded_and_asks_for_the_next(stage: Stage) -> None:
    at = stage.clock.now() + 5.0
    tasks = await file_many(stage, 25, start_at=at)
    stage.sweep.wake.clear()
    await stage.pass_time(5.0)
    assert sum(stage.state(id) is State.QUEUED for id in tasks) == 10
    assert stage.sweep.wake.is_set()
    await stage.pass_time(0.0)
    stage.sweep.wake.clear()
    await stage.pass_time(0.0)
    assert {stage.state(id) for id in tasks} == {State.QUEUED}
    assert not stage.sweep.wake.is_set()


async def test_a_commit_that_brings_an_earlier_time_rings_the_sweep_in_time(stage: Stage) -> None:
    await file_many(stage, 1, start_at=stage.clock.now() + 3600.0)
    stage.sweep.wake.clear()
    await file_many(stage, 1, start_at=stage.clock.now() + 0.06)
    async with asyncio.timeout(10.0):
        await stage.sweep.wake.wait()


@pytest.mark.parametrize("hours", [2.0, -2.0])
async def test_a_clock_that_jumped_does_not_put_off_what_is_due_soon(stage: Stage, hours: float) -> None:
    await file_many(stage, 1, start_at=stage.clock.now() + 3600.0)
    stage.clock.jump(hours * 3600.0)
    stage.sweep.wake.clear()
    await file_many(stage, 1, start_at=stage.clock.now() + 0.06)
    async with asyncio.timeout(5.0):
        await stage.sweep.wake.wait()


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_clock_that_jumped_forward_takes_no_work_back_and_charges_nothing(stage: Stage, accepted: bool) -> None:
    """Deadlines of what is held are dates: they move with the clock. Found by `clock-jump`, seed 991869."""
    lease_s = stage.ctx.settings.lease_s

    async def pass_time(seconds: float, ack: int = 1) -> None:
        session = stage.sessions.get("a1")
        assert session is not None
        stage.sessions.heard(session, ack)
        await stage.pass_time(seconds)

    await stage.online("a1")
    for _ in range(3):  # until the hub has no patience left for those who are late
        await pass_time(lease_s / 2, ack=0)
    task = await stage.submit(start_timeout_s=60.0, run_timeout_s=60.0)
    if accepted:
        await stage.do(lambda txn: work.accept(txn, Holding(task, 1), "a1", stage.clock.now()))
    before = stage.state(task)
    stage.clock.jump(3600.0)
    await pass_time(0.0)
    await pass_time(10.0)
    assert stage.state(task) is before
    for _ in range(10):  # and they pass at their time all the same
        await pass_time(lease_s / 2)
    attempt = stage.see(lambda reader: reader.attempt(task, 1))
    assert attempt is not None and attempt.failure is not None
    assert attempt.failure.reason == ("TIMEOUT" if accepted else "START_TIMEOUT")
