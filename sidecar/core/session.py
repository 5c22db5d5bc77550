"""The session with the hub as one table: (state, event) -> state. The pictures in the docs are drawn from it.

    offline --connect--> connecting --welcome--> attached --lost--> offline ...

A drain (the first SIGTERM) moves to the lower row, which connects and reconnects in the same way, because what is held
must still be finished and told. When nothing is held and nothing is unsaid any more, the sidecar says goodbye (leaving)
and ends. A final refusal, or a cancel, ends it from everywhere.

Whatever is not in the table is refused and changes nothing.
"""

from __future__ import annotations

import enum
from typing import Final

from kit import errors


class State(enum.Enum):
    """Where the session is."""

    #: No stream; the next try waits for its backoff.
    OFFLINE = "offline"
    #: The stream is open, hello is said, welcome has not come.
    CONNECTING = "connecting"
    #: Welcomed: work comes in, outcomes go out.
    ATTACHED = "attached"
    #: As the three above, but no new work is taken.
    DRAINING_OFFLINE = "draining_offline"
    DRAINING_CONNECTING = "draining_connecting"
    DRAINING = "draining"
    #: Goodbye is said; the hub's ack, or the end of the stream, is awaited.
    LEAVING = "leaving"
    #: The end.
    STOPPED = "stopped"


class Event(enum.Enum):
    """What happens to the session."""

    #: The backoff is over.
    CONNECT = "connect"
    #: The hub answered hello.
    WELCOME = "welcome"
    #: The stream ended without a final word.
    LOST = "lost"
    #: A person or the system wants the sidecar to finish and end. May be repeated.
    DRAIN = "drain"
    #: While draining: nothing is held and every outcome is acked.
    EMPTY = "empty"
    #: The hub does not want this sidecar back, or refuses it for good.
    FINAL = "final"
    #: End now; what is held was stopped already.
    CANCEL = "cancel"


TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.OFFLINE: {
        Event.CONNECT: State.CONNECTING,
        Event.DRAIN: State.DRAINING_OFFLINE,
        Event.FINAL: State.STOPPED,
        Event.CANCEL: State.STOPPED,
    },
    State.CONNECTING: {
        Event.WELCOME: State.ATTACHED,
        Event.LOST: State.OFFLINE,
        Event.DRAIN: State.DRAINING_CONNECTING,
        Event.FINAL: State.STOPPED,
        Event.CANCEL: State.STOPPED,
    },
    State.ATTACHED: {
        Event.LOST: State.OFFLINE,
        Event.DRAIN: State.DRAINING,
        Event.FINAL: State.STOPPED,
        Event.CANCEL: State.STOPPED,
    },
    State.DRAINING_OFFLINE: {
        Event.CONNECT: State.DRAINING_CONNECTING,
        Event.DRAIN: State.DRAINING_OFFLINE,
        Event.EMPTY: State.STOPPED,
        Event.FINAL: State.STOPPED,
        Event.CANCEL: State.STOPPED,
    },
    State.DRAINING_CONNECTING: {
        Event.WELCOME: State.DRAINING,
        Event.LOST: State.DRAINING_OFFLINE,
        Event.DRAIN: State.DRAINING_CONNECTING,
        Event.FINAL: State.STOPPED,
        Event.CANCEL: State.STOPPED,
    },
    State.DRAINING: {
        Event.LOST: State.DRAINING_OFFLINE,
        Event.DRAIN: State.DRAINING,
        Event.EMPTY: State.LEAVING,
        Event.FINAL: State.STOPPED,
        Event.CANCEL: State.STOPPED,
    },
    State.LEAVING: {
        Event.LOST: State.STOPPED,
        Event.DRAIN: State.LEAVING,
        Event.FINAL: State.STOPPED,
        Event.CANCEL: State.STOPPED,
    },
    State.STOPPED: {
        # Late events of a process that is ending; they have nothing left to change.
        Event.LOST: State.STOPPED,
        Event.DRAIN: State.STOPPED,
        Event.FINAL: State.STOPPED,
        Event.CANCEL: State.STOPPED,
    },
}

#: A stream is open and welcomed: sequenced messages may be sent.
WELCOMED: Final = frozenset({State.ATTACHED, State.DRAINING, State.LEAVING})
#: No new work is taken.
CLOSING: Final = frozenset(
    {State.DRAINING_OFFLINE, State.DRAINING_CONNECTING, State.DRAINING, State.LEAVING, State.STOPPED}
)


def after(state: State, event: Event) -> State:
    """The state after `event`. Raises IllegalState when the event cannot happen there; nothing changes then."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise errors.IllegalState(
            f"the session is {state.value}, {event.value} cannot happen there", state=state.value
        ) from None
