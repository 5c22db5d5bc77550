"""Numbers over a window that moves on: what ended within it, and whether something grew all the time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.core.alerts.window import Growth, Rate, Sums, Trail


def test_what_ended_counts_until_the_window_has_passed():
    rate = Rate(300.0, cells=10)
    rate.add(1_000.0, failed=True)
    rate.add(1_001.0, failed=False)
    rate.add(1_200.0, failed=False)
    assert rate.sums(1_200.0) == Sums(3, 1)
    assert rate.sums(1_310.0) == Sums(1, 0)
    assert rate.sums(2_000.0) == Sums(0, 0)


def test_a_clock_that_is_set_back_empties_it():
    rate = Rate(300.0)
    rate.add(5_000.0, failed=True)
    assert rate.sums(1_000.0) == Sums(0, 0)
    rate.add(1_000.0, failed=False)
    assert rate.sums(1_000.0) == Sums(1, 0)


@given(steps=st.lists(st.tuples(st.floats(0.0, 100.0), st.booleans()), max_size=200))
def test_a_rate_is_what_counting_by_hand_gives_to_a_cell_and_keeps_no_more_than_its_cells(steps):
    rate, now, seen = Rate(300.0, cells=10), 10_000.0, []
    for step, failed in steps:
        now += step
        rate.add(now, failed=failed)
        seen.append((now, failed))
    sums = rate.sums(now)
    surely = [failed for at, failed in seen if at > now - 270.0]
    perhaps = [failed for at, failed in seen if at > now - 300.0]
    assert len(surely) <= sums.ended <= len(perhaps)
    assert sum(surely) <= sums.failed <= sum(perhaps)
    assert len(rate._cells) <= 11


def watched(*numbers: int, every_s: float = 15.0, window_s: float = 900.0) -> Growth | None:
    trail, found = Trail(window_s), None
    for index, number in enumerate(numbers):
        found = trail.look(1_000.0 + index * every_s, number)
    return found


def test_nothing_is_known_before_a_whole_window_was_watched():
    assert watched(*range(60)) is None
    assert watched(*range(61)) == Growth(60, 60)


def test_what_comes_at_once_and_is_worked_off_has_not_grown_all_the_time():
    assert watched(*[0] * 30, *range(500, 440, -2), 440) == Growth(440, 0)
    assert watched(*[0] * 10, *[100] * 20, *[200] * 31) == Growth(200, 0)


def test_what_grows_in_each_third_grows():
    assert watched(*[0] * 10, *[100] * 20, *[200] * 20, *[300] * 11) == Growth(300, 300)


def test_what_shrinks_has_not_grown():
    assert watched(*range(100, 39, -1)) == Growth(-60, 0)


def test_a_trail_begins_anew_when_the_clock_is_set_back():
    trail = Trail(90.0)
    for at in range(1_000, 1_200, 15):
        trail.look(float(at), at)
    assert trail.look(500.0, 1) is None
    assert trail.look(590.0, 5) == Growth(4, 0)


def test_a_trail_that_is_looked_at_for_long_keeps_no_more_than_its_looks():
    trail = Trail(300.0, looks=20)
    for at in range(0, 30_000, 5):
        trail.look(float(at), at)
    assert len(trail._seen) <= 22


@given(steps=st.lists(st.tuples(st.floats(0.0, 60.0), st.integers(0, 1_000)), max_size=300))
def test_a_trail_is_bounded_and_compares_with_what_was_there_a_window_ago(steps):
    trail, now, seen = Trail(300.0, looks=20), 1_000.0, []
    for step, number in steps:
        now += step
        found = trail.look(now, number)
        seen.append((now, number))
        assert len(trail._seen) <= 22
        if found is not None:
            before = [n for at, n in seen if now - 300.0 - 60.0 - 15.0 <= at <= now - 300.0 + 1e-6]
            assert any(number - one == found.in_all for one in before)
            assert found.steady in (0, found.in_all)
