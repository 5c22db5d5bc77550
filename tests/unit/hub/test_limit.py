"""Buckets: what passes, who waits how long, and how much is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core import limit, scope
from hub.core.limit import Action, Limit, Limiter

READ = Action.READ


def made(rate=10.0, burst=5.0, **options):
    return Limiter({READ: Limit(rate, burst)}, **options)


def test_a_burst_passes_and_the_next_one_is_told_when_to_come():
    limiter = made()
    assert [limiter.take("a", READ, 100.0) for _ in range(5)] == [0.0] * 5
    assert limiter.take("a", READ, 100.0) == pytest.approx(0.1)
    assert limiter.take("b", READ, 100.0) == 0.0


def test_who_waits_as_told_passes():
    limiter = made()
    for _ in range(5):
        limiter.take("a", READ, 100.0)
    wait = limiter.take("a", READ, 100.0)
    assert limiter.take("a", READ, 100.0 + wait) == 0.0


def test_who_hammers_waits_longer_each_time_up_to_the_cap():
    limiter = made(rate=0.1, burst=1.0)
    assert limiter.take("a", READ, 0.0) == 0.0
    now, waits = 0.0, []
    for _ in range(12):
        waits.append(limiter.take("a", READ, now))
        now += 1.5
    assert waits[0] == pytest.approx(10.0)
    assert waits == sorted(waits)
    assert waits[-1] == limit.RETRY_MAX_S


def test_parallel_calls_of_one_moment_strike_once():
    limiter = made(rate=1.0, burst=1.0)
    limiter.take("a", READ, 0.0)
    waits = {limiter.take("a", READ, 0.0) for _ in range(50)}
    assert waits == {1.0}
    assert limiter.take("a", READ, 1.0) == 0.0


def test_a_wait_that_was_kept_ends_the_strikes():
    limiter = made(rate=1.0, burst=1.0)
    limiter.take("a", READ, 0.0)
    limiter.take("a", READ, 0.0)
    longer = limiter.take("a", READ, 0.9)
    assert longer <= 1.0
    assert limiter.take("a", READ, 10.0) == 0.0
    assert limiter.take("a", READ, 10.0) == pytest.approx(1.0)


def test_a_batch_larger_than_the_burst_passes_a_full_bucket_and_is_paid_off():
    limiter = made(rate=10.0, burst=5.0)
    assert limiter.take("a", READ, 0.0, 100.0) == 0.0
    assert limiter.take("a", READ, 0.0) == pytest.approx(10.0 - 0.4)
    assert limiter.take("a", READ, 9.7) == 0.0


def test_a_batch_larger_than_the_burst_is_told_when_the_bucket_is_full():
    limiter = made(rate=10.0, burst=5.0)
    limiter.take("a", READ, 0.0)
    wait = limiter.take("a", READ, 0.0, 100.0)
    assert wait == pytest.approx(0.1)
    assert limiter.take("a", READ, wait, 100.0) == 0.0


def test_no_rate_is_no_limit_and_remembers_nobody():
    limiter = made(rate=0.0)
    assert {limiter.take("a", READ, 0.0) for _ in range(1000)} == {0.0}
    assert limiter.take("a", Action.WRITE, 0.0) == 0.0
    assert len(limiter) == 0


def test_the_memory_is_bounded_and_the_one_used_longest_ago_goes_first():
    limiter = made(rate=1.0, burst=1.0, callers_max=3)
    for caller in "abc":
        limiter.take(caller, READ, 0.0)
    assert limiter.take("a", READ, 0.0) > 0.0
    limiter.take("d", READ, 0.0)
    assert len(limiter) == 3
    assert limiter.take("a", READ, 0.0) > 0.0
    assert limiter.take("b", READ, 0.0) == 0.0


def test_who_is_forgotten_starts_anew():
    limiter = made(rate=0.1, burst=1.0)
    limiter.take("a", READ, 0.0)
    assert limiter.take("a", READ, 0.0) > 0.0
    limiter.forget("a")
    assert limiter.take("a", READ, 0.0) == 0.0


@given(
    rate=st.floats(0.1, 1000.0),
    burst=st.floats(1.0, 1000.0),
    steps=st.lists(st.tuples(st.floats(0.0, 10.0), st.integers(1, 50)), max_size=60),
)
def test_never_more_passes_than_the_burst_and_the_rate_allow(rate, burst, steps):
    limiter, now, passed, largest = Limiter({READ: Limit(rate, burst)}), 50.0, 0, 0
    for gap_s, cost in steps:
        now += gap_s
        wait = limiter.take("a", READ, now, cost)
        assert wait >= 0.0
        if wait == 0.0:
            passed += cost
            largest = max(largest, cost)
    assert passed <= (burst + largest + rate * (now - 50.0)) * (1 + 1e-6) + 1e-6


@given(gaps=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40))
def test_a_caller_that_waits_as_told_is_never_refused_twice(gaps):
    limiter, now = made(rate=2.0, burst=2.0), 0.0
    for gap_s in gaps:
        now += gap_s
        wait = limiter.take("a", READ, now)
        if wait:
            now += wait + 1e-6
            assert limiter.take("a", READ, now) == 0.0


@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("TaskService/CreateTask", Action.SUBMIT),
        ("TaskService/BatchCreateTasks", Action.SUBMIT),
        ("GoalService/CreateGoal", Action.SUBMIT),
        ("TaskService/GetTask", Action.READ),
        ("GoalService/LintPlan", Action.READ),
        ("TaskService/CancelTask", Action.WRITE),
        ("HubService/CreateToken", Action.WRITE),
        ("AgentService/EnrollAgent", Action.WRITE),
        ("AgentService/Attach", Action.OPEN),
        ("TaskService/TailTaskLog", Action.OPEN),
        ("HubService/WatchEvents", Action.OPEN),
    ],
)
def test_a_method_is_of_the_kind_that_its_name_says(method, action):
    assert limit.action_of(method) is limit.ACTIONS[scope.PACKAGE + method] is action


def test_every_stream_is_an_open_and_nothing_else_is():
    from hub import app

    streams = {
        f"/{service.full_name}/{method.name}"
        for service in app.SERVICES
        for method in service.methods
        if method.server_streaming
    }
    assert {method for method, action in limit.ACTIONS.items() if action is Action.OPEN} == streams
