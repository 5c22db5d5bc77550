"""Loops that keep running: each is called again and again, restarted when it fails, and watched.

A loop is one duty with `run_once(now)`. It runs when its period is over or when it is woken, whichever comes first:
events wake, the period decides, so a lost wake-up delays and never loses. A failure is logged and tried again after a
jittered, growing delay; it neither ends the loop nor touches its siblings. A CancelledError that nobody asked for
(a cancelled future inside the duty) is a failure like any other: it would otherwise end the loop in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from kit import backoff, clock, logs

log = logs.get(__name__)

RESTART_BASE_S = 0.05
RESTART_CAP_S = 30.0


@dataclass(frozen=True, slots=True)
class Loop:
    """One duty: `run_once(now)` every `every_s` seconds, and at once when `wake` is set.

    `limit_s` bounds one run: beyond it the run is cancelled and counts as failed; None sets no bound.
    """

    name: str
    run_once: Callable[[float], Awaitable[object]]
    every_s: float
    wake: asyncio.Event | None = None
    limit_s: float | None = None


@dataclass(slots=True)
class Health:
    """What the watchdog and the pages read about one loop."""

    #: When the loop was started, in seconds since the epoch; None before that.
    started_at: float | None = None
    #: When the last run ended well; None before the first.
    succeeded_at: float | None = None
    failure_count: int = 0
    #: Failures since the last success.
    streak: int = 0
    last_error: str = ""


@dataclass(slots=True)
class _Running:
    loop: Loop
    wake: asyncio.Event
    health: Health = field(default_factory=Health)
    #: Monotonic: of the last success, or of the start. The dates above are for people: a clock that is set moves them.
    well_at: float | None = None


class Supervisor:
    """Runs loops in one TaskGroup until `stop`; the run at hand is finished first. Cancelling `run` means now."""

    def __init__(self, loops: Sequence[Loop], *, time: clock.Clock, rng: random.Random) -> None:
        names = [loop.name for loop in loops]
        assert len(set(names)) == len(names), names
        self._running = {loop.name: _Running(loop, loop.wake or asyncio.Event()) for loop in loops}
        self._time = time
        self._rng = rng
        self._stopping = False

    async def run(self) -> None:
        """Run all loops; returns when they have stopped."""
        async with asyncio.TaskGroup() as group:
            for name, running in self._running.items():
                running.health.started_at = self._time.now()
                running.well_at = self._time.monotonic()
                group.create_task(self._keep(running), name=f"loop.{name}")

    def stop(self) -> None:
        """Let every loop finish what it does and end."""
        self._stopping = True
        for running in self._running.values():
            running.wake.set()

    def wake(self, name: str) -> None:
        """Let a loop run now."""
        self._running[name].wake.set()

    def health(self) -> dict[str, Health]:
        """The state of every loop, by name; live objects, to be read only."""
        return {name: running.health for name, running in self._running.items()}

    def late(self, monotonic: float, grace_s: float) -> list[str]:
        """The loops that have not succeeded for more than their period plus `grace_s`: what a watchdog reports."""
        late = []
        for name, running in self._running.items():
            since = running.well_at
            if since is not None and monotonic - since > running.loop.every_s + grace_s:
                late.append(name)
        return late

    async def _keep(self, running: _Running) -> None:
        while not self._stopping:
            running.wake.clear()
            if await self._attempt(running):
                await self._pause(running, running.loop.every_s)
            else:
                # A woken loop that fails is not woken out of its delay: a busy signal must not turn it into a spin.
                streak = min(running.health.streak, backoff.EXPONENT_MAX)
                delay_s = RESTART_BASE_S / 2 + backoff.full_jitter(streak, RESTART_BASE_S, RESTART_CAP_S, self._rng)
                await self._pause(running, delay_s, only_stop=True)

    async def _attempt(self, running: _Running) -> bool:
        loop, health = running.loop, running.health
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(loop.limit_s):
                await loop.run_once(self._time.now())
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            self._failed(running, error)
            return False
        except Exception as error:
            self._failed(running, error)
            return False
        health.succeeded_at = self._time.now()
        running.well_at = self._time.monotonic()
        health.streak = 0
        return True

    def _failed(self, running: _Running, error: BaseException) -> None:
        running.health.failure_count += 1
        running.health.streak += 1
        running.health.last_error = f"{type(error).__name__}: {error}"
        log.error("loop.failed", loop=running.loop.name, streak=running.health.streak, error=str(error), exc_info=error)

    async def _pause(self, running: _Running, seconds: float, *, only_stop: bool = False) -> None:
        """Wait for the time, a wake-up or the stop; with `only_stop` a wake-up does not count."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._stopping:
                    await running.wake.wait()
                    if not only_stop:
                        return
                    running.wake.clear()  # nothing is lost: the loop runs after the delay in any case
