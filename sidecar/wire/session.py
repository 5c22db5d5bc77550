"""The sidecar's session: attaches, comes back when a stream is lost, and ends in good order.

The states are the table in core/session.py. What is said and stored is in ledger.py, the work in holdings.py (it
outlives every stream), one stream's talk in conversation.py. Here is what spans streams: the backoff, the lease, the
self-test, and the two ways to end: `drain` lets what is held be finished (for so long) and says goodbye, `halt` stops
it first. Either way unfinished work is saved, and what could not be told stays in the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc

from agentcom.v1 import agent_pb2, agent_service_pb2_grpc
from kit import backoff, clock, errors, ids, logs, supervise
from sidecar.core import session
from sidecar.core.assignment import Holding
from sidecar.core.lease import Lease
from sidecar.core.meter import NOBODY, Meter
from sidecar.core.offer import Offer
from sidecar.core.selftest import SelfTest
from sidecar.core.session import Event, State
from sidecar.core.slots import Slots
from sidecar.core.tail import Tail
from sidecar.wire import availability
from sidecar.wire.conversation import Conversation, Desk
from sidecar.wire.holdings import Hands, Holdings
from sidecar.wire.journal import Journal
from sidecar.wire.ledger import Ledger
from sidecar.wire.stream import Ended

log = logs.get(__name__)

# A status of these kinds before the first welcome is a mistake in the set-up (token, name): trying again is no help.
REFUSALS = (errors.Unauthenticated, errors.Forbidden, errors.NotFound, errors.Invalid)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """The session's part of the configuration."""

    #: The bare id.
    agent: str
    offer: Offer
    version: str = ""
    host: str = ""
    #: Full jitter from 0 to base * 2^n, at most the cap; from the start again after a stream that held `healthy_s`.
    reconnect_base_s: float = 1.0
    reconnect_cap_s: float = 8.0
    healthy_s: float = 10.0
    #: A hub that takes the stream and says nothing is left again.
    welcome_timeout_s: float = 20.0
    #: After a drain began, what is held may be finished for this long; then it is stopped.
    drain_timeout_s: float = 600.0
    #: Stopping includes saving unfinished work over the network.
    stop_timeout_s: float = 90.0
    #: For the last outcomes and goodbye; what is not told by then is told after the next start.
    farewell_timeout_s: float = 15.0
    self_test_every_s: float = availability.EVERY_S


class Worker(Hands, Protocol):
    """The runner, as the session sees it."""

    async def self_test(self) -> SelfTest:
        """Try everything that work needs."""
        ...


@dataclass(frozen=True, slots=True)
class End:
    """How the session ended."""

    reason: str
    message: str
    #: Did it end as it was asked to? Otherwise the hub does not want this sidecar.
    is_good: bool


class Session:
    """One sidecar's session; `run` it once."""

    def __init__(
        self,
        settings: SessionSettings,
        *,
        dial: Callable[[], grpc.aio.Channel],
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        worker: Worker,
        journal: Journal,
        load: Callable[[int], agent_pb2.Load],
        time: clock.Clock,
        rng: random.Random,
        is_nobody_there: Callable[[], Awaitable[bool]] | None = None,
        meter: Meter = NOBODY,
        loops: Sequence[supervise.Loop] = (),
    ) -> None:
        """`is_nobody_there` asks for the hub (knock.py); without it silence is all that there is to go by.

        `loops` run beside it, to its end.
        """
        self._loops = loops
        self._meter = meter
        self._is_nobody_there = is_nobody_there
        self._settings = settings
        self._dial = dial
        self._metadata = metadata
        self._time = time
        self._rng = rng
        self.state = State.OFFLINE
        self.holdings = Holdings(
            hands=worker,
            journal=journal,
            slots=Slots(settings.offer.slots),
            on_change=self._changed,
            on_output=self._output,
            on_end=self._ended,
            meter=meter,
        )
        self._desk = Desk(
            agent=ids.name("agents", settings.agent),
            offer=settings.offer,
            version=settings.version,
            host=settings.host,
            holdings=self.holdings,
            ledger=Ledger(),
            tail=Tail(),
            lease=Lease(),
            availability=availability.Availability(worker.self_test, time),
            load=load,
            closing=lambda: self.state in session.CLOSING,
            time=time,
            rng=rng,
            meter=meter,
        )
        self._conversation: Conversation | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._end = End("", "", is_good=True)
        self._attached_once = False
        self._tested = asyncio.Event()
        self._leased = asyncio.Event()
        self._drained = asyncio.Event()
        self._halted = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> End:
        """Hold the session until it ends; returns how it did."""
        loop = supervise.Loop("self_test", self._self_test, every_s=self._settings.self_test_every_s)
        tests = supervise.Supervisor([loop, *self._loops], time=self._time, rng=self._rng)
        async with asyncio.TaskGroup() as group:
            self.holdings.start(group)
            side = [
                group.create_task(tests.run(), name="session.self_test"),
                group.create_task(self._watch_lease(), name="session.lease"),
                group.create_task(self._watch_drain(), name="session.drain"),
            ]
            self._connecting = group.create_task(self._connect(), name="session.connect")
            await asyncio.wait([self._connecting])
            for task in side:
                task.cancel()
            # After a drain there is nothing left to stop; after a final word there may be.
            self.holdings.stop_all(self._end.reason)
            await self._quiet_within(self._settings.stop_timeout_s)
            self.holdings.abandon()
        return self._end

    def drain(self, reason: str) -> None:
        """Take nothing new, finish what is held, say goodbye. May be called again."""
        if self.state in (State.STOPPED, State.LEAVING):
            return
        if not self._drained.is_set():
            log.info("sidecar.draining", reason=reason, holdings=len(self.holdings.slots))
            self._end = End(reason, "it was asked to end", is_good=True)
        self._step(Event.DRAIN)
        self._drained.set()
        if self._conversation is not None:
            self._conversation.beat()
        self._changed()

    def halt(self, reason: str) -> None:
        """As drain, but what is held is stopped now."""
        self.drain(reason)
        self._halted.set()

    async def look_for_hub(self) -> None:
        """Count a refused connection as a word from the hub: where nobody listens none can have given our work away.

        And the hub that comes next lets no lease pass before a whole one is over. Done after each try that failed, for
        it may be back a moment later and not yet reached; and when the lease is over, for the next try may be far.
        """
        if not len(self.holdings.slots) or self._is_nobody_there is None:
            return
        asked_at = self._time.monotonic()
        if await self._is_nobody_there():
            log.debug("hub.absent", holdings=len(self.holdings.slots))
            self._desk.lease.heard(asked_at)

    def check_lease(self) -> None:
        """Stop all work when the hub was silent for too long. Called when the lease may be over."""
        if self._desk.lease.ran_out(self._time.monotonic()):
            log.warning("lease.ran_out", holdings=len(self.holdings.slots))
            self.holdings.stop_all("LEASE_RAN_OUT")
            if self._conversation is not None:
                self._conversation.cut()

    # Connecting and coming back.

    async def _connect(self) -> None:
        await self._first(self._tested.wait, self._hurry.wait)
        attempt = 0
        while self.state is not State.STOPPED:
            self._step(Event.CONNECT)
            began = self._time.monotonic()
            self._conversation = Conversation(
                self._desk, self._welcomed, self._changed, welcome_timeout_s=self._settings.welcome_timeout_s
            )
            # A channel that failed answers the next tries from memory until its own backoff is over, and so would turn
            # away a sidecar whose hub has just come back. A fresh one really tries.
            wire = self._dial()
            try:
                end = await self._conversation.run(agent_service_pb2_grpc.AgentServiceStub(wire), self._metadata())
            finally:
                self._conversation = None
                await wire.close()
            refused = isinstance(end.problem, REFUSALS) and not self._attached_once
            if end.final or refused:
                self._end = End(end.reason, end.message, is_good=False)
                self._step(Event.FINAL)
                return
            self._step(Event.LOST)
            self._changed()
            healthy = self._time.monotonic() - began >= self._settings.healthy_s
            attempt = 0 if healthy else attempt
            if isinstance(end.problem, errors.Unavailable):
                await self.look_for_hub()
            await self._pause(end, attempt)
            attempt += 1

    async def _pause(self, end: Ended, attempt: int) -> None:
        if self.state is State.STOPPED:
            return
        self._meter.detached()
        settings = self._settings
        delay_s = backoff.full_jitter(attempt, settings.reconnect_base_s, settings.reconnect_cap_s, self._rng)
        delay_s += end.retry_delay_s
        log.warning("sidecar.detached", reason=end.reason, message=end.message, retry_delay_s=round(delay_s, 3))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._hurry.wait()

    def _welcomed(self) -> None:
        self._attached_once = True
        self._step(Event.WELCOME)
        self._leased.set()

    # What happens beside the stream.

    def _changed(self) -> None:
        """A holding has changed: say what is due, and go when a drain has nothing left to wait for."""
        if self._conversation is not None:
            self._conversation.tell()
        if len(self.holdings.slots) > 0:
            return
        if self.state is State.DRAINING and self._desk.ledger.empty and self._conversation is not None:
            self._step(Event.EMPTY)
            self._conversation.goodbye(self._end.reason)
        elif self.state is State.DRAINING_OFFLINE:
            self._step(Event.EMPTY)
            self._hurry.set()

    def _output(self, holding: Holding, text: str) -> None:
        if self._desk.tail.write(holding, text) and self._conversation is not None:
            self._conversation.wake()

    def _ended(self, holding: Holding) -> None:
        if self._desk.tail.end(holding) and self._conversation is not None:
            self._conversation.wake()

    async def _self_test(self, now: float) -> None:
        news = await self._desk.availability.run_once(now)
        self._tested.set()
        if news and self._conversation is not None:
            self._conversation.beat()

    async def _watch_lease(self) -> None:
        while True:
            self._leased.clear()
            if self._desk.lease.left_s(self._time.monotonic()) == 0.0:
                await self.look_for_hub()
            self.check_lease()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._desk.lease.left_s(self._time.monotonic())):
                    await self._leased.wait()

    async def _watch_drain(self) -> None:
        """The deadlines of an end: to finish, to stop, to tell."""
        await self._drained.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._first(self._halted.wait, self.holdings.quiet)
        self.holdings.stop_all("DRAIN")
        await self._quiet_within(self._settings.stop_timeout_s)
        await asyncio.sleep(self._settings.farewell_timeout_s)
        log.warning("sidecar.cut_short", untold=len(self.holdings.slots))
        self._step(Event.CANCEL)
        assert self._connecting is not None
        self._connecting.cancel()

    async def _quiet_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.holdings.quiet()

    async def _first(self, *waits: Callable[[], Awaitable[object]]) -> None:
        """Return when one of them has."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_wait(wait)) for wait in waits]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()

    def _step(self, event: Event) -> None:
        before, self.state = self.state, session.after(self.state, event)
        if before is not self.state:
            log.debug("session.changed", before=before.value, after=self.state.value, event_name=event.value)


async def _wait(until: Callable[[], Awaitable[object]]) -> None:
    await until()  # made here: a task that is cancelled before its first step would leave it unawaited
