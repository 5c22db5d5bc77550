"""The bus: followers read the log at their own pace, and listeners cannot harm the writers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from hub.core.event import Event
from hub.engine.live import bus as buses
from hub.store.base import Txn
from kit import errors
from tests.support.stage import Stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


async def tell(stage: Stage, count: int, type: str = "hub.started") -> None:
    def write(txn: Txn) -> None:
        for _ in range(count):
            txn.append(1.0, type, "hub")

    await stage.do(write)


async def test_a_follower_gets_what_was_and_what_comes(stage: Stage) -> None:
    await tell(stage, 3)
    async with contextlib.aclosing(stage.ctx.bus.follow(1)) as batches:
        assert [event.position for event in (await anext(batches)).events] == [2, 3]
        following = asyncio.ensure_future(anext(batches))
        await tell(stage, 1)
        batch = await following
        assert ([event.position for event in batch.events], batch.position) == ([4], 4)


async def test_a_follower_at_the_head_is_told_at_once_where_it_is(stage: Stage) -> None:
    await tell(stage, 2)
    async with contextlib.aclosing(stage.ctx.bus.follow(2)) as batches:
        assert await anext(batches) == buses.Batch([], 2)


async def test_a_position_ahead_of_the_log_is_refused(stage: Stage) -> None:
    with pytest.raises(errors.Invalid) as caught:
        await anext(stage.ctx.bus.follow(5))
    assert caught.value.violations[0].field == "position"


async def test_unwanted_events_only_move_the_position_on(stage: Stage) -> None:
    await tell(stage, 2 * buses.PROGRESS_EVENTS)
    async with contextlib.aclosing(stage.ctx.bus.follow(0, lambda event: False)) as batches:
        first, second = await anext(batches), await anext(batches)
    assert first.events == second.events == []
    assert 0 < first.position < second.position <= 2 * buses.PROGRESS_EVENTS


async def test_an_idle_follower_is_told_the_position_now_and_then(stage: Stage) -> None:
    async with contextlib.aclosing(stage.ctx.bus.follow(0, progress_s=0.001)) as batches:
        assert [(await anext(batches)).position for _ in range(3)] == [0, 0, 0]


async def test_a_follower_far_behind_reads_in_bounded_chunks_and_misses_nothing(stage: Stage) -> None:
    await tell(stage, buses.RING + 500)
    seen: list[int] = []
    async with contextlib.aclosing(stage.ctx.bus.follow(0)) as batches:
        while len(seen) < buses.RING + 500:
            batch = await anext(batches)
            assert len(batch.events) <= buses.CHUNK
            seen += [event.position for event in batch.events]
    assert seen == list(range(1, buses.RING + 501))


async def test_the_ring_and_the_log_tell_the_same(stage: Stage) -> None:
    await tell(stage, 300)
    from_ring = stage.ctx.bus._read(10)
    stage.ctx.bus._ring.clear()
    assert stage.ctx.bus._read(10) == from_ring


async def test_a_listener_that_fails_fails_nobody_else(stage: Stage) -> None:
    heard: list[int] = []

    def broken(_events: Sequence[Event]) -> None:
        raise RuntimeError("mine alone")

    stage.ctx.bus.listen(broken)
    stage.ctx.bus.listen(lambda events: heard.append(len(events)))
    await tell(stage, 2)
    assert heard[-1] == 2


async def test_closing_ends_every_follower_with_a_word_to_come_back(stage: Stage) -> None:
    async with contextlib.aclosing(stage.ctx.bus.follow(0)) as batches:
        await anext(batches)
        following = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        stage.ctx.bus.close()
        with pytest.raises(errors.Unavailable):
            await following


async def test_the_figures_and_the_gate_follow_the_log(stage: Stage) -> None:
    await stage.online("a1")
    await stage.submit()
    assert (stage.ctx.figures.submitted, stage.ctx.figures.assigned) == (1, 1)
    await tell(stage, 1, "hub.paused")
    assert not stage.ctx.gate.open
    await tell(stage, 1, "hub.resumed")
    assert stage.ctx.gate.open
    await tell(stage, 1, "hub.draining")
    assert not stage.ctx.gate.open
