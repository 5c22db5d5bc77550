"""What the engine counts for the catalogue of metrics: from committed events, and from what passes by anyway.

Nothing here is asked of the store: a commit's events tell most, and what they do not tell (how long a task waited,
what its checks said) is handed over by whoever has the record in hand at that moment. A few dict additions for each
event; no call to the outside (see `kit.tally`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from hub.core.event import EVENT_TYPES, Event
from hub.core.holding import Holding
from hub.core.task import Lane, Receipt, State, Task
from hub.engine.live.context import Context
from hub.store.base import Reader
from kit import ids, metrics
from kit.tally import Counter, Seen, Tally

Duty = Callable[[Event], None]

Look = Callable[[str, str, int, float], Seen | None]
"""Where a value of an attempt was seen: by the ids of its goal (may be empty) and task, its generation and the time."""

RUNNING_MAX: Final = 20_000
"""Begun attempts whose start is remembered: more than any fleet runs at once; `attempt.run` lacks those beyond."""

_STAYS: Final = frozenset({"task.fenced", "task.refunded", "task.stuck"})
"""Events of a running task after which it still runs."""

_BEFORE: Final = frozenset({"task.created", "task.assigned", "task.accepted"})
"""Events of a task that comes to run: none of them ends an attempt."""

_OUTCOMES: Final = {"task.succeeded": "completed", "task.pushed": "completed", "task.failed": "failed"}
"""What an event of a running task says of its attempt; any other: it was returned."""

_TASK: Final = len("tasks/")

_LANES: Final = {lane: lane.name.lower() for lane in Lane}


class Tallies:
    """Counts what happens in one hub, from its creation on."""

    def __init__(self, ctx: Context, look: Look | None = None) -> None:
        """`look` finds the exemplars' traces; None: nobody traces."""
        self._ctx = ctx
        self._look = look
        self.tally = tally = Tally(ctx.clock.now())
        self._wait = tally.histogram(metrics.WAIT)
        self._end_to_end = tally.histogram(metrics.END_TO_END)
        self._run = tally.histogram(metrics.RUN)
        self._dispatch = tally.histogram(metrics.DISPATCH)
        self._checks = tally.counter(metrics.CHECKS)
        self._check_duration = tally.histogram(metrics.CHECK_DURATION)
        self._opened = tally.counter(metrics.SESSION_OPENED)
        self._retried = tally.counter(metrics.RETRIED)
        #: Tasks that run: when their attempt was accepted, and its generation.
        self._accepted: dict[str, tuple[float, int]] = ctx.store.read(_running)
        self._known = self._duties()
        ctx.bus.listen(self._committed)
        ctx.figures.on_wait = self._waited
        ctx.figures.on_receipts = self._checked

    def timed(self, run_once: Callable[[float], Awaitable[object]]) -> Callable[[float], Awaitable[object]]:
        """The dispatcher's duty, with a look at the clock before and after."""

        async def run(now: float) -> None:
            began = time.perf_counter()
            try:
                await run_once(now)
            finally:
                self._dispatch.observe(time.perf_counter() - began)

        return run

    def _waited(self, seconds: float, lane: Lane, task: Task | None) -> None:
        look, seen = self._look, None
        if look is not None and task is not None:
            seen = look(task.goal, task.id, task.generation, task.assigned_at or 0.0)
        self._wait.observe(seconds, _LANES[lane], seen=seen)

    def _checked(self, receipts: Iterable[tuple[Receipt, Holding]]) -> None:
        for one, holding in receipts:
            phase = one.phase.name.lower() if one.phase is not None else metrics.UNKNOWN
            self._checks.add(phase, one.verdict.name.lower())
            self._check_duration.observe(one.duration_s, phase, seen=self._checked_in(holding))

    def _checked_in(self, holding: Holding) -> Seen | None:
        """The trace of a check; its goal is in the record alone."""
        if self._look is None:
            return None
        task = self._ctx.store.read(lambda reader: reader.task(holding.task))
        return None if task is None else self._look(task.goal, task.id, holding.generation, self._ctx.clock.now())

    def _duties(self) -> dict[str, tuple[Duty, ...]]:
        """What is done at an event of each type: one look-up for each event, and nothing for most types."""
        found: dict[str, list[Duty]] = {type: [] for type in EVENT_TYPES}
        for type, (metric, value) in _PLAIN.items():
            found[type].append(_count(self.tally.counter(metric), value))
        for type, (metric, field) in _SPLIT.items():
            found[type].append(_count_by(self.tally.counter(metric), field))
        for type, duties in found.items():
            if type.startswith("task.") and type not in _STAYS | _BEFORE:
                duties.append(self._stopped)
        found["agent.attached"].append(self._attached)
        found["task.assigned"].append(self._assigned)
        found["task.accepted"].append(self._began)
        found["task.succeeded"].append(self._succeeded)
        found["task.dead"].append(_count(self.tally.counter(metrics.TASK_ENDED), ("dead",)))
        return {type: tuple(duties) for type, duties in found.items() if duties}

    def _committed(self, events: Sequence[Event]) -> None:
        known = self._known
        for event in events:
            for duty in known.get(event.type, ()):
                duty(event)

    def _attached(self, event: Event) -> None:
        self._opened.add("resumed" if event.fields.get("resumed") == "true" else "new")

    def _assigned(self, event: Event) -> None:
        if event.fields.get("generation") != "1":
            self._retried.add()

    def _began(self, event: Event) -> None:
        if len(self._accepted) < RUNNING_MAX:
            self._accepted[event.subject[_TASK:]] = (event.at, int(event.fields.get("generation", "0")))

    def _stopped(self, event: Event) -> None:
        id = event.subject[_TASK:]
        began, generation = self._accepted.pop(id, (None, 0))
        if began is not None:
            seen = self._look(event.goal, id, generation, event.at) if self._look is not None else None
            self._run.observe(event.at - began, _OUTCOMES.get(event.type, "returned"), seen=seen)

    def _succeeded(self, event: Event) -> None:
        id = event.subject[_TASK:]
        seen = self._look(event.goal, id, 0, event.at) if self._look is not None else None
        self._end_to_end.observe(event.at - ids.made_at(id), seen=seen)


def _count(counter: Counter, key: tuple[str, ...]) -> Duty:
    return lambda _event: counter.add(*key)


def _count_by(counter: Counter, field: str) -> Duty:
    return lambda event: counter.add(event.fields.get(field, metrics.UNKNOWN).lower())


_PLAIN: Final[dict[str, tuple[metrics.Metric, tuple[str, ...]]]] = {
    "task.created": (metrics.SUBMITTED, ()),
    "task.assigned": (metrics.ASSIGNED, ()),
    "task.revived": (metrics.REVIVED, ()),
    "task.rejected": (metrics.REJECTED, ()),
    "task.succeeded": (metrics.TASK_ENDED, ("succeeded",)),
    "task.cancelled": (metrics.TASK_ENDED, ("cancelled",)),
    "task.stuck": (metrics.STUCK, ()),
    "task.fenced": (metrics.FENCED, ()),
    "change.merged": (metrics.CHANGE_ENDED, ("merged",)),
    "change.returned": (metrics.CHANGE_ENDED, ("returned",)),
    "change.abandoned": (metrics.CHANGE_ENDED, ("abandoned",)),
    "goal.succeeded": (metrics.GOAL_ENDED, ("succeeded",)),
    "goal.failed": (metrics.GOAL_ENDED, ("failed",)),
    "goal.cancelled": (metrics.GOAL_ENDED, ("cancelled",)),
    "agent.isolated": (metrics.ISOLATED, ()),
    "agent.detached": (metrics.SESSION_ENDED, ()),
    "violator.refused": (metrics.SHUT_OUT, ()),
}
"""Events that count as one of something."""

_SPLIT: Final[dict[str, tuple[metrics.Metric, str]]] = {
    "task.failed": (metrics.FAILED, "attribution"),
    "task.dead": (metrics.DEAD, "attribution"),
    "alert.raised": (metrics.ALERT_RAISED, "severity"),
}
"""Events that count by one of their fields."""


def _running(reader: Reader) -> dict[str, tuple[float, int]]:
    found = reader.tasks_in([State.RUNNING], list(Lane), limit=RUNNING_MAX)
    return {task.id: (task.accepted_at, task.generation) for task in found if task.accepted_at is not None}
