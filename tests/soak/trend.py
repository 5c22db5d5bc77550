"""Does a figure grow? A straight line through the samples of the steady part, with the error of its slope.

Samples that follow each other are alike, so their number says little: they are averaged in blocks first, and the error
comes from how far the blocks lie off the line. A figure grows when even the low end of the slope would, over the part
that was looked at, come to more than what is allowed for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

BLOCKS_MAX = 16
#: Fewer say nothing about an error.
BLOCKS_MIN = 4
#: Standard errors that the slope may be off by: one in a few hundred figures is called growing by chance.
ERRORS = 3.0


class Sample(NamedTuple):
    """A figure at a time, in seconds."""

    at: float
    value: float


class Trend(NamedTuple):
    """The line."""

    mean: float
    slope_per_s: float
    error_per_s: float
    span_s: float

    @property
    def growth(self) -> float:
        """Over the part that was looked at."""
        return self.slope_per_s * self.span_s

    @property
    def growth_error(self) -> float:
        return self.error_per_s * self.span_s

    @property
    def growth_at_least(self) -> float:
        """What it grew by for certain."""
        return self.growth - ERRORS * self.growth_error


def fit(samples: Sequence[Sample]) -> Trend:
    """The line through the samples. Raises ValueError when there are too few for it."""
    blocks = _blocks(samples)
    count = len(blocks)
    mean_at = sum(block.at for block in blocks) / count
    mean = sum(block.value for block in blocks) / count
    spread = sum((block.at - mean_at) ** 2 for block in blocks)
    slope = sum((block.at - mean_at) * (block.value - mean) for block in blocks) / spread
    off = sum((block.value - mean - slope * (block.at - mean_at)) ** 2 for block in blocks)
    error = math.sqrt(off / (count - 2) / spread)
    return Trend(mean, slope, error, samples[-1].at - samples[0].at)


def grows(trend: Trend, allowed: float) -> bool:
    """Is it certain that it grew by more than that?"""
    return trend.growth_at_least > allowed


def _blocks(samples: Sequence[Sample]) -> list[Sample]:
    """Means of equal shares of the samples."""
    count = min(BLOCKS_MAX, len(samples) // 2)
    if count < BLOCKS_MIN:
        raise ValueError(f"{len(samples)} samples are too few for a slope with an error")
    edges = [round(number * len(samples) / count) for number in range(count + 1)]
    return [
        Sample(*(sum(column) / (last - first) for column in zip(*samples[first:last], strict=True)))
        for first, last in itertools.pairwise(edges)
    ]
