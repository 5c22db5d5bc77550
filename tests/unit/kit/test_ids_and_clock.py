"""Ids sort by time and never repeat; names are parsed strictly; clocks move when told."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import clock, errors, ids

MOMENTS = st.floats(min_value=0, max_value=4e9)


@given(MOMENTS, MOMENTS, st.integers())
def test_ids_of_different_milliseconds_sort_by_time(one, other, seed):
    rng = random.Random(seed)
    first, second = ids.new_id(one, rng), ids.new_id(other, rng)
    if int(one * 1000) != int(other * 1000):
        assert (first < second) == (one < other)


@given(MOMENTS, st.integers())
def test_an_id_tells_the_millisecond_in_which_it_was_made(moment, seed):
    assert ids.made_at(ids.new_id(moment, random.Random(seed))) == int(moment * 1000) / 1000


@given(st.lists(MOMENTS, min_size=2, max_size=50), st.integers())
def test_a_source_only_goes_up_whatever_the_clock_does(moments, seed):
    source = ids.IdSource(random.Random(seed))
    made = [source.new(now) for now in moments]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


@given(st.integers(min_value=0, max_value=ids.ID_MAX))
def test_encoding_keeps_the_number(number):
    text = ids.encode(number)
    assert ids.is_id(text)
    back = 0
    for character in text:
        back = back * 32 + ids.ALPHABET.index(character)
    assert back == number


@pytest.mark.parametrize("text", ["", "a" * 19, "a" * 21, "i" * 20, "A" * 20, "a" * 19 + "\n", "a" * 20 + "\n"])
def test_what_is_no_id_is_told_apart(text):
    assert not ids.is_id(text)


def test_a_name_is_parsed_to_the_id_it_was_made_of(rng):
    made = ids.new_id(1e9, rng)
    assert ids.parse_name("tasks", ids.name("tasks", made)) == made
    assert ids.parse_name("agents", "agents/builder-1") == "builder-1"


@pytest.mark.parametrize("text", ["", "tasks", "tasks/", "goals/" + "a" * 20, "tasks/x", "tasks/" + "a" * 20 + "/x"])
def test_a_wrong_name_is_refused_naming_the_field(text):
    with pytest.raises(errors.Invalid) as refused:
        ids.parse_name("tasks", text, field="task.name")
    assert [v.field for v in refused.value.violations] == ["task.name"]


@pytest.mark.parametrize("text", ["agents/-a", "agents/A", "agents/" + "a" * 64, "agents/a/b", "agents/a_b"])
def test_a_chosen_id_is_lower_case_and_short(text):
    with pytest.raises(errors.Invalid):
        ids.parse_name("agents", text)


def test_a_long_wrong_name_is_shown_shortened():
    with pytest.raises(errors.Invalid) as refused:
        ids.parse_name("tasks", "x" * 10_000)
    assert len(str(refused.value)) < 200


def test_a_manual_clock_moves_only_when_told():
    manual = clock.ManualClock(100.0)
    assert (manual.now(), manual.monotonic()) == (100.0, 0.0)
    assert manual.advance(2.5) == 102.5
    manual.jump(-50)
    assert (manual.now(), manual.monotonic()) == (52.5, 2.5)


def test_the_system_clock_reads_the_machine():
    before = time.time()
    system: clock.Clock = clock.SystemClock()
    assert before <= system.now() <= time.time()
    assert system.monotonic() <= system.monotonic()
