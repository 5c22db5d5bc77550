"""The session's table: every state with every event."""

from __future__ import annotations

import itertools

import pytest

from kit import errors
from sidecar.core import session
from sidecar.core.session import Event, State

PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_moves_as_the_table_says_or_is_refused(state, event):
    expected = session.TRANSITIONS[state].get(event)
    if expected is None:
        with pytest.raises(errors.IllegalState) as refused:
            session.after(state, event)
        assert refused.value.state == state.value
    else:
        assert session.after(state, event) is expected


@pytest.mark.parametrize("state", State)
def test_a_cancel_and_a_final_word_end_it_from_everywhere(state):
    assert session.after(state, Event.CANCEL) is State.STOPPED
    assert session.after(state, Event.FINAL) is State.STOPPED


@pytest.mark.parametrize("state", State)
def test_a_drain_is_never_taken_back(state):
    begun = session.after(state, Event.DRAIN)
    assert begun in session.CLOSING
    reachable, frontier = {begun}, [begun]
    while frontier:
        for target in session.TRANSITIONS[frontier.pop()].values():
            if target not in reachable:
                reachable.add(target)
                frontier.append(target)
    assert reachable <= session.CLOSING


def test_every_state_can_be_reached_and_every_state_can_end():
    reachable, frontier = {State.OFFLINE}, [State.OFFLINE]
    while frontier:
        for target in session.TRANSITIONS[frontier.pop()].values():
            if target not in reachable:
                reachable.add(target)
                frontier.append(target)
    assert reachable == set(State)


def test_only_a_welcome_opens_the_way_for_reports():
    for state, event in PAIRS:
        target = session.TRANSITIONS[state].get(event)
        if target in session.WELCOMED and state not in session.WELCOMED:
            assert event is Event.WELCOME
