"""Violators: what counts, when it is too much, how long that is remembered, and by how many."""

from __future__ import annotations

import pytest

from hub.core import violation
from hub.core.violation import Kind, Patience, Violators
from kit import errors

PATIENCE = Patience(count_max=3, window_s=60.0, refuse_s=10.0, refuse_s_max=60.0)


def break_rules(violators, principal, times, now, kind=Kind.INVALID, **options):
    return [violators.add(principal, kind, "m", now, **options) for _ in range(times)]


def test_up_to_the_bound_it_is_borne_and_the_next_one_is_refused():
    violators = Violators(PATIENCE)
    assert break_rules(violators, "tokens/a", 3, 100.0) == [None] * 3
    assert violators.refused("tokens/a", 100.0) == 0.0
    assert violators.add("tokens/a", Kind.INVALID, "m", 100.0) is not None
    assert violators.refused("tokens/a", 100.0) == pytest.approx(10.0)
    assert violators.refused("tokens/b", 100.0) == 0.0
    assert violators.refused("tokens/a", 110.0) == 0.0


def test_each_refusal_is_twice_as_long_up_to_the_cap_and_calm_is_rewarded():
    violators, now, waits = Violators(PATIENCE), 0.0, []
    for _ in range(5):
        break_rules(violators, "a", 4, now)
        waits.append(violators.refused("a", now))
        now += waits[-1]
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0]
    now += violation.MEMORY_S + 1
    break_rules(violators, "a", 4, now)
    assert violators.refused("a", now) == pytest.approx(10.0)


def test_a_few_violations_a_window_are_borne_for_ever():
    violators = Violators(PATIENCE)
    assert not any(violators.add("a", Kind.INVALID, "m", 30.0 * n) for n in range(1000))


def test_the_window_slides_so_that_its_edge_is_no_way_round():
    violators = Violators(PATIENCE)
    break_rules(violators, "a", 3, 59.0)
    assert break_rules(violators, "a", 1, 61.0)[-1] is not None
    calm = Violators(PATIENCE)
    break_rules(calm, "a", 3, 0.0)
    assert break_rules(calm, "a", 3, 125.0) == [None] * 3


def test_a_clock_that_was_set_back_accuses_nobody():
    violators = Violators(PATIENCE)
    break_rules(violators, "a", 3, 10_000.0)
    assert break_rules(violators, "a", 3, 100.0) == [None] * 3


def test_who_is_borne_is_counted_and_never_refused():
    violators = Violators(PATIENCE)
    assert break_rules(violators, "local", 100, 0.0, bear=True) == [None] * 100
    assert violators.refused("local", 0.0) == 0.0
    assert violators.recent()[0].kinds == {Kind.INVALID: 100}


def test_the_list_is_the_most_recent_first_and_forgiveness_is_whole():
    violators = Violators(PATIENCE)
    break_rules(violators, "a", 4, 0.0)
    break_rules(violators, "b", 1, 1.0, Kind.GARBLED)
    assert [one.principal for one in violators.recent()] == ["b", "a"]
    assert violators.forgive("a").refuse_until == pytest.approx(10.0)
    assert violators.refused("a", 0.0) == 0.0
    with pytest.raises(errors.NotFound):
        violators.forgive("a")


def test_the_memory_is_bounded_and_keeps_those_that_are_refused():
    violators = Violators(PATIENCE, violators_max=3)
    break_rules(violators, "bad", 4, 0.0)
    for n in range(100):
        violators.add(f"peer:{n}", Kind.UNAUTHENTICATED, "m", 1.0)
        assert len(violators) <= 3
    assert violators.refused("bad", 1.0) > 0.0


def test_even_a_crowd_of_refused_ones_stays_within_the_bound():
    violators = Violators(PATIENCE, violators_max=3)
    for n in range(10):
        break_rules(violators, f"peer:{n}", 4, 0.0)
    assert len(violators) == 3


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (errors.Invalid.of("a", "b"), Kind.INVALID),
        (errors.Invalid("x", reason="GARBLED"), Kind.GARBLED),
        (errors.Invalid.of("hello", "x", reason="PROTOCOL"), Kind.PROTOCOL),
        (errors.Conflict("x", reason="SESSION_GAP"), Kind.PROTOCOL),
        (errors.Unauthenticated("x"), Kind.UNAUTHENTICATED),
        (errors.Forbidden("x"), Kind.FORBIDDEN),
        (errors.Exhausted("x", reason="RATE_LIMITED"), Kind.RATE_LIMITED),
        (errors.Exhausted("x", reason="MESSAGE_TOO_LARGE"), Kind.TOO_LARGE),
        (errors.Exhausted("x", reason="QUEUE_FULL"), None),
        (errors.NotFound("x"), None),
        (errors.Conflict("x"), None),
        (errors.IllegalState("x", state="s"), None),
        (errors.Unavailable("x"), None),
    ],
)
def test_what_breaks_a_rule_and_what_is_only_bad_luck(problem, kind):
    assert violation.kind_of(problem) is kind


def test_nothing_that_the_caller_sent_is_remembered():
    problem = errors.Invalid(
        "it says CANARY", violations=[errors.Violation('spec.labels["CANARY"]', "CANARY is wrong")], reason="INVALID"
    )
    assert violation.told("/agentcom.v1.TaskService/CreateTask", problem) == (
        "TaskService/CreateTask: INVALID (spec.labels)"
    )
