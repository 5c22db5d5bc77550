"""Simulated machines and processes: what dies with `kill -9` and what stays, who stands still, whose clock is wrong.

A machine stays: its disk, its wall clock. A process is one run of a program on it. Killing it cancels its tasks with
everything that they could still reach cut off before (`dead` is asked by disk, journal and network), so their clean-up
touches only memory that nobody sees any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from tests.sim.loop import OWNER, Owner, VirtualLoop

if TYPE_CHECKING:
    from tests.sim.world import World

EPOCH = 1_700_000_000.0
"""The date at which every run begins."""

LATE_S = (0.0005, 0.005, 0.05, 0.5)
"""How late an injected step comes."""


class Clock:
    """`kit.clock.Clock` of one machine: its date may be wrong, its monotonic time may not."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.skew_s = 0.0

    def now(self) -> float:
        return EPOCH + self._loop.time() + self.skew_s

    def monotonic(self) -> float:
        return self._loop.time()


class Process(Owner):
    """One run of a program."""

    def __init__(self, world: World, name: str, clock: Clock) -> None:
        super().__init__()
        self.world = world
        self.name = name
        self.clock = clock
        self.at_death: list[Callable[[], None]] = []
        self.kind = name.partition("-")[0]
        self._dice = world.dice("process", name, world.number(name))
        world.processes.append(self)

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process."""
        context = copy_context()
        context.run(OWNER.set, self)
        made: asyncio.Task[Any] = self.world.loop.create_task(coro, context=context)
        return made

    def call_later(self, delay_s: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Something that the process's other threads do: not once it is dead, and not while it stands still."""
        context = copy_context()
        context.run(OWNER.set, self)
        made: asyncio.TimerHandle = self.world.loop.call_later(
            delay_s, self._unless_dead, callback, args, context=context
        )
        return made

    def _unless_dead(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if not self.dead:
            callback(*args)

    def kill(self, why: str) -> None:
        """It is gone, now."""
        if self.dead:
            return
        self.dead = True
        self.world.trace.note(self.name, "KILLED", why)
        for callback in self.at_death:
            callback()
        if self.frozen:
            self.go_on()
        for task in list(self.tasks):
            task.cancel()

    def stand_still(self) -> None:
        """SIGSTOP, a long pause of the machine: nothing of it happens."""
        self.frozen = True
        self.world.trace.note(self.name, "STANDS STILL")

    def go_on(self) -> None:
        """SIGCONT."""
        if self.frozen:
            self.frozen = False
            self.world.loop.thaw(self)
            self.world.trace.note(self.name, "GOES ON")

    def interrupted(self, place: str) -> float:
        world, roll = self.world, self._dice.random()
        if roll < world.chance("await.kill") * world.mix.interrupt_every:
            world.tally.places[place] += 1
            world.fault("await.kill", self.name, place)
            self.kill(place)
            return 0.0
        if self._dice.random() < world.chance("await.late"):
            world.tally.places[place] += 1
            late_s = self._dice.choice(LATE_S)
            world.fault("await.late", self.name, f"{late_s:g} s at {place}")
            return late_s
        return 0.0


async def never() -> None:
    """What a dead process waits for."""
    await asyncio.get_running_loop().create_future()
