"""Spans of goals, tasks, attempts and changes, made from the committed events that end them.

A span is made when it ends, from what its event and its record tell and from what its id tells (`kit.tracing`). So
nothing of it is kept meanwhile, and a hub that was killed makes those that it could not push any more from the event
log (`replay`): the same ones, with the same ids.

    goal
      task (WORK)
        attempt, attempt (a link to the one before it)
        change (a link to the attempt that made it)
          task (MERGE)
            attempt
      task (VERIFY)
        attempt

A task, and a goal, that is retried by hand after its end has a further span from then on, with a link to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hub.core.event import Event
from hub.core.task import Attempt, AttemptOutcome, Kind, Task
from hub.engine.live.context import Context
from hub.store.base import Reader
from kit import ids, tally, tracing
from kit.backlog import Backlog

CHUNK: Final = 256
"""Events read at once when the log is replayed."""

REPLAY_MAX: Final = 20_000
"""Events that a start looks through at most, the newest: half a second, and what a busy hub writes between two pushes
that are 15 s apart."""

REPOS_MAX: Final = 1_000_000
"""All of them: there are dozens."""

TRAIN_LOOK: Final = 100
"""Changes of a train that are looked at for the one that is being merged: it is the oldest."""

HISTORY_MAX: Final = 1_000
"""Events of one goal or task that are looked through for retries by hand."""

_STAYS: Final = frozenset(
    {"task.created", "task.assigned", "task.accepted", "task.rejected", "task.fenced", "task.refunded", "task.stuck"}
)
"""Events that name a generation and end no attempt; after a rejection another one says what becomes of the task."""
_TASK_ENDS: Final = {"task.succeeded": True, "task.cancelled": False, "task.dead": False}
_GOAL_ENDS: Final = {"goal.succeeded": True, "goal.cancelled": False, "goal.failed": False}
_CHANGE_ENDS: Final = {"change.merged": True, "change.returned": False, "change.abandoned": False}
_REVIVALS: Final = frozenset({"task.revived", "goal.revived"})


class Traces:
    """Makes spans of one hub."""

    def __init__(self, ctx: Context, spans: Backlog, *, ratio: float = 1.0) -> None:
        """Ended spans go to `spans`, those of the part `ratio` of all traces."""
        self._ctx = ctx
        self._spans = spans
        self._ratio = ratio
        #: MERGE tasks without a goal: the task whose change they bring in. One a repo, for trains are serial.
        self._authors: dict[str, str] = ctx.store.read(_authors)
        spans.mark = spans.pushed = ctx.bus.position
        ctx.bus.listen(self._committed)

    def of_assignment(self, task: Task) -> str:
        """The trace context that the sidecar is told with an assignment."""
        trace = self._trace(task.goal, task.id)
        span = tracing.span_of(f"tasks/{task.id}", task.generation)
        return tracing.traceparent(trace, span, sampled=tracing.is_sampled(trace, self._ratio))

    def seen(self, goal: str, task: str, generation: int, at: float) -> tally.Seen | None:
        """Where a value of an attempt (of the task itself: 0) was seen; None when its trace is not kept."""
        trace = self._trace(goal, task)
        if not tracing.is_sampled(trace, self._ratio):
            return None
        return tally.Seen(at, trace, tracing.span_of(f"tasks/{task}", generation))

    def replay(self, after: int) -> int:
        """Make the spans that ended behind a position of the log, which a hub that is dead did not push; how many."""
        store, last = self._ctx.store, self._ctx.bus.position
        position = self._spans.pushed = max(after, last - REPLAY_MAX)
        before = len(self._spans) + self._spans.dropped
        while position < last:
            chunk = store.read(lambda reader, after=position: reader.events(after=after, limit=CHUNK))  # type: ignore[misc]  # mypy types no default of a lambda
            if not chunk:
                break
            self._committed(chunk)
            position = chunk[-1].position
        return len(self._spans) + self._spans.dropped - before

    def _trace(self, goal: str, task: str) -> int:
        return tracing.trace_of(goal, self._authors.get(task, task))

    def _committed(self, events: Sequence[Event]) -> None:
        wanted = [event for event in events if _ends(event) or event.type == "change.merging"]
        if wanted:
            self._ctx.store.read(lambda reader: self._make(reader, wanted))
        if events:
            self._spans.mark = events[-1].position

    def _make(self, reader: Reader, events: Sequence[Event]) -> None:
        for event in events:
            self._made(reader, event)

    def _made(self, reader: Reader, event: Event) -> None:
        kind, _, id = event.subject.partition("/")
        author = event.fields.get("task", "").removeprefix("tasks/")
        if event.type == "change.merging":
            if not event.goal:
                self._authors[event.fields["merge_task"].removeprefix("tasks/")] = author
            return
        trace = self._trace(event.goal, author if kind == "changes" else id)
        if tracing.is_sampled(trace, self._ratio):
            if kind == "tasks":
                self._task(reader, event, id, trace)
            elif kind == "goals":
                history = reader.events_of(event.subject, limit=HISTORY_MAX)
                self._whole(event, trace, history, parent=0, good=_GOAL_ENDS[event.type])
            else:
                self._change(reader, event, id, trace)
        if event.type in _TASK_ENDS:
            self._authors.pop(id, None)

    def _task(self, reader: Reader, event: Event, id: str, trace: int) -> None:
        generation = int(event.fields.get("generation", "0"))
        attempt = reader.attempt(id, generation) if generation else None
        if attempt is not None:
            self._attempt(event, attempt, trace)
        good = _TASK_ENDS.get(event.type)
        if good is None:
            return
        task = reader.task(id)
        parent = tracing.span_of(f"goals/{event.goal}") if event.goal else 0
        told: dict[str, str] = {}
        history: Sequence[Event] = ()
        # Most tasks wait once, from their filing on, and are given to somebody once: none of those was ever revived.
        if task is None or task.generation > 1 or task.queued_at != task.created_at:
            history = reader.events_of(event.subject, limit=HISTORY_MAX)
        if task is not None:
            told = {"agentcom.kind": task.kind.name.lower(), "agentcom.lane": task.lane.name.lower()}
            if task.kind is Kind.MERGE:
                parent = tracing.span_of(f"changes/{task.change}")
        self._whole(event, trace, history, parent=parent, good=good, told=told)

    def _attempt(self, event: Event, attempt: Attempt, trace: int) -> None:
        generation = attempt.generation
        told = {"agentcom.agent": attempt.agent, "agentcom.generation": str(generation)}
        span = tracing.Span(
            trace=trace,
            id=tracing.span_of(event.subject, generation),
            parent=tracing.span_of(event.subject),
            name="attempt",
            started_at=attempt.assigned_at,  # the sidecar begins before the hub has heard that it does
            ended_at=event.at,
            good=attempt.outcome is AttemptOutcome.COMPLETED,
            attributes={**_told(event), **told, "agentcom.outcome": attempt.outcome.name.lower()},
            link=tracing.span_of(event.subject, generation - 1) if generation > 1 else 0,
        )
        self._spans.add(span)

    def _change(self, reader: Reader, event: Event, id: str, trace: int) -> None:
        change = reader.changes.get(id)
        if change is None:
            return  # forgotten meanwhile: the log was replayed late
        span = tracing.Span(
            trace=trace,
            id=tracing.span_of(event.subject),
            parent=tracing.span_of(f"tasks/{change.task}"),
            name="change",
            started_at=change.created_at,
            ended_at=event.at,
            good=_CHANGE_ENDS[event.type],
            attributes={**_told(event), "agentcom.repo": f"repos/{change.repo}"},
            link=tracing.span_of(f"tasks/{change.task}", change.generation),
        )
        self._spans.add(span)

    def _whole(
        self,
        event: Event,
        trace: int,
        history: Sequence[Event],
        *,
        parent: int,
        good: bool,
        told: dict[str, str] | None = None,
    ) -> None:
        """A goal or a task, from its filing (or its newest retry by hand, which is in its `history`) on."""
        first, began = tracing.span_of(event.subject), ids.made_at(event.subject.partition("/")[2])
        revived = [one.at for one in history if one.type in _REVIVALS and one.position < event.position]
        span = tracing.Span(
            trace=trace,
            id=tracing.span_of(event.subject, -len(revived)) if revived else first,
            parent=parent,
            name=event.subject.partition("s/")[0],
            started_at=revived[-1] if revived else began,
            ended_at=event.at,
            good=good,
            attributes={**_told(event), **(told or {})},
            link=first if revived else 0,
        )
        self._spans.add(span)


def _ends(event: Event) -> bool:
    """Does a span end with it?"""
    if event.type in _TASK_ENDS or event.type in _GOAL_ENDS or event.type in _CHANGE_ENDS:
        return True
    return event.type.startswith("task.") and event.type not in _STAYS and "generation" in event.fields


def _told(event: Event) -> dict[str, str]:
    """What an event says of the end: ids are what a span is for, so they are here, and never on a metric."""
    told = {"agentcom.subject": event.subject, "agentcom.event": event.type}
    if "reason" in event.fields:
        told["agentcom.reason"] = event.fields["reason"]
    return told


def _authors(reader: Reader) -> dict[str, str]:
    """MERGE tasks without a goal that have not ended, by the train that each is the head of."""
    trains = [reader.train(repo.id, TRAIN_LOOK) for repo in reader.repos.page(limit=REPOS_MAX)]
    changes = [change for train in trains for change in train if change.merge_task and not change.goal]
    return {change.merge_task: change.task for change in changes}
