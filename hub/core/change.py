"""The change: a pushed branch on its way into the default branch, and the one table of its transitions."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from hub.core.task import DiffStat, Failure
from kit import errors


class State(IntEnum):
    """Where a change is; the numbers are those of the proto."""

    WAITING = 1
    MERGING = 2
    MERGED = 3
    RETURNED = 4
    ABANDONED = 5


class Event(IntEnum):
    """What can happen to a change."""

    BOARD = 1  # its MERGE task is filed
    MERGE = 2
    RETURN = 3
    ABANDON = 4


FINAL: Final = frozenset({State.MERGED, State.RETURNED, State.ABANDONED})

REWORKS_MAX: Final = 2
"""How often a change may come back to its task with evidence: what two reworks did not cure is for a person."""

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.WAITING, Event.BOARD): State.MERGING,
    (State.WAITING, Event.ABANDON): State.ABANDONED,
    (State.MERGING, Event.MERGE): State.MERGED,
    (State.MERGING, Event.RETURN): State.RETURNED,
    (State.MERGING, Event.ABANDON): State.ABANDONED,
}


def step(change_id: str, state: State, event: Event) -> State:
    """The state after `event`. Raises IllegalState with the state for a pair that is not in the table."""
    after = TRANSITIONS.get((state, event))
    if after is None:
        raise errors.IllegalState(
            f"change changes/{change_id} is {state.name.lower()}, cannot {event.name.lower()}",
            state=state.name,
            reason="CHANGE_STATE",
            metadata={"change": f"changes/{change_id}", "state": state.name, "event": event.name},
        )
    return after


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pushed branch with its merge record."""

    id: str
    task: str
    generation: int
    repo: str
    branch: str
    head_sha: str
    state: State = State.WAITING
    goal: str = ""
    base_sha: str = ""
    title: str = ""
    body: str = ""
    diff_stat: DiffStat | None = None
    reason: str = ""
    merge_task: str = ""
    merge_sha: str = ""
    merge_agent: str = ""
    failure: Failure | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    ended_at: float | None = None
