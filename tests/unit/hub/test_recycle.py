"""Classes of requirements that no task has any more: freed in small steps, and given away without harm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.core.task import State
from hub.engine.live import recycle
from hub.engine.live.recycle import Done, Recycler
from hub.engine.live.retention import Keep, Retention
from hub.engine.script import queue
from hub.store.lmdb import LmdbStore
from hub.store.memory import MemoryStore
from kit import errors
from tests.support import hub as hubs
from tests.support.stage import Stage, offer

BOUND = 6


@pytest.fixture(params=["memory", "lmdb"])
async def stage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    monkeypatch.setattr("hub.store.txn.CLASS_COUNT_MAX", BOUND)
    monkeypatch.setattr(recycle, "BEGIN_AT", BOUND)
    monkeypatch.setattr(recycle, "TASKS_BATCH", 2)
    store = MemoryStore.open(rehearse=True) if request.param == "memory" else LmdbStore.open(tmp_path / "store")
    made = Stage(store)
    yield made
    await made.close()


def recycler(stage: Stage) -> Recycler:
    made = Recycler(stage.ctx)
    made.on_free = stage.dispatcher.waiting.drop_idle
    return made


async def run(one: Recycler) -> tuple[int, int]:
    """Every step of one look: how many classes are free now, and how many steps there were."""
    steps = 1
    while (done := await one.step()).more:
        steps += 1
    return done.forgotten, steps


async def gone(stage: Stage, *ids: str) -> None:
    """What retention does with tasks that ended long ago."""
    now = stage.clock.now()
    for id in ids:
        await stage.do(lambda txn, id=id: queue.cancel(txn, id, now, actor="test"))  # type: ignore[misc]  # mypy types no default of a lambda
        await stage.do(lambda txn, id=id: queue.delete(txn, id, now, actor="test"))  # type: ignore[misc]  # mypy types no default of a lambda


async def test_invented_requirements_do_not_shut_the_hub_for_ever(stage: Stage) -> None:
    ids = [await stage.submit(capabilities=(f"invented-{n}",)) for n in range(BOUND)]
    with pytest.raises(errors.Exhausted):
        await stage.submit(capabilities=("one-more",))
    one = recycler(stage)
    await gone(stage, *ids[:4])
    assert await run(one) == (4, 2), "two tasks a step"
    for n in range(4):
        await stage.submit(capabilities=(f"later-{n}",))
    with pytest.raises(errors.Exhausted):
        await stage.submit(capabilities=("one-more",))
    assert await one.step() == Done(0, False), "it looks again after a while"


async def test_what_gets_the_number_of_another_class_is_given_to_who_fits(stage: Stage) -> None:
    ids = [await stage.submit(capabilities=(f"c{n}",)) for n in range(BOUND)]
    old = await stage.online("old", offer=offer(capabilities=frozenset({"c0"}), slots=9))
    assert old is not None
    await stage.dispatch()
    assert stage.state(ids[0]) is State.ASSIGNED, "its class was looked at"
    number = stage.task(ids[0]).class_id
    await gone(stage, ids[0])
    assert (await run(recycler(stage)))[0] == 1
    new = await stage.submit(capabilities=("new",))
    assert stage.task(new).class_id == number
    await stage.dispatch()
    assert stage.state(new) is State.QUEUED, "the agent of the class before does not have what it takes"
    await stage.online("fits", offer=offer(capabilities=frozenset({"new"})))
    await stage.dispatch()
    assert stage.task(new).agent == "fits"


async def test_a_class_that_nobody_has_looked_at_since_is_not_taken_for_what_it_was(stage: Stage) -> None:
    ids = [await stage.submit(capabilities=(f"c{n}",)) for n in range(BOUND)]
    await gone(stage, ids[0])  # the dispatcher still thinks that something may wait in its class
    assert (await run(recycler(stage)))[0] == 1
    new = await stage.submit(capabilities=("new",))
    await stage.online("old", offer=offer(capabilities=frozenset({"c0"})))
    await stage.dispatch()
    assert stage.state(new) is State.QUEUED
    await stage.online("fits", offer=offer(capabilities=frozenset({"new"})))
    await stage.dispatch()
    assert stage.task(new).agent == "fits"


async def test_a_task_that_comes_during_the_look_keeps_its_class(stage: Stage) -> None:
    ids = [await stage.submit(capabilities=(f"c{n}",)) for n in range(BOUND)]
    await gone(stage, ids[0], ids[1])
    one = recycler(stage)
    assert (await one.step()).more
    again = await stage.submit(capabilities=("c0",))
    done = await one.step()
    while done.more:
        done = await one.step()
    assert done.forgotten == 1
    new = await stage.submit(capabilities=("new",))
    assert stage.task(new).class_id != stage.task(again).class_id


async def test_a_hub_with_few_classes_looks_at_nothing(stage: Stage) -> None:
    await stage.submit(capabilities=("c",))
    position = stage.see(lambda reader: reader.position())
    assert await recycler(stage).step() == Done(0, False)
    assert stage.see(lambda reader: reader.position()) == position


async def test_it_is_a_duty_of_the_retention(stage: Stage) -> None:
    ids = [await stage.submit(capabilities=(f"c{n}",)) for n in range(BOUND)]
    await gone(stage, ids[0])
    await Retention(stage.ctx, Keep(settle_s=0.0)).run_once(stage.clock.now())
    await stage.submit(capabilities=("new",))


async def test_a_hub_lets_its_dispatcher_know(tmp_path: Path) -> None:
    async with hubs.running(tmp_path) as caller:
        assert caller.hub.retention.recycler.on_free == caller.hub.dispatcher.waiting.drop_idle
