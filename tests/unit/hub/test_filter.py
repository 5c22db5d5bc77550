"""The filter of the lists: what it understands, and where it says what it does not."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core import filter as filters
from hub.core.task import Lane, State
from kit import errors

FIELDS = {
    "state": filters.choice(State),
    "lane": filters.choice(Lane),
    "goal": filters.resource("goals"),
    "paused": filters.flag,
    "labels.": filters.plain,
}
GOAL = "0" * 20


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("   ", {}),
        ("state = QUEUED", {"state": State.QUEUED}),
        ("state=queued", {"state": State.QUEUED}),
        ('state = "QUEUED"', {"state": State.QUEUED}),
        ("state = STATE_QUEUED", {"state": State.QUEUED}),
        ("lane = LANE_HIGH AND state = DEAD", {"lane": Lane.HIGH, "state": State.DEAD}),
        (f"goal = goals/{GOAL}", {"goal": GOAL}),
        ("labels.os = linux AND labels.team = a-b", {"labels.os": "linux", "labels.team": "a-b"}),
        ('labels.os = "AND = \\"quoted\\" \\\\"', {"labels.os": 'AND = "quoted" \\'}),
        ('labels.os = ""', {"labels.os": ""}),
        ("paused = True", {"paused": True}),
    ],
)
def test_a_filter_says_what_it_asks_for(text, wanted):
    assert filters.parse(text, FIELDS) == wanted


@pytest.mark.parametrize(
    ("text", "position", "word"),
    [
        ("colour = red", 1, "not a field"),
        ("labels. = x", 1, "not a field"),
        ("state", 6, "expected ="),
        ("state QUEUED", 7, "expected ="),
        ("state =", 8, "expected a value"),
        ("state = AND lane = LOW", 9, "expected a value"),
        ("state = = QUEUED", 9, "expected a value"),
        ("state = PURPLE", 9, "must be one of"),
        ("state = FOO_QUEUED", 9, "must be one of"),
        ("state = QUEUED lane = LOW", 16, "expected AND"),
        ("state = QUEUED OR lane = LOW", 16, "expected AND"),
        ("state = QUEUED AND", 19, "name of a field"),
        ("state = QUEUED AND state = DEAD", 20, "asked for twice"),
        ('state = "QUEUED', 9, "quote"),
        ("goal = T1", 8, "goals/{id}"),
        ("paused = 1", 10, "true or false"),
        ('"state" = QUEUED', 1, "name of a field"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_position(text, position, word):
    with pytest.raises(errors.Invalid) as refused:
        filters.parse(text, FIELDS)
    (violation,) = refused.value.violations
    assert violation.field == "filter"
    assert violation.description.startswith(f"at {position}: ")
    assert word in violation.description


def test_more_terms_than_the_bound_are_refused():
    text = " AND ".join(f"labels.k{number} = v" for number in range(filters.TERMS_MAX + 1))
    with pytest.raises(errors.Invalid, match="more than 16 terms"):
        filters.parse(text, FIELDS)


@given(st.text(max_size=80))
def test_any_text_is_understood_or_refused(text):
    with contextlib.suppress(errors.Invalid):
        assert isinstance(filters.parse(text, FIELDS), dict)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_quoted_value_comes_back_as_it_was(value):
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert filters.parse(f'labels.k = "{quoted}"', FIELDS) == {"labels.k": value}
