"""Ended spans that wait for the push: bounded, and what does not fit any more is counted.

The event loop adds, the thread of the push takes; a push that failed gives back what it took, so that a collector that
was away for a moment misses nothing. When nobody takes them, the oldest go.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from kit.tracing import Span

SPANS_MAX: Final = 4_096
"""Some seconds of a busy hub or a day of a sidecar: four megabytes."""


class Backlog:
    """Spans, oldest first."""

    def __init__(self, bound: int = SPANS_MAX) -> None:
        self.bound = bound
        #: Called by `add` when half of the room is taken: a push should not wait for its time.
        self.wanted: Callable[[], None] = lambda: None
        #: Spans that were given up.
        self.dropped = 0
        #: How far whoever adds has come, by a measure of its own; set after what belongs to it was added.
        self.mark = 0
        #: The mark up to which everything was pushed.
        self.pushed = 0
        self._spans: deque[Span] = deque()
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[Span]:
        with self._guard:
            return iter(list(self._spans))

    def add(self, span: Span) -> None:
        """One more has ended."""
        with self._guard:
            if len(self._spans) >= self.bound:
                self._spans.popleft()
                self.dropped += 1
            self._spans.append(span)
            is_half_full = len(self._spans) == self.bound // 2
        if is_half_full:
            self.wanted()

    def take(self, count: int) -> list[Span]:
        """Take the oldest, at most `count`."""
        with self._guard:
            return [self._spans.popleft() for _ in range(min(count, len(self._spans)))]

    def give_back(self, taken: Sequence[Span]) -> None:
        """These could not be pushed: the newest that still fit wait again, the others are given up."""
        with self._guard:
            kept = min(len(taken), self.bound - len(self._spans))
            self.dropped += len(taken) - kept
            self._spans.extendleft(reversed(taken[len(taken) - kept :]))
