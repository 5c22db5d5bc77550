"""Numbers over a window of time that moves on: what happened within it, and how something grew in it.

Both are kept in a fixed number of cells, so neither grows with what is counted; `now` is passed in and must not go
back. A clock that is set back empties them: what they knew is of another time.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import NamedTuple


class Sums(NamedTuple):
    """What happened within the window."""

    ended: int
    failed: int


class Rate:
    """Counts of what ended, and of what of it failed, within the last `window_s`, to a cell's length."""

    def __init__(self, window_s: float, *, cells: int = 30) -> None:
        self._cell_s = window_s / cells
        #: [number of the cell, ended, failed], oldest first. Lists, for one of them is counted up at each end.
        self._cells: deque[list[int]] = deque([[-1, 0, 0]], maxlen=cells + 1)
        self._window_cells = cells

    def add(self, now: float, *, failed: bool) -> None:
        """Something ended."""
        cell = int(now / self._cell_s)
        last = self._cells[-1]
        if last[0] != cell:
            if last[0] > cell:
                self._cells.clear()
            last = [cell, 0, 0]
            self._cells.append(last)
        last[1] += 1
        last[2] += failed

    def sums(self, now: float) -> Sums:
        """Of the window that ends now."""
        cell = int(now / self._cell_s)
        kept = [(ended, bad) for at, ended, bad in self._cells if cell - self._window_cells < at <= cell]
        return Sums(sum(ended for ended, _ in kept), sum(bad for _, bad in kept))


class Growth(NamedTuple):
    """By how much something is more than a window ago."""

    in_all: int
    steady: int
    """The same, if it grew in each third of the window; 0 if not: what came at once and is worked off grew in one."""


class Trail:
    """A number as it was at each look of the last `window_s`."""

    def __init__(self, window_s: float, *, looks: int = 120) -> None:
        self._window_s = window_s
        self._step_s = window_s / looks
        #: (when, number), oldest first; one of them is older than the window, as soon as it was watched for so long.
        self._seen: deque[tuple[float, int]] = deque(maxlen=looks + 2)

    def look(self, now: float, number: int) -> Growth | None:
        """Note the number as of now; how it grew. None: it was not watched for a whole window yet."""
        seen = self._seen
        if seen and now < seen[-1][0]:
            seen.clear()
        if not seen or now - seen[-1][0] >= self._step_s:
            seen.append((now, number))
        while len(seen) > 1 and seen[1][0] <= now - self._window_s:
            seen.popleft()
        if seen[0][0] > now - self._window_s:
            return None
        third_s = self._window_s / 3
        marks = [self._at(now - third_s * back) for back in (3, 2, 1)] + [number]
        grew = all(before < after for before, after in itertools.pairwise(marks))
        in_all = number - marks[0]
        return Growth(in_all, in_all if grew else 0)

    def _at(self, at: float) -> int:
        """The number that was seen last at or before a time."""
        return next((number for when, number in reversed(self._seen) if when <= at), self._seen[0][1])
