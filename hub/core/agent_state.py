"""The states of an agent: one table, and the state that follows from what is known of an agent.

A state is never stored. `derive` plays what is known through the table, in the order of the events below, and the
result is the state; what is known is replaced by every heartbeat, so a wrong state heals with the next one. A later
event of that order covers an earlier one: an isolated agent that works on a task shows as isolated.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from hub.core.agent import State


class Event(IntEnum):
    """What can happen to an agent, in the order in which `derive` plays it."""

    DETACH = 0  # its session's stream ended
    ATTACH = 1
    RELEASE = 2  # the last thing that kept it from being idle is gone
    ASSIGN = 3  # it was offered a task
    ACCEPT = 4  # it works on a task
    BLOCK = 5  # its self-test fails, or it has none yet
    DRAIN = 6  # it finishes what it holds
    ISOLATE = 7  # it failed too often in a row


_CONNECTED: Final = (State.IDLE, State.ASSIGNED, State.WORKING, State.BLOCKED, State.DRAINING, State.ISOLATED)

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.OFFLINE, Event.DETACH): State.OFFLINE,
    (State.OFFLINE, Event.ATTACH): State.IDLE,
    **{(state, Event.DETACH): State.OFFLINE for state in _CONNECTED},
    **{(state, Event.ATTACH): State.IDLE for state in _CONNECTED},  # a newer session takes over
    **{(state, Event.RELEASE): State.IDLE for state in _CONNECTED},
    (State.IDLE, Event.ASSIGN): State.ASSIGNED,
    (State.ASSIGNED, Event.ASSIGN): State.ASSIGNED,
    (State.WORKING, Event.ASSIGN): State.WORKING,
    (State.IDLE, Event.ACCEPT): State.WORKING,  # taken over after a restart: it was accepted before
    (State.ASSIGNED, Event.ACCEPT): State.WORKING,
    (State.WORKING, Event.ACCEPT): State.WORKING,
    **{(state, Event.BLOCK): State.BLOCKED for state in (State.IDLE, State.ASSIGNED, State.WORKING, State.BLOCKED)},
    **{(state, Event.DRAIN): State.DRAINING for state in _CONNECTED if state is not State.ISOLATED},
    **{(state, Event.ISOLATE): State.ISOLATED for state in _CONNECTED},
}
"""Everything that may happen; a pair that is not here changes nothing (`step`)."""


class Facts(NamedTuple):
    """What is known of an agent."""

    online: bool = False
    """A stream of its session is open."""
    assigned: int = 0
    """Tasks offered to it and not accepted yet."""
    working: int = 0
    """Tasks that it works on."""
    blocked: bool = False
    draining: bool = False
    isolated: bool = False


def step(state: State, event: Event) -> State:
    """The state after `event`; an event that the table does not know in this state changes nothing."""
    return TRANSITIONS.get((state, event), state)


def derive(facts: Facts) -> State:
    """The state that an agent of whom this is known is in."""
    state = State.OFFLINE
    for event, happened in (
        (Event.ATTACH, facts.online),
        (Event.ASSIGN, facts.assigned > 0),
        (Event.ACCEPT, facts.working > 0),
        (Event.BLOCK, facts.blocked),
        (Event.DRAIN, facts.draining),
        (Event.ISOLATE, facts.isolated),
    ):
        if happened:
            state = step(state, event)
    return state
