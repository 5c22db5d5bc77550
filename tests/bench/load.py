"""The load, of one shape for the floor and for the hub: callers, sidecars that complete at once, one clock for all.

Everything runs in the process of the bench, so the moment of a submit, of an arrival at a sidecar and of the ack of its
report are read from the same clock. Requests are built before the clock starts: the callers are not what is measured.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from tests.bench import figures

CALLERS = 32
SIDECARS = 8
SLOTS = 16
JOINED_MAX = 64  # messages that travel as one: what the contract allows
RUN_S_MAX = 300.0  # a run that takes longer is broken, not slow


class Marks:
    """When each task of a run was submitted, was at its sidecar, and was stored as done."""

    def __init__(self, count: int) -> None:
        self.submitted = [0.0] * count
        self.arrived = [0.0] * count
        self.stored = [0.0] * count
        self.stored_count = 0
        self.repeated_count = 0
        """Tasks that were stored twice: none, or the run is worth nothing."""
        self.done = asyncio.Event()

    def store(self, index: int) -> None:
        """The ack of its report has been seen."""
        if self.stored[index]:
            self.repeated_count += 1
            return
        self.stored[index] = time.perf_counter()
        self.stored_count += 1
        if self.stored_count == len(self.stored):
            self.done.set()


class Side(Protocol):
    """What is loaded: callers' requests on one channel, and sidecars that are attached."""

    marks: Marks
    """Where its sidecars note what arrives and what is stored; set anew for each run."""

    def prepare(self, count: int, batch: int) -> Sequence[Any]:
        """Requests for `count` tasks, `batch` to a call (1: the call for a single task)."""

    async def submit(self, request: Any) -> None:
        """One of them; returns when the reply has come."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run gave."""

    count: int
    seconds: float
    per_s: float
    wait: figures.Spread
    """From submit to stored."""


async def run(side: Side, *, count: int, batch: int = 1, callers: int = CALLERS) -> Run:
    """Submit `count` tasks, wait until the last result is stored; rate over the whole time."""
    requests = side.prepare(count, batch)
    marks = side.marks = Marks(count)
    turns = iter(range(len(requests)))

    async def caller() -> None:
        for turn in turns:
            now = time.perf_counter()
            first = turn * batch
            marks.submitted[first : first + batch] = [now] * min(batch, count - first)
            await side.submit(requests[turn])

    with no_gc():
        began = time.perf_counter()
        async with asyncio.timeout(RUN_S_MAX), asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(caller(), name=f"caller-{number}")
            await marks.done.wait()
        seconds = max(marks.stored) - began
    if marks.repeated_count:
        raise RuntimeError(f"{marks.repeated_count} tasks were stored twice")
    waits = [stored - sent for sent, stored in zip(marks.submitted, marks.stored, strict=True)]
    return Run(count, seconds, count / seconds, figures.spread(waits))


async def trickle(side: Side, *, count: int) -> figures.Spread:
    """Submit one task after the other, each when the one before is stored: the time from submit to the sidecar."""
    request = side.prepare(1, 1)[0]
    waits = []
    with no_gc():
        for _ in range(count):
            marks = side.marks = Marks(1)
            began = time.perf_counter()
            async with asyncio.timeout(RUN_S_MAX):
                await side.submit(request)
                await marks.done.wait()
            waits.append(marks.arrived[0] - began)
    return figures.spread(waits)


@contextmanager
def no_gc() -> Iterator[None]:
    """The generator's own garbage is collected before, not during."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Link:
    """One stream: whoever has something to say queues it; one task writes, as a stream allows only one."""

    def __init__(self, call: Any, join: Callable[[list[Any]], Any] | None = None) -> None:
        self.call = call
        self._join = join
        """Makes one message of several, where the protocol has such a thing."""
        self._out: deque[Any] = deque()  # bounded by the slots of its sidecar
        self._wake = asyncio.Event()

    def say(self, message: Any) -> None:
        """Queue a message."""
        self._out.append(message)
        self._wake.set()

    async def write(self) -> None:
        """Write what is queued, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._out:
                if self._join is None or len(self._out) == 1:
                    await self.call.write(self._out.popleft())
                else:
                    several = [self._out.popleft() for _ in range(min(len(self._out), JOINED_MAX))]
                    await self.call.write(self._join(several))
