"""The loop of retention: what goes when, in how large steps, and that a clock that is wrong costs nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.core.holding import Holding
from hub.core.task import Result, State, Task
from hub.engine.live import retention
from hub.engine.live.bus import Batch
from hub.engine.live.retention import Keep, Retention
from hub.engine.script import queue, work
from hub.store.base import Answer
from kit import errors
from tests.support.stage import Stage

KEEP = Keep(
    tasks_s=100, dead_s=300, goals_s=200, artifacts_s=50, tokens_s=100, events_s=1000, events_max=100_000, settle_s=0
)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


async def cancelled(stage, count, artifact=b""):
    """Tasks that have just ended."""
    ids = []
    for _ in range(count):
        id = await stage.submit()
        await stage.do(lambda txn, id=id: queue.cancel(txn, id, stage.clock.now(), actor="me"))
        if artifact:
            await stage.do(lambda txn, id=id: txn.put_artifact(id, 1, "log", artifact))
        ids.append(id)
    return ids


def left(stage: Stage) -> list[Task]:
    return stage.see(lambda reader: reader.tasks(limit=9999))


async def test_each_sort_goes_at_its_own_age(stage: Stage):
    (task,) = await cancelled(stage, 1, b"x")
    dead = await stage.submit(queue_deadline_at=stage.clock.now() + 1)
    await stage.pass_time(1.0)
    assert stage.state(dead) is State.DEAD
    keeper = Retention(stage.ctx, KEEP)

    async def after(seconds: float) -> tuple[int, bool, int]:
        stage.clock.advance(seconds)
        await keeper.run_once(stage.clock.now())
        has = stage.see(lambda reader: reader.artifact(task, 1, "log")) is not None
        return len(left(stage)), has, stage.see(lambda reader: reader.position_gone())

    assert await after(48.9) == (2, True, 0)
    assert await after(0.2) == (2, False, 0)
    assert await after(49.8) == (2, False, 0)
    assert await after(0.2) == (1, False, 0)
    assert await after(199.8) == (1, False, 0)
    assert await after(1.2) == (0, False, 0)
    assert (await after(2000))[2] > 0
    assert stage.store.verify_chain() == stage.see(lambda reader: reader.position())


async def test_an_idle_hub_writes_nothing(stage: Stage):
    await cancelled(stage, 3)
    keeper = Retention(stage.ctx, KEEP)
    for _ in range(3):  # what it says of its own deeds grows old, too; the newest event stays
        stage.clock.advance(5000)
        await keeper.run_once(stage.clock.now())
    before = stage.store.facts().writes
    for _ in range(5):
        stage.clock.advance(5000)
        assert await keeper.run_once(stage.clock.now()) == 0
    assert stage.store.facts().writes == before


async def test_a_run_is_bounded_and_asks_for_the_next(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retention, "ROUND_BATCHES", 2)
    monkeypatch.setattr(retention, "TASKS_BATCH", 5)
    await cancelled(stage, 25)
    keeper = Retention(stage.ctx, KEEP)
    stage.clock.advance(101)
    writes = stage.store.facts().writes
    assert await keeper.run_once(stage.clock.now()) >= 10
    assert len(left(stage)) == 15
    assert stage.store.facts().writes - writes <= 2 * 3
    assert keeper.wake.is_set()
    await keeper.run_once(stage.clock.now())
    keeper.wake.clear()
    await keeper.run_once(stage.clock.now())
    assert left(stage) == []
    assert not keeper.wake.is_set()


async def test_it_rests_long_until_it_falls_behind(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retention, "ROUND_BATCHES", 1)
    monkeypatch.setattr(retention, "TASKS_BATCH", 1)
    monkeypatch.setattr(retention, "BEHIND_RUNS", 3)
    await cancelled(stage, 5)
    keeper = Retention(stage.ctx, KEEP)
    stage.clock.advance(101)
    rests = []
    for _ in range(6):
        rests.append(keeper._rest_s(0.01))
        await keeper.run_once(stage.clock.now())
    assert rests == pytest.approx([0.04, 0.04, 0.04, 0.01, 0.01, 0.01])
    assert left(stage) == []
    assert keeper._rest_s(0.01) == pytest.approx(0.04)
    assert (keeper._rest_s(0.0), keeper._rest_s(10.0)) == (retention.REST_S_MIN, retention.REST_S_MAX)


async def test_what_is_needed_is_looked_at_again_later(stage: Stage):
    needed = await stage.submit()
    waiting = await stage.submit(depends_on=(needed,), start_at=stage.clock.now() + 10_000)
    await stage.do(lambda txn: queue.cancel(txn, waiting, stage.clock.now(), actor="me"))
    # Retried, it waits; the one that it needs has ended.
    await stage.do(lambda txn: queue.revive(txn, waiting, stage.clock.now(), actor="me"))
    stage.clock.advance(1)
    await _succeed(stage, needed)
    keeper = Retention(stage.ctx, KEEP)
    stage.clock.advance(101)
    assert await keeper.run_once(stage.clock.now()) == 0
    await stage.do(lambda txn: queue.cancel(txn, waiting, stage.clock.now(), actor="me"))
    await stage.do(lambda txn: queue.delete(txn, waiting, stage.clock.now(), actor="me"))
    await keeper.run_once(stage.clock.now())
    assert [task.id for task in left(stage)] == [needed], "it was passed over"
    stage.clock.advance(KEEP.again_s)
    await keeper.run_once(stage.clock.now())
    assert left(stage) == []


async def _succeed(stage: Stage, id: str) -> None:
    now = stage.clock.now()
    placed = await stage.do(lambda txn: queue.assign(txn, id, "a", now))
    assert placed is not None
    holding = Holding(id, placed.task.generation)
    await stage.do(lambda txn: work.complete(txn, holding, "a", Result(summary="done"), {}, now, roll=0.5))


async def test_a_clock_that_jumps_forward_makes_nothing_old_until_it_has_settled(stage: Stage):
    await cancelled(stage, 3)
    keeper = Retention(stage.ctx, Keep(settle_s=600))
    stage.clock.advance(601)
    assert await keeper.run_once(stage.clock.now()) == 0
    stage.clock.jump(10 * 365 * 86_400)
    assert await keeper.run_once(stage.clock.now()) == 0
    stage.clock.advance(599)
    assert await keeper.run_once(stage.clock.now()) == 0
    stage.clock.jump(-10 * 365 * 86_400)  # somebody sets it right
    stage.clock.advance(2)
    assert await keeper.run_once(stage.clock.now()) == 0
    stage.clock.advance(601)
    assert await keeper.run_once(stage.clock.now()) == 0
    assert len(left(stage)) == 3
    stage.clock.advance(40 * 86_400)
    assert await keeper.run_once(stage.clock.now()) > 0


async def test_nothing_is_forgotten_right_after_a_start(stage: Stage):
    """The machine may have started with a wrong clock, which is set right within minutes."""
    await cancelled(stage, 3)
    stage.clock.advance(10 * 365 * 86_400)
    keeper = Retention(stage.ctx, Keep(settle_s=600))
    assert await keeper.run_once(stage.clock.now()) == 0
    stage.clock.advance(600)
    assert await keeper.run_once(stage.clock.now()) > 0


async def test_answers_go_as_fast_as_they_come(stage: Stage):
    """They came by the thousand a second and went by the thousand in ten minutes."""
    now = stage.clock.now()

    def many(txn: Any) -> None:
        for number in range(3_000):
            txn.put_answer("p", "m", str(number), Answer(b"f", "tasks/x", now + 10))

    await stage.do(many)
    keeper = Retention(stage.ctx, KEEP)
    stage.clock.advance(9)
    assert await keeper.run_once(stage.clock.now()) == 0
    stage.clock.advance(2)
    await keeper.run_once(stage.clock.now())
    assert stage.see(lambda reader: reader.answer("p", "m", "2999")) is None
    assert not stage.see(lambda reader: reader.answer_passed(stage.clock.now()))


# Watches


async def told(stage: Stage, position: int) -> list[int]:
    async with contextlib.aclosing(stage.ctx.bus.follow(position)) as batches:
        batch: Batch = await anext(batches)
        return [event.position for event in batch.events]


async def drop(stage: Stage, keep: int) -> None:
    while await stage.do(lambda txn: txn.drop_events(before=0.0, keep=keep, limit=1000)):
        pass
    stage.ctx.bus._ring.clear()  # as after a restart: what is in memory is not gone yet


async def test_a_watch_from_the_beginning_starts_at_the_oldest_that_is_kept(stage: Stage):
    await cancelled(stage, 5)
    assert stage.ctx.bus.oldest() == 1
    assert stage.ctx.bus.start(-1) == 0
    await drop(stage, 3)
    assert stage.ctx.bus.oldest() == 8
    assert stage.ctx.bus.start(-1) == 7
    assert await told(stage, stage.ctx.bus.start(-1)) == [8, 9, 10]
    assert await told(stage, 8) == [9, 10]
    assert await told(stage, stage.ctx.bus.start(0)) == []


async def test_a_watch_from_a_position_that_is_gone_is_refused(stage: Stage):
    await cancelled(stage, 5)
    await drop(stage, 3)
    with pytest.raises(errors.OutOfRange) as caught:
        await told(stage, 6)
    assert caught.value.reason == "POSITION_GONE"
    assert caught.value.metadata == {"position": "6", "oldest": "8"}


async def test_a_slow_watch_that_is_overtaken_is_told_and_skips_nothing(stage: Stage):
    await cancelled(stage, 300)
    stage.ctx.bus._ring.clear()
    async with contextlib.aclosing(stage.ctx.bus.follow(0)) as batches:
        first = await anext(batches)
        assert first.position < 600
        await drop(stage, 3)
        with pytest.raises(errors.OutOfRange):
            await anext(batches)
