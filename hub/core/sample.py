"""How the figures of the hub went on: a ring of samples of equal length, for the last minutes or hours.

Theory. Two kinds of things are told to a ring. What *happened* at a time is counted into the sample of that time, also
when it is told late (counts of the time before a restart come from the event log, newest first). What was *seen* at a
look (how many wait, how many slots are in use, how long those waited that were assigned since) goes into the sample of
now. A sample in which nothing was seen is a gap for all that can only be seen: absent, and never zero.

Times are kept as counts in buckets whose bounds grow by a tenth, so that any number of them costs the same few bytes;
a percentile is then wrong by a twentieth at most. A sample that is over keeps its percentiles alone.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hub.core.task import Lane

MINUTE_S: Final = 60.0
HOUR_S: Final = 3_600.0
MINUTES_MAX: Final = 1_440
"""A day: a night's work is looked at in the morning. About half a megabyte."""
HOURS_MAX: Final = 720
"""Thirty days, as long as most things are kept."""

_GROWTH: Final = 1.1
_LEAST_S: Final = 0.0001
"""What is shorter counts as this: below a tenth of a millisecond nothing is told apart."""
_BUCKETS_MAX: Final = 260
"""1.1 ** 260 tenths of a millisecond are two months; what is longer counts as that."""
_LOG_GROWTH: Final = math.log(_GROWTH)


class Count(enum.IntEnum):
    """What is counted when it happens."""

    SUBMITTED = 0
    ASSIGNED = 1
    SUCCEEDED = 2
    FAILED = 3
    DEAD = 4
    MERGED = 5


class Spread(NamedTuple):
    """Lengths of time, in short."""

    samples: int
    p50_s: float
    p99_s: float
    max_s: float


class Times:
    """Lengths of time, counted in buckets."""

    __slots__ = ("_counts", "_max", "_size")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._size = 0
        self._max = 0.0

    def add(self, seconds: float) -> None:
        """One more; below 0 (a clock that was set back) counts as 0."""
        bucket = _bucket(seconds)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._size += 1
        self._max = max(self._max, seconds)

    def spread(self) -> Spread | None:
        """In short; None without any."""
        if not self._size:
            return None
        return Spread(self._size, self._at(0.50), self._at(0.99), self._max)

    def _at(self, share: float) -> float:
        rank, seen = math.ceil(share * self._size), 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return min(_middle(bucket), self._max)
        return self._max


class Look(NamedTuple):
    """What was seen at one look."""

    waiting: Mapping[Lane, int]
    """Tasks that wait for an agent."""
    slots: int
    slots_used: int
    waits_s: Iterable[float]
    """From queued to assigned, of the assignments since the look before."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One minute or hour."""

    start_at: float
    """Seconds since the epoch; a multiple of its length."""
    counts: Sequence[int]
    """By `Count`."""
    observed: bool
    """Was anything seen in it? If not, what follows is unknown."""
    waiting: Mapping[Lane, int]
    """The most that were seen at once; lanes without any are left out."""
    slots: int
    slots_used: float
    wait: Spread | None
    run: Spread | None


@dataclass(slots=True)
class _Open:
    """A sample that still grows."""

    counts: list[int] = field(default_factory=lambda: [0] * len(Count))
    looks: int = 0
    waiting: dict[Lane, int] = field(default_factory=dict)
    slots: int = 0
    used_sum: int = 0
    waits: Times | None = None
    runs: Times | None = None
    wait: Spread | None = None
    run: Spread | None = None

    def rest(self) -> None:
        """It is over: the percentiles stay."""
        if self.waits is not None:
            self.wait, self.waits = self.waits.spread(), None
        if self.runs is not None:
            self.run, self.runs = self.runs.spread(), None

    def sample(self, start_at: float) -> Sample:
        """As it is now."""
        return Sample(
            start_at=start_at,
            counts=tuple(self.counts),
            observed=self.looks > 0,
            waiting=dict(self.waiting),
            slots=self.slots,
            slots_used=self.used_sum / self.looks if self.looks else 0.0,
            wait=self.waits.spread() if self.waits is not None else self.wait,
            run=self.runs.spread() if self.runs is not None else self.run,
        )


class Ring:
    """The last `count_max` samples of `step_s` seconds each. Times are seconds since the epoch."""

    def __init__(self, step_s: float, count_max: int) -> None:
        self.step_s = step_s
        self.count_max = count_max
        self._open: dict[int, _Open] = {}
        self._now = 0

    def count(self, what: Count, at: float) -> None:
        """Something happened, now or earlier. What is too old is left out."""
        index = int(at // self.step_s)
        found = self._open.get(index)
        if found is None:
            if index <= self._now - self.count_max:
                return
            found = self._begin(index)
        found.counts[what] += 1

    def ran(self, seconds: float, at: float) -> None:
        """An attempt ended after so long. Left out when its sample is over by now."""
        found = self._open.get(int(at // self.step_s))
        if found is not None and found.runs is not None:
            found.runs.add(seconds)

    def look(self, seen: Look, now: float) -> None:
        """What was seen just now; samples that are over are closed, those that are too old forgotten."""
        self._now = index = int(now // self.step_s)
        one = self._open.get(index) or self._begin(index)
        if one.waits is None:
            one.waits = Times()
        if one.runs is None:
            one.runs = Times()
        one.looks += 1
        for lane, count in seen.waiting.items():
            if count > one.waiting.get(lane, 0):
                one.waiting[lane] = count
        one.slots = max(one.slots, seen.slots)
        one.used_sum += seen.slots_used
        for seconds in seen.waits_s:
            one.waits.add(seconds)
        self._forget(index)

    def forget(self, at: float) -> None:
        """Of this time only a part is known: better nothing. What was seen stays."""
        found = self._open.get(int(at // self.step_s))
        if found is not None and not found.looks:
            del self._open[int(at // self.step_s)]

    def samples(self, now: float, count: int) -> list[Sample]:
        """The last `count` steps up to now, oldest first; those of which nothing is known are left out."""
        last = int(now // self.step_s)
        wanted = sorted(index for index in self._open if last - count < index <= last)
        return [self._open[index].sample(index * self.step_s) for index in wanted]

    def _begin(self, index: int) -> _Open:
        made = self._open[index] = _Open()
        if index >= self._now:
            made.runs = Times()
        if len(self._open) > self.count_max + 1:
            del self._open[min(self._open)]
        return made

    def _forget(self, now: int) -> None:
        """A clock that was set back leaves samples of the future, which go as well."""
        for index in [index for index in self._open if not now - self.count_max < index <= now]:
            del self._open[index]
        for index, one in self._open.items():
            if index < now and (one.waits is not None or one.runs is not None):
                one.rest()


def _bucket(seconds: float) -> int:
    if seconds <= _LEAST_S:
        return 0
    return min(_BUCKETS_MAX, math.ceil(math.log(seconds / _LEAST_S) / _LOG_GROWTH))


def _middle(bucket: int) -> float:
    """The value that is nearest to all of a bucket, in proportion."""
    return float(_LEAST_S * 2 * _GROWTH**bucket / (1 + _GROWTH)) if bucket else _LEAST_S
