"""What people write and what the contract wants: both ways, and what is refused."""

from __future__ import annotations

import pytest
from google.protobuf import timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from agentcom.v1 import repo_pb2, task_pb2
from cli import words
from kit import errors


def test_a_name_may_be_short():
    assert words.full_name("tasks", "x") == words.full_name("tasks", "tasks/x") == "tasks/x"
    assert (words.short_name("tasks/x"), words.short_name("")) == ("x", "")


def test_words_of_an_enum_are_read_in_any_spelling_and_an_unknown_number_stays_one():
    style = repo_pb2.Repo.MergeStyle
    for text in ("fast-forward", "FAST_FORWARD", "Fast_forward"):
        assert words.enum_number("--merge-style", text, style, "MERGE_STYLE_") == 2
    assert words.enum_number("--lane", "", task_pb2.Lane, "LANE_") == 0
    assert words.enum_word(task_pb2.Lane, 1, "LANE_") == "urgent"
    assert (words.enum_word(task_pb2.Lane, 0, "LANE_"), words.enum_word(task_pb2.Lane, 99, "LANE_")) == ("", "99")
    with pytest.raises(errors.Invalid, match="--lane: must be one of urgent, high, normal, low"):
        words.enum_number("--lane", "unspecified", task_pb2.Lane, "LANE_")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604800), ("250ms", 0.25), ("1.5s", 1.5)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float):
    assert words.duration("--ttl", text).ToNanoseconds() / 1e9 == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1e9", "999999999999d", "١s"])
def test_anything_else_is_no_duration(text: str):
    with pytest.raises(errors.Invalid, match="--ttl"):
        words.duration("--ttl", text)


def test_a_time_without_a_zone_is_the_readers_own_and_nonsense_is_refused():
    assert words.time_stamp("--start", "2027-01-01T00:00:00Z") == timestamp_pb2.Timestamp(seconds=1798761600)
    for text in ("tomorrow", "0001-01-01T00:00:00", "2027-13-01"):
        with pytest.raises(errors.Invalid, match="--start"):
            words.time_stamp("--start", text)


def test_a_time_that_no_calendar_has_is_shown_as_a_number():
    assert words.time_text(timestamp_pb2.Timestamp(seconds=10**17)) == str(10**17)
    assert words.time_text(timestamp_pb2.Timestamp()) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (42, "42s"), (185, "3m 05s"), (7800, "2h 10m"), (200_000, "2d 7h")],
)
def test_a_span_is_short(seconds: float, text: str):
    assert words.seconds_text(seconds) == text


def test_labels_are_pairs_each_key_once():
    assert words.pairs("--label", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    for bad in (["a"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(errors.Invalid, match="--label"):
            words.pairs("--label", bad)


@given(st.text())
def test_no_text_keeps_a_character_that_moves_a_cursor(text: str):
    made = words.plain(text)
    assert all(character in "\n\t" or character.isprintable() or ord(character) > 0x9F for character in made)
    assert not set("\x1b\x9b\u202e\u2066") & set(made)
