"""The sweep: finds what no event tells of, because nothing happened. Events wake, the sweep decides.

Its light part (leases, due times, streams that ended, stuck attempts) runs whenever something is due: a timer is set
for the next due time and set again whenever a commit brings an earlier one. The full part (comparing the seats and the
hint of what waits with the store, forgetting old answers) runs every `sweep_s`. Both are bounded; what is left over is
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

ANSWERS_EVERY_S: Final = 600.0
"""Old answers are looked for this often: a window of a day need not be exact, and an idle hub should not write."""

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
        self._last_answers = self._last_run
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
        await self._sessions.flush(now)
        await self._leases(monotonic)
        more = await self._due(now)
        await self._stuck(now, monotonic)
        self._dispatcher.fleet.refresh(now)
        if monotonic - self._last_full >= settings.sweep_s:
            self._last_full = monotonic
            await self._full(now, monotonic)
        if more:
            self.wake.set()
        self._arm()

    async def _leases(self, monotonic: float) -> None:
        for overdue in self._sessions.overdue(monotonic):
            log.warning("lease.passed", agent=overdue.agent, holdings=len(overdue.holdings), was_here=overdue.was_here)
            await self._sessions.lose(
                overdue.holdings,
                reason="LEASE_EXPIRED",
                message=f"agents/{overdue.agent} was silent for {self._ctx.settings.lease_s:g} s",
                died=overdue.was_here,
                revoke="LEASE_EXPIRED",
            )

    async def _due(self, now: float) -> bool:
        """Wake what is due; True when there may be more."""
        next_due = self._ctx.store.read(lambda reader: reader.next_due())
        if next_due is None or next_due > now:
            return False
        limit, roll = self._ctx.settings.sweep_batch, self._ctx.rng.random()
        count = await self._ctx.store.write(lambda txn: timer.wake(txn, now, limit, roll=roll), essential=True)
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
        if over:
            message = "it showed no progress for longer than its own limits allow"
            await self._sessions.lose(over, reason="STUCK", message=message, died=True, revoke="STUCK")

    async def _full(self, now: float, monotonic: float) -> None:
        seats = [seat.agent for seat in self._dispatcher.fleet if seat.online or seat.holdings]
        for agent in seats[self._recount_from : self._recount_from + RECOUNTS_MAX]:
            self._dispatcher.fleet.recount(agent)
        self._recount_from = self._recount_from + RECOUNTS_MAX if self._recount_from + RECOUNTS_MAX < len(seats) else 0
        self._dispatcher.waiting.check()
        self._dispatcher.wake.set()
        if monotonic - self._last_answers >= ANSWERS_EVERY_S:
            self._last_answers = monotonic
            limit = self._ctx.settings.sweep_batch
            await self._ctx.store.write(lambda txn: txn.drop_answers(now, limit), essential=True)

    # The timer

    def _arm(self) -> None:
        """Set the timer for what is due next."""
        clock = self._ctx.clock
        due = (self._ctx.store.read(lambda reader: reader.next_due()), self._dispatcher.fleet.next_due())
        delays = [at - clock.now() for at in due if at is not None]
        overdue = self._sessions.next_overdue()
        if overdue is not None:
            delays.append(overdue - clock.monotonic())
        if delays:
            self._set(max(TIMER_MIN_S, min(delays)))

    def _set(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(delay_s, self._ring)
        self._timer_at = self._ctx.clock.now() + delay_s

    def _ring(self) -> None:
        self._timer = None
        self.wake.set()

    def _committed(self, _events: Sequence[Event]) -> None:
        next_due = self._ctx.store.read(lambda reader: reader.next_due())
        if next_due is not None and (self._timer is None or next_due < self._timer_at - TIMER_MIN_S):
            self._set(max(TIMER_MIN_S, next_due - self._ctx.clock.now()))

    def stop(self) -> None:
        """Let no timer ring any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
