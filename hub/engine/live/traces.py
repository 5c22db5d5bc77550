"""Spans of goals, tasks and attempts, made from the committed events that end them.

A span is made when it ends, from what its event tells and what its id tells (`kit.tracing`). They wait in a bounded
line for whoever pushes them; when nobody takes them, the oldest go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from hub.core.event import Event
from hub.core.task import Task
from hub.engine.live.context import Context
from kit import ids, tracing

SPANS_MAX: Final = 4_096
"""Spans that wait for the push: some seconds of a busy hub, four megabytes. Beyond it the oldest are given up."""

BEGUN_MAX: Final = 20_000
"""Attempts under way whose start is remembered: more than any fleet runs at once; there is no span of those beyond."""

_STAYS: Final = frozenset({"task.fenced", "task.refunded", "task.stuck", "task.created", "task.assigned"})
_TASK_ENDS: Final = {"task.succeeded": True, "task.cancelled": False, "task.dead": False}
_GOAL_ENDS: Final = {"goal.succeeded": True, "goal.cancelled": False, "goal.failed": False}
_GOOD: Final = frozenset({"task.succeeded", "task.pushed"})


class Traces:
    """Makes spans of one hub."""

    def __init__(self, ctx: Context) -> None:
        #: Ended and not pushed; the thread of the push takes them from the left.
        self.ended: deque[tracing.Span] = deque(maxlen=SPANS_MAX)
        #: Attempts under way: when they were accepted, their generation and agent.
        self._begun: dict[str, tuple[float, int, str]] = {}
        ctx.bus.listen(self._committed)

    def of_assignment(self, task: Task) -> str:
        """The trace context that the sidecar is told with an assignment."""
        span = tracing.span_of(f"tasks/{task.id}", task.generation)
        return tracing.traceparent(tracing.trace_of(task.goal, task.id), span)

    def _committed(self, events: Sequence[Event]) -> None:
        for event in events:
            kind, _, id = event.subject.partition("/")
            if kind == "tasks" and event.type not in _STAYS:
                self._task(event, id)
            elif event.type in _GOAL_ENDS:
                self._ended(event, id, parent=0, good=_GOAL_ENDS[event.type])

    def _task(self, event: Event, id: str) -> None:
        if event.type == "task.accepted":
            if len(self._begun) < BEGUN_MAX:
                fields = event.fields
                self._begun[id] = (event.at, int(fields.get("generation", "1")), fields.get("agent", ""))
            return
        begun = self._begun.pop(id, None)
        if begun is not None:
            self._attempt(event, id, *begun)
        good = _TASK_ENDS.get(event.type)
        if good is not None:
            self._ended(event, id, parent=tracing.span_of(f"goals/{event.goal}") if event.goal else 0, good=good)

    def _attempt(self, event: Event, id: str, at: float, generation: int, agent: str) -> None:
        span = tracing.Span(
            trace=tracing.trace_of(event.goal, id),
            id=tracing.span_of(event.subject, generation),
            parent=tracing.span_of(event.subject),
            name="attempt",
            started_at=at,
            ended_at=event.at,
            good=event.type in _GOOD,
            attributes={**_told(event), "agentcom.agent": agent, "agentcom.generation": str(generation)},
            link=tracing.span_of(event.subject, generation - 1) if generation > 1 else 0,
        )
        self.ended.append(span)

    def _ended(self, event: Event, id: str, *, parent: int, good: bool) -> None:
        """A goal or a task, from its filing on."""
        span = tracing.Span(
            trace=tracing.trace_of(event.goal, id),
            id=tracing.span_of(event.subject),
            parent=parent,
            name=event.subject.partition("s/")[0],
            started_at=ids.made_at(id),
            ended_at=event.at,
            good=good,
            attributes=_told(event),
        )
        self.ended.append(span)


def _told(event: Event) -> dict[str, str]:
    """What an event says of the end: ids are what a span is for, so they are here, and never on a metric."""
    told = {"agentcom.subject": event.subject, "agentcom.event": event.type}
    if "reason" in event.fields:
        told["agentcom.reason"] = event.fields["reason"]
    return told
