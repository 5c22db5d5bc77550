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
from contextvars import Context, ContextVar, copy_context
from typing import Any, Protocol

from tests.sim.chance import Dice
from tests.sim.places import place_of

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
        self._tasks: list[asyncio.Task[Any]] = []
        self._looked_at = 0
        self.steps = 0

    def began(self, task: asyncio.Task[Any]) -> None:
        """It has one more task."""
        if len(self._tasks) > 2 * self._looked_at + 32:
            self._tasks = self.tasks
            self._looked_at = len(self._tasks)
        self._tasks.append(task)

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """Those that have not ended, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def interrupted(self, place: str) -> float:
        """A step of it is about to be scheduled by an injection: how late it comes. May kill the process."""
        raise NotImplementedError


class Hunter(Protocol):
    """Whoever looks where tasks wait, to strike there."""

    def waits(self, task: asyncio.Task[Any], owner: Owner, context: Context) -> None:
        """A task of a process has done a step and waits."""
        ...


Mark = Callable[[], float]
"""Does what is to be done to a task that is woken now; how late its step comes."""

OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
"""The process that a callback belongs to; tasks and timers inherit it."""


class SimTask(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks (TaskGroup, asyncio.wait) come in the same order every time."""

    number = 0

    def __hash__(self) -> int:
        return self.number


# What asyncio keeps to itself, and a loop of one's own must touch.
_Loop: Any = asyncio.BaseEventLoop


class _Handle(asyncio.Handle):
    """A handle without what is there for debugging: half of a run is callbacks."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: Any, context: Context | None) -> None:
        self._context: Any = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _Timer(asyncio.TimerHandle):
    """A timer, the same way."""

    __slots__ = ()

    def __init__(self, when: float, callback: Any, args: Any, loop: Any, context: Context | None) -> None:
        self._context: Any = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True


class VirtualLoop(_Loop):  # type: ignore[misc]  # its base is chosen at run time
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
        #: (when, number, timer): compared as tuples, and so not by a method of the timer.
        self._timers: list[tuple[float, int, _Timer]] = []
        self._timer_count = 0
        #: Told of each task of a process that has just begun to wait; None: nobody hunts.
        self.hunter: Hunter | None = None
        #: Tasks, by their numbers, that are struck when they are woken.
        self.marked: dict[int, Mark] = {}
        self.crashes: list[dict[str, Any]] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _loop, context: self.crashes.append(context))

    # Time

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, timer))
        return timer

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # it is passed over when its time comes

    def _run_once(self) -> None:
        timers, ready = self._timers, self._ready
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise Stuck(f"nothing is left to happen at {self._now:.3f}")
            if timers[0][0] > self._now:
                self._now = timers[0][0]
                self._idle_steps = 0
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            if not timer._cancelled:
                ready.append(timer)
        count = len(ready)
        if self._shuffle and count > 1 and self._dice.random() < self._shuffle:
            self._interleave()
        self._idle_steps += count
        if self._idle_steps > STEPS_MAX:
            raise Spinning(f"{self._idle_steps} callbacks ran at {self._now:.3f}: {self._next_names()}")
        self.steps += count
        for _ in range(count):
            handle = ready.popleft()
            if not handle._cancelled:
                self._step(handle)

    def _step(self, handle: Any) -> None:
        context, callback = handle._context, handle._callback
        owner = context.get(OWNER)
        if owner is not None:
            if owner.frozen:
                owner.parked.append(handle)
                return
            owner.steps += 1
        try:
            context.run(callback, *handle._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.call_exception_handler({"message": f"exception in {callback}", "exception": error, "handle": handle})
        if self.hunter is not None and owner is not None and not owner.dead:
            task = getattr(callback, "__self__", None)
            if task.__class__ is SimTask and not task.done():
                self.hunter.waits(task, owner, context)

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
        handle = _Handle(callback, args, self, context)
        late_s = 0.0
        if self.marked:
            mark = self.marked.pop(getattr(getattr(callback, "__self__", None), "number", 0), None)
            if mark is not None:
                late_s = mark()
        self._until_interrupt -= 1
        if self._until_interrupt <= 0:
            self._until_interrupt = self._gap()
            owner = handle._context.get(OWNER)
            if owner is not None and not owner.dead and isinstance(getattr(callback, "__self__", None), asyncio.Task):
                late_s += owner.interrupted(_place(callback))
        if late_s > 0:
            self.call_later(late_s, self._ready.append, handle, context=Context())
        else:
            self._ready.append(handle)
        return handle

    def quiet(self) -> None:
        """No more faults."""
        self._interrupt_every = 0.0
        self._until_interrupt = self._gap()
        self.hunter = None
        self.marked.clear()

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
        task.__init__(coro, loop=self, context=context)  # type: ignore[misc]  # made without its class's own call
        owner = (context.get(OWNER) if context is not None else OWNER.get()) or None
        if owner is not None:
            owner.began(task)
            if owner.dead:  # it died as this task was made
                task.cancel()
        return task


def _place(callback: Any) -> str:
    """Where the task that a callback drives waits."""
    task = getattr(callback, "__self__", None)
    return place_of(task) if isinstance(task, asyncio.Task) else str(getattr(callback, "__qualname__", callback))
