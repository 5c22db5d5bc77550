"""Spans and their names: one trace from a goal to its merge, across processes and restarts.

Theory. The id of a trace follows from the goal (or, without one, from the task), the id of a span from what it is of:
a goal, a task, an attempt, a change. So whoever knows a holding knows its span, after a restart and on another machine,
too; nothing is stored and nothing has to be handed on but the one line in the assignment that tells it to the sidecar
(`traceparent`, as W3C trace context spells it). Whether a trace is kept follows from its id as well, so all programs
keep the same ones. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED: Final = 1
_LOW_64: Final = (1 << 64) - 1


class Span(NamedTuple):
    """One thing that took time, and has ended."""

    trace: int
    id: int
    parent: int
    """Id of the span around it; 0: it is the outermost."""
    name: str
    started_at: float
    ended_at: float
    good: bool
    attributes: Mapping[str, str]
    link: int = 0
    """Id of the span of the same trace that it follows from: the attempt before this one, the attempt that made the
    change; 0: of none."""


class Parent(NamedTuple):
    """The span that somebody else begins and ends, and that ours belong to."""

    trace: int
    span: int
    sampled: bool = True


def trace_of(goal: str, task: str) -> int:
    """The trace of a task: of its goal when it has one. Both are ids; 128 bits, never 0."""
    return _hash(f"goals/{goal}" if goal else f"tasks/{task}", 16)


def span_of(name: str, generation: int = 0) -> int:
    """The span of a goal, a change or a task (a resource name), or of an attempt at a task. 64 bits, never 0."""
    return _hash(f"{name}/{generation}" if generation else name, 8)


def span_in(parent: Parent, name: str, number: int) -> int:
    """The span of the `number`th thing of a name that happened inside of `parent`. 64 bits, never 0."""
    return _hash(f"{parent.span:016x}/{name}/{number}", 8)


def traceparent(trace: int, span: int, *, sampled: bool = True) -> str:
    """As W3C trace context spells it."""
    return f"00-{trace:032x}-{span:016x}-{_SAMPLED if sampled else 0:02x}"


def parse(text: str) -> Parent | None:
    """What a traceparent says; None when it says nothing, or nothing that is one."""
    found = _TRACEPARENT.match(text)
    if found is None or text.startswith("ff"):
        return None
    parent = Parent(int(found[1], 16), int(found[2], 16), sampled=bool(int(found[3], 16) & _SAMPLED))
    return parent if parent.trace and parent.span else None


def told(parent: Parent | None) -> dict[str, str]:
    """The fields by which a record of the log leads to its span; none: nobody traces."""
    return {} if parent is None else {"trace_id": f"{parent.trace:032x}", "span_id": f"{parent.span:016x}"}


def is_sampled(trace: int, ratio: float) -> bool:
    """Is this trace among the part `ratio` (0 to 1) that is kept? By its low half, as OpenTelemetry's own samplers."""
    return trace & _LOW_64 < round(ratio * (1 << 64))


def _hash(text: str, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big") or 1
