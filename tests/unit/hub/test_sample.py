"""The ring of samples: what happened, what was seen, and what is a gap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.sample import Count, Look, Ring, Times
from hub.core.task import Lane

MINUTE = 60.0
START = 1_700_000_040.0  # a full minute
"""Seconds since the epoch."""


def ring(count_max: int = 10) -> Ring:
    return Ring(MINUTE, count_max)


def seen(waiting: int = 0, *, slots: int = 4, used: int = 0, waits: tuple[float, ...] = ()) -> Look:
    return Look({Lane.NORMAL: waiting} if waiting else {}, slots, used, waits)


def test_what_happened_is_counted_in_the_minute_in_which_it_happened():
    made = ring()
    made.look(seen(), START)
    made.count(Count.SUBMITTED, START + 59.9)
    made.count(Count.SUBMITTED, START + 60.1)
    made.look(seen(), START + 61)
    assert [(one.start_at, one.counts[Count.SUBMITTED]) for one in made.samples(START + 61, 10)] == [
        (START, 1),
        (START + 60, 1),
    ]


def test_a_sample_tells_the_most_that_waited_and_the_slots_in_use_on_average():
    made = ring()
    for at, (waiting, used) in enumerate([(3, 0), (9, 2), (5, 4)]):
        made.look(seen(waiting, used=used, waits=(0.5,)), START + at)
    (one,) = made.samples(START + 3, 1)
    assert one.waiting == {Lane.NORMAL: 9}
    assert (one.slots, one.slots_used) == (4, 2.0)
    assert one.wait is not None
    assert one.wait.samples == 3


def test_what_was_only_counted_is_known_not_to_be_observed():
    made = ring()
    made.look(seen(2), START + 300)
    made.count(Count.MERGED, START)
    old, new = made.samples(START + 300, 10)
    assert (old.observed, old.counts[Count.MERGED], old.wait, dict(old.waiting)) == (False, 1, None, {})
    assert new.observed


def test_minutes_of_which_nothing_is_known_are_left_out():
    made = ring()
    made.look(seen(), START)
    made.look(seen(), START + 300)
    assert [one.start_at for one in made.samples(START + 300, 10)] == [START, START + 300]


def test_a_minute_known_in_part_is_given_up_unless_something_was_seen_in_it():
    made = ring()
    made.look(seen(), START + 120)
    made.count(Count.SUBMITTED, START)
    made.forget(START + 30)
    made.forget(START + 130)
    assert [one.start_at for one in made.samples(START + 130, 10)] == [START + 120]


def test_what_is_older_than_the_ring_is_left_out_and_forgotten():
    made = ring(3)
    made.look(seen(), START)
    made.look(seen(), START + 180)
    made.count(Count.SUBMITTED, START)
    assert [one.start_at for one in made.samples(START + 180, 10)] == [START + 180]


def test_a_clock_that_was_set_back_leaves_nothing_of_the_future():
    made = ring()
    made.look(seen(), START + 86_400)
    made.look(seen(), START)
    assert [one.start_at for one in made.samples(START, 10)] == [START]
    assert [one.start_at for one in made.samples(START + 86_400, 10)] == []


def test_the_percentiles_of_a_minute_stay_when_it_is_over():
    made = ring()
    made.look(seen(waits=(1.0, 1.0)), START)
    made.ran(7.0, START + 1)
    before = made.samples(START, 1)[0]
    made.look(seen(), START + 60)
    after = made.samples(START + 60, 2)[0]
    assert (after.wait, after.run) == (before.wait, before.run)
    made.ran(9.0, START + 2)  # told too late
    assert made.samples(START + 60, 2)[0].run == before.run


def test_what_is_counted_while_nobody_looks_is_bounded_too():
    made = ring(5)
    for minute in range(20):
        made.count(Count.SUBMITTED, START + 60 * minute)
    made.look(seen(), START + 60 * 19)
    assert [one.start_at for one in made.samples(START + 60 * 19, 20)] == [START + 60 * n for n in range(15, 20)]
    for minute in range(20, 40):
        made.count(Count.SUBMITTED, START + 60 * minute)
        assert len(made._open) <= 6


@given(st.lists(st.floats(0.0001, 1_000_000.0), min_size=1, max_size=300))
def test_percentiles_are_right_to_within_a_twentieth(values):
    times = Times()
    for value in values:
        times.add(value)
    spread = times.spread()
    assert spread is not None
    ordered = sorted(values)
    assert spread.samples == len(values)
    assert spread.max_s == ordered[-1]
    for share, told in ((0.50, spread.p50_s), (0.99, spread.p99_s)):
        exact = ordered[max(0, -(-int(share * 100) * len(values) // 100) - 1)]
        assert told == pytest.approx(exact, rel=0.051)


@given(st.lists(st.tuples(st.sampled_from(["look", "count", "ran"]), st.integers(-200_000, 200_000)), max_size=200))
def test_whatever_is_told_the_ring_keeps_its_bound(told):
    made = ring(5)
    for what, offset in told:
        at = START + offset
        match what:
            case "look":
                made.look(seen(1), at)
            case "count":
                made.count(Count.FAILED, at)
            case _:
                made.ran(1.0, at)
        assert len(made._open) <= 6


def test_times_without_any_have_no_percentiles_and_a_negative_one_counts_as_nothing():
    times = Times()
    assert times.spread() is None
    times.add(-5.0)
    spread = times.spread()
    assert spread is not None
    assert spread.p99_s == 0.0
