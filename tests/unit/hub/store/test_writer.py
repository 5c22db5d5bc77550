"""The writer over an environment that fails on purpose: what callers and listeners hear."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from hub.store import front, migrate
from hub.store.memory import MemoryOrdered
from hub.store.reader import Classes, OrderedReader
from kit import errors


class Full(Exception):
    """The map is full."""


class Scripted:
    """An environment whose next commits fail as told, over a map in memory."""

    full_errors: tuple[type[BaseException], ...] = (Full,)
    damage_errors: tuple[type[BaseException], ...] = ()

    def __init__(self) -> None:
        self.kv = MemoryOrdered()
        migrate.bring(self.kv)
        self.faults: list[Exception | None] = []
        self.lies = False
        self.room = True
        self.growths = 0
        self.sizes: list[int] = []
        self._undo: list[tuple[bytes, bytes | None]] = []

    def begin(self) -> MemoryOrdered:
        self._before = (dict(self.kv._values), list(self.kv._keys))
        return self.kv

    def commit(self) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            if self.lies:  # it is on disk all the same
                self._before = (dict(self.kv._values), list(self.kv._keys))
            raise fault

    def abort(self) -> None:
        self.kv._values, self.kv._keys = self._before

    def make_room(self) -> bool:
        return self.room

    def grow(self) -> bool:
        self.growths -= 1
        return self.growths >= 0

    def problem(self, error: BaseException) -> errors.Problem:
        return errors.Unavailable(f"no commit: {error}", reason="STORE_FAILED")


@pytest.fixture
def environment() -> Scripted:
    return Scripted()


@pytest.fixture
async def store(environment: Scripted):
    opened = front.Front(environment)
    yield opened
    await opened._finish()


def event(number: int) -> Callable[[Any], int]:
    """A script that appends one event."""
    return lambda txn: int(txn.append(1.0, "hub.started", "hub", n=str(number)).position)


def look(environment: Scripted) -> OrderedReader:
    return OrderedReader(environment.kv, Classes())


async def batch(store: front.Front, *scripts: Callable[[Any], Any]) -> list[Any]:
    """The scripts in one batch."""
    gate = threading.Event()
    held = asyncio.ensure_future(store.write(lambda txn: gate.wait(10), essential=True))
    waiting = [asyncio.ensure_future(store.write(script)) for script in scripts]
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.wait([held])
    held.exception()
    return results


async def test_a_commit_that_fails_fails_every_function_of_it_and_none_after(
    environment: Scripted, store: front.Front
) -> None:
    heard: list[int] = []
    store.on_commit(lambda events: heard.extend(each.position for each in events))
    assert await store.write(event(1)) == 1
    environment.faults = [OSError("disk"), OSError("disk"), OSError("disk")]
    results = await batch(store, event(2), event(3), event(4))
    assert all(isinstance(each, errors.Unavailable) for each in results)
    assert len({id(each) for each in results}) == 3
    environment.faults = []
    assert await store.write(event(5)) == 2
    assert heard == [1, 2]
    assert look(environment).position() == 2


async def test_events_of_a_commit_that_failed_and_is_on_disk_are_heard_with_the_next(
    environment: Scripted, store: front.Front
) -> None:
    heard: list[int] = []
    store.on_commit(lambda events: heard.extend(each.position for each in events))
    await store.write(event(1))
    environment.faults, environment.lies = [OSError("meta page")], True
    with pytest.raises(errors.Unavailable):
        await store.write(event(2))
    assert await store.write(event(3)) == 3
    assert heard == [1, 2, 3]


async def test_a_full_map_is_grown_and_the_batch_run_again(environment: Scripted, store: front.Front) -> None:
    environment.growths = 3
    environment.faults = [Full(), Full(), None]
    runs: list[int] = []

    def script(txn):
        runs.append(1)
        return event(1)(txn)

    assert await store.write(script) == 1
    assert len(runs) == 3
    assert look(environment).position() == 1


async def test_a_function_too_large_for_the_largest_map_fails_alone(environment: Scripted, store: front.Front) -> None:
    def large(txn):
        event(0)(txn)
        raise Full

    results = await batch(store, event(1), large, event(2))
    assert isinstance(results[1], errors.Unavailable)
    assert [results[0], results[2]] == [1, 2]
    assert look(environment).position() == 2


async def test_without_room_only_essential_functions_run(environment: Scripted, store: front.Front) -> None:
    environment.room = False
    with pytest.raises(errors.Exhausted) as caught:
        await store.write(event(1))
    assert caught.value.reason == "STORE_FULL"
    assert await store.write(event(2), essential=True) == 1
    environment.room = True
    assert await store.write(event(3)) == 2


async def test_a_batch_has_a_bound(environment: Scripted, store: front.Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.store.writer.BATCH_COUNT_MAX", 10)
    monkeypatch.setattr("hub.store.writer.BATCH_S", 60.0)
    before = store._writer.commits
    assert await batch(store, *(event(n) for n in range(39))) == list(range(1, 40))
    assert store._writer.commits - before == 4


async def test_stop_iteration_of_a_function_reaches_its_caller(store: front.Front) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await store.write(lambda txn: next(iter(())))
