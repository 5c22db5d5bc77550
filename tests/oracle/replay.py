"""Plays the event log through the core's own tables of transitions, and keeps what each task, goal and change was.

An event's type names the edges that it may stand for; the state before it and the fields of the event leave one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hub.core import change, goal, task
from hub.core.event import Event
from tests.oracle.record import Violation

_T = task.Event

#: The edges of the task's table that each type of event tells of; none: it changes no state.
TASK_EDGES: dict[str, tuple[task.Event, ...]] = {
    "task.queued": (_T.DEPENDENCIES_DONE, _T.DUE, _T.UNPARK),
    "task.scheduled": (_T.RETRY_LATER,),
    "task.assigned": (_T.ASSIGN,),
    "task.accepted": (_T.ACCEPT,),
    "task.released": (_T.RELEASE,),
    "task.parked": (_T.PARK,),
    "task.pushed": (_T.PUSHED,),
    "task.returned": (_T.RETURN,),
    "task.succeeded": (_T.COMPLETE, _T.MERGED),
    "task.cancelled": (_T.CANCEL,),
    "task.dead": (_T.KILL,),
    "task.revived": (_T.REVIVE, _T.BLOCK),
    "task.failed": (),
    "task.rejected": (),
    "task.fenced": (),
    "task.stuck": (),
    "task.refunded": (),
}
GOAL_EDGES = {
    "goal.started": goal.Event.PLAN,
    "goal.verifying": goal.Event.TASKS_DONE,
    "goal.succeeded": goal.Event.ASSERTIONS_HOLD,
    "goal.failed": goal.Event.FAIL,
    "goal.cancelled": goal.Event.CANCEL,
    "goal.revived": goal.Event.REVIVE,
}
CHANGE_EDGES = {
    "change.merging": change.Event.BOARD,
    "change.merged": change.Event.MERGE,
    "change.returned": change.Event.RETURN,
    "change.abandoned": change.Event.ABANDON,
}
#: States that a task may be filed in.
FIRST_STATES = frozenset({task.State.PENDING, task.State.SCHEDULED, task.State.QUEUED, task.State.PARKED})


@dataclass(slots=True)
class Life:
    """What the log says of one task."""

    state: task.State
    created_at: float
    generation: int = 0
    holder: str = ""
    events: list[Event] = field(default_factory=list)
    used: set[int] = field(default_factory=lambda: {0})
    """What `attempts_used` may be: a revival of what waited for others tells not whether a person asked for it."""
    deleted: bool = False


class Replay:
    """The log, played."""

    def __init__(self, events: Sequence[Event], *, whole: bool = True) -> None:
        """`whole=False`: the oldest events are gone, so a subject may turn up in the middle of its life."""
        self.lives: dict[str, Life] = {}
        self.violations: list[Violation] = []
        self._states: dict[str, Enum] = {}
        self._whole = whole
        for event in events:
            self._play(event)

    def _play(self, event: Event) -> None:
        kind, _, id = event.subject.partition("/")
        if kind == "tasks":
            self._task(event, id)
        elif kind == "goals":
            self._step(event, "goal.created", goal.State.AWAITING_PLAN, GOAL_EDGES, goal.TRANSITIONS)
        elif kind == "changes":
            self._step(event, "change.created", change.State.WAITING, CHANGE_EDGES, change.TRANSITIONS)

    def _step(self, event: Event, created: str, first: Enum, edges: dict[str, Any], table: dict[Any, Any]) -> None:
        state = self._states.get(event.subject)
        if event.type == created:
            if state is not None:
                self._break(event, "it was created before")
            self._states[event.subject] = first
        elif event.type in edges:
            after = table.get((state, edges[event.type]))
            if after is None and (self._whole or state is not None):
                self._break(event, f"{event.type} is no edge from {state.name if state else 'nothing'}")
            elif after is not None:
                self._states[event.subject] = after

    def _task(self, event: Event, id: str) -> None:
        life = self.lives.get(id)
        if event.type == "task.created":
            first = task.State[event.fields.get("state", "QUEUED")]
            if life is not None:
                self._break(event, "it was created before")
            if first not in FIRST_STATES:
                self._break(event, f"it was created {first.name}")
            self.lives[id] = Life(first, event.at, events=[event])
            return
        if life is None:
            if self._whole:
                self._break(event, f"{event.type} of a task that was never created")
            return
        life.events.append(event)
        if life.deleted and event.type != "task.fenced":
            self._break(event, f"{event.type} of a task that was deleted")
        elif event.type == "task.deleted":
            if life.state not in task.FINAL:
                self._break(event, f"it was deleted while {life.state.name}")
            life.deleted = True
        elif event.type not in TASK_EDGES:
            self._break(event, f"the oracle does not know {event.type}")
        else:
            self._generation(event, life)
            self._move(event, life)
            self._count(event, life)

    def _move(self, event: Event, life: Life) -> None:
        edges = TASK_EDGES[event.type]
        if not edges:
            return
        found = {task.TRANSITIONS[life.state, edge] for edge in edges if (life.state, edge) in task.TRANSITIONS}
        if len(found) > 1:  # a revival: to the queue, which its class is told for, or to wait for others
            found &= {task.State.QUEUED} if "class" in event.fields else {task.State.PENDING}
        if len(found) != 1:
            self._break(event, f"{event.type} is no edge from {life.state.name}")
        else:
            (life.state,) = found

    def _generation(self, event: Event, life: Life) -> None:
        """Every accepted write is of the newest assignment, and of its holder."""
        told = event.fields.get("generation")
        if told is None or event.type in ("task.fenced", "task.refunded"):
            return
        generation, agent = int(told), event.fields.get("agent", "")
        if event.type == "task.assigned":
            if generation != life.generation + 1:
                self._break(event, f"generation {generation} follows {life.generation}", "fence")
            life.generation, life.holder = generation, agent
            return
        if generation != life.generation:
            self._break(event, f"{event.type} of generation {generation} when {life.generation} was assigned", "fence")
        elif agent and agent != life.holder:
            self._break(event, f"{event.type} of {agent} when {life.holder} had it", "fence")
        elif event.actor.startswith("agents/") and event.actor != f"agents/{life.holder}":
            self._break(event, f"{event.type} by {event.actor} when agents/{life.holder} had it", "fence")
        elif life.state not in task.HELD:
            self._break(event, f"{event.type} of a holding when the task was {life.state.name}", "fence")

    def _count(self, event: Event, life: Life) -> None:
        if event.type == "task.failed" and event.fields.get("charged") == "true":
            if event.fields.get("attribution") != "TASK":
                self._break(event, f"charged for a fault of {event.fields.get('attribution')}", "attempts")
            life.used = {count + 1 for count in life.used}
        elif event.type == "task.refunded":
            life.used = {max(0, count - 1) for count in life.used}
        elif event.type == "task.revived" and event.actor != "hub":
            life.used = {0} if "class" in event.fields else life.used | {0}

    def _break(self, event: Event, message: str, rule: str = "transition") -> None:
        self.violations.append(Violation(rule, event.subject, message, event.position))


def of_type(events: Iterable[Event], *types: str) -> Iterator[Event]:
    """Those of these types."""
    return (event for event in events if event.type in types)
