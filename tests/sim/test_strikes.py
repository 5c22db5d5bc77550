"""Strikes: that they find where a task waits, and that few seeds hit most awaits (`make sim` wants all of them)."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from kit import leash
from tests.sim import beyond, chance, coverage, places, simulate
from tests.sim.chance import Tally
from tests.sim.places import place_of

SEEDS = range(1, 13)

#: What so few seeds hit of all awaits that can be reached; 500 hit all of them.
SHARE_MIN = 0.6


@pytest.fixture(scope="module")
def tally():
    """Of some seeds in which every await is armed."""
    found = Tally()
    for seed in SEEDS:
        mix = chance.mix(seed)
        mix.armed = 1.0
        found.add(simulate.run(seed, mix=mix).tally)
    return found


def test_most_awaits_have_a_fault_within_a_few_seeds(tally):
    seen = coverage.covered(tally.hits())
    assert seen.hit / seen.all > SHARE_MIN, [one.place for one in seen.missed]


def test_every_kind_of_strike_is_struck(tally):
    kinds = {kind for _, kind in tally.struck}
    assert kinds >= {"kill", "late", "lost", "reset", "ended", "silent", "refuse", "fail", "crash_before"}


def test_what_is_said_to_be_beyond_a_simulation_is(tally):
    hits = tally.hits()
    wrong = [one.owner for one in coverage.awaits() if hits[one.place] and beyond.reason(one.owner)]
    assert not wrong, f"they are hit: take them out of the table in beyond.py: {wrong}"


def test_every_line_of_the_table_means_something():
    owners = [one.owner for one in coverage.awaits()]
    empty = [key for key in (*beyond.BEYOND, *beyond.RARE) if not any(beyond.covers(key, owner) for owner in owners)]
    assert not empty


def test_an_await_that_is_neither_hit_nor_listed_is_missed(tally, monkeypatch):
    new = coverage.Await("hub/engine/live/new.py:1", "hub/engine/live/new.py::New.run_once::asyncio.sleep(1)")
    known = coverage.awaits()
    monkeypatch.setattr(coverage, "awaits", lambda: (*known, new))
    assert new in coverage.covered(tally.hits()).missed
    monkeypatch.setitem(beyond.BEYOND, "hub/engine/live/new.py", "as this test has it")
    assert new not in coverage.covered(tally.hits()).missed


async def test_places_see_through_generators_and_their_steps():
    """An `async for` and an `anext` hide what they wait for from everybody but the garbage collector."""
    held = leash.Leash()

    async def numbers():
        await held.run(asyncio.Event().wait())
        yield 1

    async def follow():
        async for _ in numbers():
            pass

    async def step():
        await anext(numbers(), None)

    for wait in (follow, step):
        task = asyncio.create_task(wait())
        while not held._task:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)
        assert place_of(task).startswith("kit/leash.py:")
        assert len(places.codes(task.get_coro())) >= 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_a_hunt_strikes_only_where_it_was_sent():
    place = next(one.place for one in coverage.awaits() if "::Worker._apply::" in one.owner)
    mix = chance.mix(1)
    mix.hunted = frozenset({place})
    struck = simulate.run(1, mix=mix).tally.struck
    assert {one for one, _ in struck} == {place}


def test_counting_hits_adds_what_struck_and_what_came_by_itself():
    tally = Tally()
    tally.places["a:1"] += 1
    tally.struck["a:1", "kill"] += 2
    tally.struck["b:2", "late"] += 1
    assert tally.hits() == Counter({"a:1": 3, "b:2": 1})
