"""The numbers behind the catalogue: plain integers that are counted where things happen, and snapshots of them.

Theory. A call of OpenTelemetry costs microseconds, and a busy hub would make ten of them for each task. So nothing on
the way of a task knows of it: a count is one addition in a dict whose keys are known beforehand, a distribution one
binary search. What is told to the outside is made from a snapshot, when somebody asks: `kit.promtext`, `kit.otlp`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

from kit import metrics
from kit.metrics import Kind, Metric

Key = tuple[str, ...]
"""Values of the attributes of a metric, in its order; empty: it has none."""


class Seen(NamedTuple):
    """Where a value was seen: the span that tells more of it."""

    at: float
    """Seconds since the epoch."""
    trace: int
    span: int


class Exemplar(NamedTuple):
    """One value of a bucket, with where it was seen."""

    value: float
    seen: Seen


class Spread(NamedTuple):
    """A distribution."""

    counts: tuple[int, ...]
    """By bucket, not cumulated; the last one has no bound."""
    total: float
    exemplars: tuple[Exemplar | None, ...] = ()
    """By bucket, the newest of each; empty: nobody traces."""

    @property
    def size(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class Family(NamedTuple):
    """A metric with all that is known of it."""

    metric: Metric
    numbers: Mapping[Key, float]
    """Of a counter or gauge."""
    spreads: Mapping[Key, Spread]
    """Of a histogram."""


class Snapshot(NamedTuple):
    """Everything, as of one moment; it does not change any more."""

    started_at: float
    """Since when is counted, in seconds since the epoch."""
    at: float
    families: tuple[Family, ...]


class Counter:
    """Counts of one metric."""

    __slots__ = ("_rest", "cells")

    def __init__(self, metric: Metric) -> None:
        assert metric.kind is Kind.COUNTER, metric.name
        self.cells: dict[Key, int] = dict.fromkeys(metric.series, 0)
        self._rest = (metrics.UNKNOWN,) * len(metric.attributes)

    def add(self, *key: str, by: int = 1) -> None:
        """Count one more. Values that are not in the catalogue are counted as unknown: series are bounded."""
        cells = self.cells
        if key in cells:
            cells[key] += by
        else:
            cells[self._rest] = cells.get(self._rest, 0) + by


class Histogram:
    """Distributions of one metric. One thread may observe while another one takes a snapshot."""

    __slots__ = ("_bounds", "_cells", "_rest")

    def __init__(self, metric: Metric) -> None:
        assert metric.kind is Kind.HISTOGRAM and metric.bounds == tuple(sorted(metric.bounds)), metric.name
        self._bounds = metric.bounds
        self._cells = {key: self._empty() for key in metric.series}
        self._rest = (metrics.UNKNOWN,) * len(metric.attributes)

    def observe(self, value: float, *key: str, seen: Seen | None = None) -> None:
        """Count a value; one below 0 (a clock that was set back) counts as 0. `seen` makes it its bucket's exemplar."""
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells.setdefault(self._rest, self._empty())
        value = max(value, 0.0)
        bucket = bisect_left(self._bounds, value)
        cell[0][bucket] += 1
        cell[1][0] += value
        if seen is not None:
            cell[2][bucket] = Exemplar(value, seen)

    def spreads(self) -> dict[Key, Spread]:
        """As of now."""
        return {
            key: Spread(tuple(counts), total[0], tuple(map(newest.get, range(len(counts)))) if newest else ())
            for key, (counts, total, newest) in list(self._cells.items())
        }

    def _empty(self) -> tuple[list[int], list[float], dict[int, Exemplar]]:
        return [0] * (len(self._bounds) + 1), [0.0], {}


class Tally:
    """All that a process counts."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._counters: dict[Metric, Counter] = {}
        self._histograms: dict[Metric, Histogram] = {}

    def counter(self, metric: Metric) -> Counter:
        """Its counts."""
        return self._counters.setdefault(metric, Counter(metric))

    def histogram(self, metric: Metric) -> Histogram:
        """Its distributions."""
        return self._histograms.setdefault(metric, Histogram(metric))

    def snapshot(self, at: float, given: Mapping[Metric, Mapping[Key, float]]) -> Snapshot:
        """Everything, with what is `given`: gauges, and counts that somebody else keeps anyway."""
        families = []
        for metric in metrics.CATALOGUE:
            if metric in self._histograms:
                families.append(Family(metric, {}, self._histograms[metric].spreads()))
            elif metric in self._counters:
                families.append(Family(metric, dict(self._counters[metric].cells), {}))
            elif metric in given:
                families.append(Family(metric, dict(given[metric]), {}))
        return Snapshot(self._started_at, at, tuple(families))
