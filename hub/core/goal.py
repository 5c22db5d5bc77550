"""The goal: its record, its plan, and the one table of its legal transitions."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from hub.core.task import Check, Lane, Receipt, TaskSpec
from kit import errors


class State(IntEnum):
    """Where a goal is; the numbers are those of the proto."""

    AWAITING_PLAN = 1
    ACTIVE = 2
    VERIFYING = 3
    SUCCEEDED = 4
    FAILED = 5
    CANCELLED = 6


class Event(IntEnum):
    """What can happen to a goal."""

    PLAN = 1  # a plan is frozen
    TASKS_DONE = 2  # every task of the plan has succeeded
    ASSERTIONS_HOLD = 3
    FAIL = 4  # a task is dead, or an assertion does not hold
    CANCEL = 5
    REVIVE = 6  # a person retried one of its dead tasks


FINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.AWAITING_PLAN, Event.PLAN): State.ACTIVE,
    (State.AWAITING_PLAN, Event.CANCEL): State.CANCELLED,
    (State.ACTIVE, Event.TASKS_DONE): State.VERIFYING,
    (State.ACTIVE, Event.FAIL): State.FAILED,
    (State.ACTIVE, Event.CANCEL): State.CANCELLED,
    (State.VERIFYING, Event.ASSERTIONS_HOLD): State.SUCCEEDED,
    (State.VERIFYING, Event.FAIL): State.FAILED,
    (State.VERIFYING, Event.CANCEL): State.CANCELLED,
    (State.FAILED, Event.REVIVE): State.ACTIVE,
}


HELD_BACK: Final = "its goal is paused"
"""Reason of a task that is parked only because its goal is paused; the resume of the goal looks for it."""


def step(goal_id: str, state: State, event: Event) -> State:
    """The state after `event`. Raises IllegalState with the state for a pair that is not in the table."""
    after = TRANSITIONS.get((state, event))
    if after is None:
        raise errors.IllegalState(
            f"goal goals/{goal_id} is {state.name.lower().replace('_', ' ')}, cannot {event.name.lower()}",
            state=state.name,
            reason="GOAL_STATE",
            metadata={"goal": f"goals/{goal_id}", "state": state.name, "event": event.name},
        )
    return after


class Assertion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One checkable statement that must hold when the goal is done."""

    id: str
    text: str
    check: Check | None = None
    receipt: Receipt | None = None


class PlanTask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task of a plan; `task` is the id of the filed one."""

    id: str
    spec: TaskSpec
    depends_on: tuple[str, ...] = ()
    fulfills: tuple[str, ...] = ()
    task: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A frozen, linted set of tasks for a goal."""

    goal: str
    version: int = 1
    tasks: tuple[PlanTask, ...] = ()


class Goal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person wants of a repository. Its plan is a record of its own, keyed by the goal's id."""

    id: str
    title: str
    repo: str
    state: State
    description: str = ""
    lane: Lane = Lane.NORMAL
    assertions: tuple[Assertion, ...] = ()
    plan_version: int = 0
    """0: no plan yet."""
    reason: str = ""
    verify_task: str = ""
    paused: bool = False
    task_total: int = 0
    task_succeeded: int = 0
    task_failed: int = 0
    labels: dict[str, str] = {}
    created_at: float = 0.0
    updated_at: float = 0.0
    ended_at: float | None = None
    revision: int = 1
