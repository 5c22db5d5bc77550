"""An event loop on virtual time: nothing is waited for, nothing leaves the process, and one seed decides all order.

When no callback is ready, time jumps to the next timer. What the operating system would do (sockets, threads, signals)
raises. Two faults live here, because here every await passes by: a step of a task may come late, as on a machine that
is short of processor time, and ready callbacks of different processes come in any order, as on different machines.
A process that stands still (SIGSTOP) has its callbacks kept until it goes on.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any

from tests.sim.chance import Dice

STEPS_MAX = 200_000
"""Callbacks that may run without time passing: more is a loop that spins."""


class Spinning(AssertionError):
    """Callbacks run on and on and time does not pass."""


class Stuck(AssertionError):
    """Nothing is ready and no timer is set, and the main task has not ended."""


class Owner:
    """What the loop must know of a simulated process."""

    name = ""
    dead = False
    frozen = False

    def __init__(self) -> None:
        self.parked: list[asyncio.Handle] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.steps = 0

    def interrupted(self, place: str) -> float:
        """A step of it is about to be scheduled by an injection: how late it comes. May kill the process."""
        raise NotImplementedError


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
"""The process that a callback belongs to; tasks and timers inherit it."""


class SimTask(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks (TaskGroup, asyncio.wait) come in the same order every time."""

    number = 0

    def __hash__(self) -> int:
        return self.number


# What asyncio keeps to itself, and a loop of one's own must touch.
_Loop: Any = asyncio.BaseEventLoop


class VirtualLoop(_Loop):  # type: ignore[misc]
    """The loop."""

    def __init__(self, dice: Dice, *, interrupt_every: float = 0.0, shuffle: float = 0.0) -> None:
        super().__init__()
        self._now = 0.0
        self._dice = dice
        self.steps = 0
        self._task_count = 0
        self._shuffle = shuffle
        self._interrupt_every = interrupt_every
        self._until_interrupt = self._gap()
        self.crashes: list[dict[str, Any]] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _loop, context: self.crashes.append(context))

    # Time

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                raise Stuck(f"nothing is left to happen at {self._now:.3f}")
            if scheduled[0]._when > self._now:
                self._now = scheduled[0]._when
                self._idle_steps = 0
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if handle._cancelled:
                self._timer_cancelled_count -= 1
            else:
                ready.append(handle)
        count = len(ready)
        if self._shuffle and count > 1 and self._dice.random() < self._shuffle:
            self._interleave()
        self._idle_steps += count
        if self._idle_steps > STEPS_MAX:
            raise Spinning(f"{self._idle_steps} callbacks ran at {self._now:.3f}: {self._next_names()}")
        self.steps += count
        for _ in range(count):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)
            if owner is not None:
                if owner.frozen:
                    owner.parked.append(handle)
                    continue
                owner.steps += 1
            handle._run()

    _idle_steps = 0

    def _next_names(self) -> str:
        return ", ".join(sorted({_place(handle._callback) for handle in list(self._ready)[:20]}))

    def _interleave(self) -> None:
        """Mix the ready callbacks of different processes; those of one process keep their order."""
        lines: dict[int, list[Any]] = {}
        picks: list[int] = []
        numbers: dict[Owner | None, int] = {}
        for handle in self._ready:
            number = numbers.setdefault(handle._context.get(OWNER), len(numbers))
            lines.setdefault(number, []).append(handle)
            picks.append(number)
        self._dice.shuffle(picks)
        at = dict.fromkeys(lines, 0)
        self._ready.clear()
        for number in picks:
            self._ready.append(lines[number][at[number]])
            at[number] += 1

    # Faults at awaits

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle: Any = asyncio.Handle(callback, args, self, context)
        self._until_interrupt -= 1
        if self._until_interrupt <= 0:
            self._until_interrupt = self._gap()
            owner = handle._context.get(OWNER)
            if owner is not None and not owner.dead and isinstance(getattr(callback, "__self__", None), asyncio.Task):
                late_s = owner.interrupted(_place(callback))
                if late_s > 0:
                    self.call_later(late_s, self._ready.append, handle, context=Context())
                    return handle  # type: ignore[no-any-return]
        self._ready.append(handle)
        return handle  # type: ignore[no-any-return]

    def quiet(self) -> None:
        """No more faults."""
        self._interrupt_every = 0.0
        self._until_interrupt = self._gap()

    def thaw(self, owner: Owner) -> None:
        """A process goes on: what was to happen meanwhile happens now."""
        parked, owner.parked = owner.parked, []
        self._ready.extend(parked)

    def _gap(self) -> int:
        return 1 + int(self._dice.expovariate(1.0 / self._interrupt_every)) if self._interrupt_every else 1 << 60

    # What there is no place for

    def call_soon_threadsafe(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        raise AssertionError(f"a thread is asked for in a simulation: {func}")

    def _process_events(self, event_list: Any) -> None:
        raise AssertionError("there is no selector")

    def _write_to_self(self) -> None:
        pass

    def _make_task(
        self, _loop: Any, coro: Coroutine[Any, Any, Any], *, context: Context | None = None
    ) -> asyncio.Task[Any]:
        self._task_count += 1
        task = SimTask.__new__(SimTask)
        task.number = self._task_count
        task.__init__(coro, loop=self, context=context)  # type: ignore[misc]
        owner = (context.get(OWNER) if context is not None else OWNER.get()) or None
        if owner is not None:
            owner.tasks[task] = None
            task.add_done_callback(lambda done: owner.tasks.pop(done, None), context=Context())
            if owner.dead:  # it died as this task was made
                task.cancel()
        return task


def _place(callback: Any) -> str:
    """Where the task that a callback drives waits."""
    task = getattr(callback, "__self__", None)
    return place_of(task) if isinstance(task, asyncio.Task) else str(getattr(callback, "__qualname__", callback))


def place_of(task: asyncio.Task[Any]) -> str:
    """Where a task waits: the innermost line of our own code."""
    coro: Any = task.get_coro()
    place: str = coro.__qualname__
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "ag_frame", None) or getattr(coro, "gi_frame", None)
        if frame is None:
            break
        file = frame.f_code.co_filename
        for room in ("/hub/", "/sidecar/", "/kit/"):
            if room in file:
                place = f"{room[1:]}{file.rpartition(room)[2]}:{frame.f_lineno}"
        coro = getattr(coro, "cr_await", None) or getattr(coro, "ag_await", None) or getattr(coro, "gi_yieldfrom", None)
    return place
