"""The figures of the hub, put together when they are asked for from numbers that are kept anyway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from hub.core import agent_state
from hub.core.agent import State as AgentState
from hub.core.task import Lane, State
from hub.engine.live.context import Context
from hub.engine.live.fleet import Fleet
from hub.store.base import Reader

CLASSES_MAX: Final = 512
"""Classes whose heads are looked at for the oldest queued task: a few milliseconds."""


class Percentiles(NamedTuple):
    """A distribution."""

    samples: int
    p50_s: float
    p99_s: float
    max_s: float


class Stats(NamedTuple):
    """What GetStats tells."""

    tasks: Mapping[tuple[State, Lane], int]
    agents: Mapping[AgentState, int]
    slots: int
    slots_used: int
    oldest_queued_s: float | None
    submitted: int
    assigned: int
    completed: int
    failed: int
    fenced: int
    waits: Percentiles | None
    commits: int
    writes: int
    refused_requests: int
    sessions: int
    adopted: int
    throttled: int


def collect(ctx: Context, fleet: Fleet, refused_requests: Callable[[], int]) -> Stats:
    """The figures as of now."""
    now = ctx.clock.now()
    states: Counter[AgentState] = Counter()
    slots = slots_used = sessions = 0
    for seat in fleet:
        states[agent_state.derive(seat.facts(now))] += 1
        sessions += seat.online
        if seat.available(now):
            slots += seat.profile.offer.slots
            slots_used += seat.used
    counts, oldest_at = ctx.store.read(_tasks)
    facts, figures = ctx.store.facts(), ctx.figures
    return Stats(
        tasks=counts,
        agents=states,
        slots=slots,
        slots_used=slots_used,
        oldest_queued_s=None if oldest_at is None else max(0.0, now - oldest_at),
        submitted=figures.submitted,
        assigned=figures.assigned,
        completed=figures.completed,
        failed=figures.failed,
        fenced=figures.fenced,
        waits=percentiles(figures.waits),
        commits=facts.commits,
        writes=facts.writes,
        refused_requests=figures.refused_requests + refused_requests(),
        sessions=sessions,
        adopted=figures.adopted,
        throttled=figures.throttled,
    )


def percentiles(samples: Sequence[float]) -> Percentiles | None:
    """Of some samples; None without any."""
    if not samples:
        return None
    ordered = sorted(samples)
    last = len(ordered) - 1
    return Percentiles(len(ordered), ordered[last // 2], ordered[round(last * 0.99)], ordered[last])


def _tasks(reader: Reader) -> tuple[Mapping[tuple[State, Lane], int], float | None]:
    counts = reader.counts()
    if not any(count for (state, _), count in counts.items() if state is State.QUEUED):
        return counts, None
    heads = (head for known in reader.classes()[:CLASSES_MAX] for head in reader.ready_heads(known.id))
    return counts, min((head.queued_at for head in heads), default=None)
