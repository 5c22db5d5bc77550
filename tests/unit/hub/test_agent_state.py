"""The states of an agent: the whole product of states and events, and what follows from what is known."""

from __future__ import annotations

import itertools

import pytest

from hub.core.agent import State
from hub.core.agent_state import TRANSITIONS, Event, Facts, derive, step

CONNECTED = [state for state in State if state is not State.OFFLINE]


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_either_moves_by_the_table_or_changes_nothing(state: State, event: Event) -> None:
    assert step(state, event) is TRANSITIONS.get((state, event), state)


@pytest.mark.parametrize("state", CONNECTED)
def test_from_everywhere_a_lost_stream_means_offline_and_a_new_one_begins_idle(state: State) -> None:
    assert step(state, Event.DETACH) is State.OFFLINE
    assert step(state, Event.ATTACH) is State.IDLE


@pytest.mark.parametrize("event", [event for event in Event if event is not Event.ATTACH])
def test_only_a_new_stream_leads_out_of_offline(event: Event) -> None:
    assert step(State.OFFLINE, event) is State.OFFLINE


@pytest.mark.parametrize("state", [State.BLOCKED, State.DRAINING, State.ISOLATED])
@pytest.mark.parametrize("event", [Event.ASSIGN, Event.ACCEPT])
def test_work_does_not_hide_that_an_agent_gets_no_more(state: State, event: Event) -> None:
    assert step(state, event) is state


def expected(facts: Facts) -> State:
    """The same in other words."""
    if not facts.online:
        return State.OFFLINE
    if facts.isolated:
        return State.ISOLATED
    if facts.draining:
        return State.DRAINING
    if facts.blocked:
        return State.BLOCKED
    if facts.working:
        return State.WORKING
    return State.ASSIGNED if facts.assigned else State.IDLE


def test_the_state_follows_from_what_is_known_for_everything_that_can_be_known() -> None:
    for online, assigned, working, blocked, draining, isolated in itertools.product(
        (False, True), (0, 1, 3), (0, 2), (False, True), (False, True), (False, True)
    ):
        facts = Facts(online, assigned, working, blocked, draining, isolated)
        assert derive(facts) is expected(facts), facts
