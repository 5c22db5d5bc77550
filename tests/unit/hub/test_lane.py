"""The order of waiting work: lanes, age, and that nothing starves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.core import lane
from hub.core.task import Lane

STEP = 600.0
lanes = st.sampled_from(list(Lane))
times = st.floats(0, 1e6)


def test_fresh_work_goes_strictly_by_lane() -> None:
    ranks = [lane.rank(one, 100.0, STEP) for one in Lane]
    assert ranks == sorted(ranks)


def test_within_a_lane_the_oldest_goes_first() -> None:
    assert lane.rank(Lane.LOW, 1.0, STEP) < lane.rank(Lane.LOW, 2.0, STEP)


def test_waiting_one_step_makes_a_task_the_equal_of_a_fresh_one_a_lane_higher() -> None:
    assert lane.rank(Lane.NORMAL, 0.0, STEP) == lane.rank(Lane.HIGH, STEP, STEP)


@given(lanes, lanes, times)
def test_nothing_is_overtaken_for_ever(mine: Lane, other: Lane, queued_at: float) -> None:
    for later in (3 * STEP + 1, 10 * STEP):
        assert lane.rank(mine, queued_at, STEP) < lane.rank(other, queued_at + later, STEP)


@given(lanes, times, st.floats(0, 1e5))
def test_the_lane_shown_rises_one_by_one_and_stops_at_the_top(mine: Lane, queued_at: float, waited: float) -> None:
    shown = lane.effective(mine, queued_at, queued_at + waited, STEP)
    assert Lane.URGENT <= shown <= mine
    assert lane.effective(mine, queued_at, queued_at + waited + STEP, STEP) <= shown


def test_a_clock_that_was_set_back_raises_nothing() -> None:
    assert lane.effective(Lane.LOW, 100.0, 50.0, STEP) is Lane.LOW
