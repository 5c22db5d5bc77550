"""What a row says: figures, percentiles, and whether the target is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Row:
    """One line of the table."""

    row: str
    """Name for --only."""
    what: str
    target: str
    measured: str
    met: bool | None
    """None: there is no target, the figure is for information."""
    figures: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For the result file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in milliseconds."""

    count: int
    p50: float
    p99: float
    max: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms"


def spread(seconds: Sequence[float]) -> Spread:
    """The distribution of samples in seconds; nearest rank, so a percentile is always a sample."""
    ordered = sorted(seconds)
    last = len(ordered) - 1

    def at(share: float) -> float:
        return ordered[min(last, int(share * len(ordered)))] * 1e3

    return Spread(len(ordered), at(0.5), at(0.99), ordered[last] * 1e3)


def middle(spreads: Sequence[Spread]) -> Spread:
    """The median of each percentile over the rounds of a run; the maximum stays the maximum."""
    return Spread(
        sum(s.count for s in spreads),
        statistics.median(s.p50 for s in spreads),
        statistics.median(s.p99 for s in spreads),
        max(s.max for s in spreads),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table whose columns line up."""
    head = ["what", "target", "measured", "verdict"]
    words = {True: "met", False: "**not met**", None: "-"}
    lines = [head, *([r.what, r.target, r.measured, words[r.met]] for r in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def shown(line: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"

    return "\n".join([shown(head), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(shown, lines[1:])])
