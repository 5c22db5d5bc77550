"""The sweep: finds what no event tells of, because nothing happened. Events wake, the sweep decides.

Its light part (leases, due times, streams that ended, stuck attempts) runs whenever something is due: a timer is set
for the next due time and set again whenever a commit brings an earlier one. The full part (comparing the seats and the
hint of what waits with the store) runs every `sweep_s`. Both are bounded; what is left over is
done by the next run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from hub.core.event import Event
from hub.core.holding import Holding
from hub.engine.live.context import Context
from hub.engine.live.dispatch import Dispatcher
from hub.engine.live.sessions import Sessions
from hub.engine.script import attaching, timer
from kit import logs

log = logs.get(__name__)

RECOUNTS_MAX: Final = 500
"""Seats compared with the store by one sweep: about five milliseconds of the event loop."""

JUMP_S: Final = 5.0
"""The date may drift from the monotonic clock by this much between two runs; more is a jump: somebody set the clock, or
the machine was suspended."""

TIMER_MIN_S: Final = 0.05
"""Due times closer together than this share a run."""


class Sweep:
    """One for each hub."""

    def __init__(self, ctx: Context, dispatcher: Dispatcher, sessions: Sessions) -> None:
        self._ctx = ctx
        self._dispatcher = dispatcher
        self._sessions = sessions
        #: Set when something is due; the loop that runs `run_once` waits for it.
        self.wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._last_run = ctx.clock.monotonic()
        self._last_full = self._last_run
        #: The date less the monotonic clock, as of the last run.
        self._offset_s = ctx.clock.now() - self._last_run
        #: By how much the date jumped forward, while there is work that became due by that.
        self._jumped_s = 0.0
        self._recount_from = 0
        sessions.on_detach = self.wake.set
        ctx.bus.listen(self._committed)

    async def run_once(self, now: float) -> None:
        """Do what is due at `now`."""
        settings, monotonic = self._ctx.settings, self._ctx.clock.monotonic()
        if monotonic - self._last_run > settings.sweep_s + settings.lease_s:
            log.warning("sweep.late", late_s=round(monotonic - self._last_run, 1))
            self._sessions.be_patient()  # the process stood still: the heartbeats of that time are still to be read
        self._last_run = monotonic
        self._look_at_clock(now, monotonic)
        await self._sessions.flush(now)
        await self._leases(monotonic)
        await self._deaf(monotonic)
        more = await self._due(now, self._sessions.silence.patience_left_s(monotonic))
        await self._stuck(now, monotonic)
        self._dispatcher.fleet.refresh(now)
        if monotonic - self._last_full >= settings.sweep_s:
            self._last_full = monotonic
            self._full()
        if more:
            self.wake.set()
        self._arm()

    def _look_at_clock(self, now: float, monotonic: float) -> None:
        offset_s = now - monotonic
        jumped_s, self._offset_s = offset_s - self._offset_s, offset_s
        if abs(jumped_s) > JUMP_S:
            log.warning("clock.jumped", jumped_s=round(jumped_s, 1))
        if jumped_s > JUMP_S:
            self._jumped_s += jumped_s

    async def _leases(self, monotonic: float) -> None:
        for overdue in self._sessions.silence.overdue(monotonic):
            log.warning("lease.passed", agent=overdue.agent, holdings=len(overdue.holdings), was_here=overdue.was_here)
            await self._sessions.lose(
                overdue.holdings,
                reason="LEASE_EXPIRED",
                message=f"agents/{overdue.agent} was silent for {self._ctx.settings.lease_s:g} s",
                died=overdue.was_here,
                revoke="LEASE_EXPIRED",
            )

    async def _deaf(self, monotonic: float) -> None:
        for overdue in self._sessions.silence.deaf(monotonic):
            log.warning("session.deaf", agent=overdue.agent, offered=len(overdue.holdings))
            if overdue.holdings:
                await self._sessions.lose(
                    overdue.holdings,
                    reason="UNDELIVERED",
                    message=f"agents/{overdue.agent} did not acknowledge it",
                    died=False,
                    revoke="UNDELIVERED",
                )

    async def _due(self, now: float, patience_s: float) -> bool:
        """Wake what is due; True when there may be more."""
        next_due = self._ctx.store.read(lambda reader: reader.next_due())
        if next_due is None or next_due > now:
            self._jumped_s = 0.0
            return False
        limit, roll, jumped_s = self._ctx.settings.sweep_batch, self._ctx.rng.random(), self._jumped_s
        count = await self._ctx.store.write(
            lambda txn: timer.wake(txn, now, limit, roll=roll, patience_s=patience_s, jumped_s=jumped_s),
            essential=True,
        )
        if count < limit:
            self._jumped_s = 0.0
        return count >= limit

    async def _stuck(self, now: float, monotonic: float) -> None:
        stuck_s = self._ctx.settings.stuck_s
        noted: list[Holding] = []
        over: list[Holding] = []
        for session in self._sessions:
            new, late = session.stuck(monotonic, stuck_s)
            noted += new
            over += late
        if noted:
            await self._ctx.store.write(lambda txn: attaching.note_stuck(txn, noted, now, stuck_s), essential=True)
        if over and not self._sessions.silence.patience_left_s(monotonic):  # nobody could show any while we were away
            message = "it showed no progress for longer than its own limits allow"
            await self._sessions.lose(over, reason="STUCK", message=message, died=True, revoke="STUCK")

    def _full(self) -> None:
        seats = [seat.agent for seat in self._dispatcher.fleet if seat.online or seat.holdings]
        for agent in seats[self._recount_from : self._recount_from + RECOUNTS_MAX]:
            self._dispatcher.fleet.recount(agent)
        self._recount_from = self._recount_from + RECOUNTS_MAX if self._recount_from + RECOUNTS_MAX < len(seats) else 0
        self._dispatcher.waiting.check()
        self._dispatcher.wake.set()

    # The timer

    def _arm(self) -> None:
        """Set the timer for what is due next."""
        clock = self._ctx.clock
        due = (self._ctx.store.read(lambda reader: reader.next_due()), self._dispatcher.fleet.next_due())
        delays = [at - clock.now() for at in due if at is not None]
        look = self._sessions.silence.next_look(clock.monotonic())
        if look is not None:
            delays.append(look - clock.monotonic())
        if delays:
            self._set(max(TIMER_MIN_S, min(delays)))

    def _set(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(delay_s, self._ring)
        self._timer_at = self._ctx.clock.monotonic() + delay_s

    def _ring(self) -> None:
        self._timer = None
        self.wake.set()

    def _committed(self, _events: Sequence[Event]) -> None:
        """Ring no later than for what is due next, and than for what may come of this commit: a new session whose lease
        passes, something said that is not acked.
        """
        clock, settings = self._ctx.clock, self._ctx.settings
        delay_s = min(settings.ack_timeout_s, settings.lease_s)
        next_due = self._ctx.store.read(lambda reader: reader.next_due())
        if next_due is not None:
            delay_s = min(delay_s, next_due - clock.now())
        if self._timer is None or clock.monotonic() + delay_s < self._timer_at - TIMER_MIN_S:
            self._set(max(TIMER_MIN_S, delay_s))

    def stop(self) -> None:
        """Let no timer ring any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
