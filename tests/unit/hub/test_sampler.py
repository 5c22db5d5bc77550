"""What GetHistory tells: counts from events, looks every few seconds, and the log of the time before a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hub.core import attach
from hub.core.attach import Report
from hub.core.event import EVENT_TYPES
from hub.core.holding import Holding
from hub.core.sample import Count
from hub.core.task import Lane
from hub.engine.desk import sampler as module
from hub.engine.desk import stats
from hub.engine.desk.sampler import Sampler
from hub.engine.live.context import Context
from hub.engine.live.session import Sequenced
from tests.support.stage import DONE, Stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    made.clock.advance(60 - made.clock.now() % 60)  # a full minute
    yield made
    await made.close()


def sampler_of(stage, ctx: Context | None = None):
    return Sampler(ctx or stage.ctx, lambda: stats.collect(stage.ctx, stage.dispatcher.fleet, lambda: 0))


def after_restart(stage):
    """A sampler of the next process, over the same store."""
    return sampler_of(stage, Context.make(stage.store, stage.clock, stage.ctx.rng))


async def look(stage, sampler, rounds=2):
    """Looks ten seconds apart."""
    for _ in range(rounds):
        await sampler.run_once(stage.clock.now())
        stage.clock.advance(module.LOOK_S)


async def read_back(stage, sampler):
    """Run until nothing is left to be read."""
    await look(stage, sampler)
    while sampler.wake.is_set():
        sampler.wake.clear()
        await sampler.run_once(stage.clock.now())


async def works(stage, task, *outcomes):
    """What its agent says of a task arrives and is applied."""
    stream = stage.sessions.get("a1").stream
    for outcome in outcomes:
        report = Report(Holding(task, stage.task(task).generation), outcome)
        await stream.session.receive(stream, Sequenced(stream.session.inbox.applied + 1, report))
    await stream.reports.put(None)
    await stage.worker.pump(stream)


def of(sampler, what, *, hours=False):
    return sum(one.counts[what] for one in sampler.of(hours=hours, count=720))


def test_the_events_that_are_counted_are_in_the_catalogue():
    assert {*module._COUNTED, *module._ENDS} <= set(EVENT_TYPES)


async def test_a_task_is_in_the_history_from_its_filing_to_its_end(stage):
    sampler = sampler_of(stage)
    task = await stage.submit(lane=Lane.HIGH)
    await look(stage, sampler, 1)
    await stage.online("a1")
    await stage.dispatch()
    await works(stage, task, attach.Accepted())
    stage.clock.advance(7)
    await works(stage, task, DONE)
    await look(stage, sampler, 1)
    (one,) = sampler.of(hours=False, count=60)
    assert [one.counts[what] for what in (Count.SUBMITTED, Count.ASSIGNED, Count.SUCCEEDED, Count.FAILED)] == [
        1,
        1,
        1,
        0,
    ]
    assert one.waiting == {Lane.HIGH: 1}
    assert one.wait is not None
    assert one.wait.max_s == pytest.approx(module.LOOK_S)
    assert one.run is not None
    assert (one.run.samples, one.run.max_s) == (1, pytest.approx(7.0))
    (hour,) = sampler.of(hours=True, count=24)
    assert hour.counts == one.counts


async def test_after_a_restart_what_was_counted_is_known_again_and_what_was_seen_is_not(stage):
    first = sampler_of(stage)
    for _ in range(3):
        await stage.submit()
    await look(stage, first)
    stage.clock.advance(300)
    again = after_restart(stage)
    assert of(again, Count.SUBMITTED) == 0
    await read_back(stage, again)
    old, new = again.of(hours=False, count=60)
    assert (old.counts[Count.SUBMITTED], old.observed, dict(old.waiting)) == (3, False, {})
    assert new.observed
    assert of(again, Count.SUBMITTED, hours=True) == 3


async def test_what_is_read_back_is_counted_once_also_when_work_goes_on(stage, monkeypatch):
    monkeypatch.setattr(module, "REREAD_SLICE", 3)
    sampler = sampler_of(stage)
    for _ in range(8):
        await stage.submit()
    again = after_restart(stage)
    await look(stage, again)
    await stage.submit()
    await read_back(stage, again)
    assert of(again, Count.SUBMITTED) == of(sampler, Count.SUBMITTED) == 9


async def test_of_a_long_log_the_end_is_read_and_the_minute_that_is_cut_is_given_up(stage, monkeypatch):
    monkeypatch.setattr(module, "REREAD_SLICE", 2)
    monkeypatch.setattr(module, "REREAD_MAX", 10)
    for _ in range(6):
        for _ in range(3):
            await stage.submit()
        stage.clock.advance(60)
    again = after_restart(stage)
    await read_back(stage, again)
    filed = [one.counts[Count.SUBMITTED] for one in again.of(hours=False, count=60) if not one.observed]
    assert filed
    assert set(filed) == {3}  # whole minutes only
    assert len(filed) < 6


async def test_of_a_log_whose_beginning_is_gone_nothing_is_counted_twice(stage, monkeypatch):
    monkeypatch.setattr(module, "REREAD_SLICE", 4)
    for _ in range(3):
        for _ in range(3):
            await stage.submit()
        stage.clock.advance(60)
    await stage.do(lambda txn: txn.drop_events(before=stage.clock.now(), keep=1000, limit=2))
    again = after_restart(stage)
    await read_back(stage, again)
    assert [one.counts[Count.SUBMITTED] for one in again.of(hours=False, count=60) if not one.observed] == [3, 3]


async def test_a_store_that_may_only_be_read_is_not_read_back(stage):
    await stage.submit()
    stage.clock.advance(300)
    again = after_restart(stage)
    again._ctx.gate.damage = "it is broken"
    await read_back(stage, again)
    assert of(again, Count.SUBMITTED) == 0


async def test_begun_attempts_are_remembered_up_to_a_bound(stage, monkeypatch):
    monkeypatch.setattr(module, "RUNNING_MAX", 1)
    sampler = sampler_of(stage)
    await stage.online("a1", slots=2)
    tasks = [await stage.submit(), await stage.submit()]
    for task in tasks:
        await works(stage, task, attach.Accepted())
    assert len(sampler._began) == 1
