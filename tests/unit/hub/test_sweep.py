"""The sweep: due times, timers, bounds, and that an idle hub writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hub.core.task import State
from hub.store.base import Answer
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


async def test_answers_whose_window_has_passed_are_forgotten(stage: Stage) -> None:
    answer = Answer(b"f", "tasks/x", stage.clock.now() + 500.0)
    await stage.do(lambda txn: txn.put_answer("p", "m", "r", answer))
    for _ in range(10):
        await stage.pass_time(55.0)
    assert stage.see(lambda reader: reader.answer("p", "m", "r")) is not None
    await stage.pass_time(55.0)
    assert stage.see(lambda reader: reader.answer("p", "m", "r")) is None
