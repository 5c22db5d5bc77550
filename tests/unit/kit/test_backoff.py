"""Delays stay within their window, whatever the attempt."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import backoff


@given(st.integers(0, 100_000), st.floats(0, 100), st.floats(0, 1000), st.integers())
def test_full_jitter_stays_between_nothing_and_the_window(attempt, base_s, more_s, seed):
    cap_s = base_s + more_s
    delay_s = backoff.full_jitter(attempt, base_s, cap_s, random.Random(seed))
    assert 0 <= delay_s <= min(cap_s, base_s * 2.0 ** min(attempt, backoff.EXPONENT_MAX))


def test_full_jitter_spreads_over_the_whole_window(rng):
    delays = [backoff.full_jitter(3, 1.0, 60.0, rng) for _ in range(1000)]
    assert min(delays) < 1.0
    assert max(delays) > 7.0


def test_the_default_schedule_is_at_once_then_half_a_minute_then_two(rng):
    schedule = backoff.Schedule(jitter=0.0)
    assert [schedule.delay_s(n, rng) for n in range(5)] == [0.0, 30.0, 120.0, 240.0, 480.0]


@given(st.integers(0, 10_000), st.integers())
def test_a_schedule_never_exceeds_its_cap(retry, seed):
    assert 0 <= backoff.Schedule().delay_s(retry, random.Random(seed)) <= 3600.0


@given(st.integers())
def test_a_step_is_jittered_around_its_value(seed):
    assert 27.0 <= backoff.Schedule().delay_s(1, random.Random(seed)) <= 33.0


def test_a_schedule_that_makes_no_sense_is_an_error_of_the_programmer():
    with pytest.raises(AssertionError):
        backoff.Schedule(steps_s=())
    with pytest.raises(AssertionError):
        backoff.Schedule(steps_s=(10.0,), cap_s=5.0)
