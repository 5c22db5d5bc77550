"""Page tokens: good for the list that made them, and for nothing else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core import page
from kit import errors


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_a_token_gives_back_its_cursor(cursor):
    assert page.decode(page.encode(cursor, "tasks", "f"), "tasks", "f") == cursor


def test_no_token_means_the_first_page():
    assert page.decode("", "tasks") == ""


@pytest.mark.parametrize("bound", [("tasks", "other"), ("goals", "f"), ("tasks",), ("tasks", "f", "desc")])
def test_a_token_of_another_list_is_refused(bound):
    token = page.encode("x", "tasks", "f")
    with pytest.raises(errors.Invalid) as refused:
        page.decode(token, *bound)
    assert [violation.field for violation in refused.value.violations] == ["page_token"]


@given(st.integers(min_value=0, max_value=200), st.integers(min_value=1, max_value=255))
def test_a_token_with_a_changed_bit_is_refused(place, change):
    token = page.encode("0123456789", "tasks")
    place %= len(token)
    wrong = token[:place] + chr((ord(token[place]) ^ change) & 0x7F) + token[place + 1 :]
    if wrong == token:
        return
    with contextlib.suppress(errors.Invalid):
        assert page.decode(wrong, "tasks") == "0123456789"  # unused bits of the last character carry nothing


@given(st.text(max_size=60))
def test_any_text_is_a_token_or_refused(text):
    with contextlib.suppress(errors.Invalid):
        page.decode(text, "tasks")


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (10**9, 1000)])
def test_the_size_of_a_page_is_bounded(asked, given):
    assert page.size(asked) == given


def test_a_negative_size_is_refused():
    with pytest.raises(errors.Invalid, match="page_size"):
        page.size(-1)
