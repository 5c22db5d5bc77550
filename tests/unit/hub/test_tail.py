"""Live output: only while somebody watches, bounded for each watcher."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from hub.core.attach import LogChunk
from hub.core.holding import Holding
from hub.engine.live import tail as tails
from hub.engine.script import queue
from kit import errors
from tests.support.stage import Stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


async def watching(pieces: AsyncIterator[tails.Piece]) -> asyncio.Future[tails.Piece]:
    """A watcher that has begun to wait."""
    future = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0)
    return future


async def test_the_agent_is_asked_while_somebody_watches_and_not_longer(stage: Stage) -> None:
    await stage.online("a1")
    holding = Holding(await stage.submit(), 1)
    async with contextlib.aclosing(stage.tails.follow(holding.task)) as one:
        first = await watching(one)
        assert stage.sessions.watched == {holding}
        async with contextlib.aclosing(stage.tails.follow(holding.task)) as two:
            second = await watching(two)
            stage.tails.push(LogChunk(holding, "x"))
            assert (await first).text == (await second).text == "x"
        assert stage.sessions.watched == {holding}
    assert stage.sessions.watched == set()


async def test_a_task_that_waits_is_watched_from_its_assignment_on(stage: Stage) -> None:
    task = await stage.submit()
    async with contextlib.aclosing(stage.tails.follow(task)) as pieces:
        piece = await watching(pieces)
        assert stage.sessions.watched == set()
        await stage.online("a1")
        await stage.dispatch()
        assert stage.sessions.watched == {Holding(task, 1)}
        await stage.do(lambda txn: queue.cancel(txn, task, stage.clock.now(), actor="test"))
        assert (await piece).end


async def test_a_slow_watcher_loses_the_oldest_output_and_is_told_how_much(stage: Stage) -> None:
    await stage.online("a1")
    holding = Holding(await stage.submit(), 1)
    async with contextlib.aclosing(stage.tails.follow(holding.task)) as pieces:
        first = await watching(pieces)
        stage.tails.push(LogChunk(holding, "first"))
        await first
        for _ in range(6):
            stage.tails.push(LogChunk(holding, "x" * 65_536))
        piece = await anext(pieces)
        assert piece.dropped_bytes == 2 * 65_536
        assert (await anext(pieces)).dropped_bytes == 0


async def test_output_that_nobody_watches_is_dropped(stage: Stage) -> None:
    stage.tails.push(LogChunk(Holding("0" * 20, 1), "x"))


async def test_a_task_that_has_ended_has_no_output(stage: Stage) -> None:
    task = await stage.submit()
    await stage.do(lambda txn: queue.cancel(txn, task, stage.clock.now(), actor="test"))
    with pytest.raises(errors.IllegalState):
        await anext(stage.tails.follow(task))
    with pytest.raises(errors.NotFound):
        await anext(stage.tails.follow("0" * 20))


async def test_too_many_watchers_are_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "WATCHERS_MAX", 1)
    task = await stage.submit()
    async with contextlib.aclosing(stage.tails.follow(task)) as pieces:
        waiting = await watching(pieces)
        with pytest.raises(errors.Exhausted):
            await anext(stage.tails.follow(task))
        stage.tails.close()
        with pytest.raises(errors.Unavailable):
            await waiting
