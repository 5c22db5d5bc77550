"""Spans and their names: one trace from a goal to its merge, without a word of it in any record.

Theory. The id of a trace follows from the goal (or, without one, from the task), the id of a span from what it is of:
a goal, a task, an attempt. So whoever knows a holding knows its span, after a restart and on another machine, too;
nothing is stored and nothing has to be handed on but the one line in the assignment that tells it to the sidecar.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple


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
    """Id of the attempt before this one; 0: it is the first."""


def trace_of(goal: str, task: str) -> int:
    """The trace of a task: of its goal when it has one. Both are ids; 128 bits, never 0."""
    return _hash(f"goals/{goal}" if goal else f"tasks/{task}", 16)


def span_of(name: str, generation: int = 0) -> int:
    """The span of a goal or task (a resource name), or of an attempt at a task. 64 bits, never 0."""
    return _hash(f"{name}/{generation}" if generation else name, 8)


def traceparent(trace: int, span: int) -> str:
    """As W3C trace context spells it, sampled."""
    return f"00-{trace:032x}-{span:016x}-01"


def _hash(text: str, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big") or 1
