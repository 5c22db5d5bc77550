"""One stream's talk with the hub, from hello to its end: what the hub orders is applied, what is due is said.

What comes in is applied in batches: everything that waits is offered to the holdings, one journal write covers it, and
only then it is acked. What must be told is read off the holdings after each change (`tell`), never queued here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf import duration_pb2

from agentcom.v1 import agent_pb2, agent_service_pb2_grpc, attach_pb2
from kit import clock, errors, ids, ledger, logs, version
from sidecar.core import offer, tail
from sidecar.core.assignment import Assignment, Holding
from sidecar.core.lease import Lease
from sidecar.core.meter import NOBODY, Meter
from sidecar.core.slots import Answer, Phase
from sidecar.wire import translate
from sidecar.wire.availability import Availability
from sidecar.wire.holdings import ACKED, Holdings, fields
from sidecar.wire.ledger import Ledger, Sequenced
from sidecar.wire.stream import BATCH_FEATURE, Ended, Outgoing, Stream, cause_of

log = logs.get(__name__)

#: For a hub that sets no pace.
HEARTBEAT_DEFAULT_S = 10.0
#: No hub can make a sidecar spin.
HEARTBEAT_MIN_S = 0.05
#: Each heartbeat comes up to this part earlier, so that sidecars that came back together drift apart.
HEARTBEAT_JITTER = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What outlives a stream, and every stream needs."""

    #: "agents/{agent}".
    agent: str
    offer: offer.Offer
    version: str
    host: str
    holdings: Holdings
    ledger: Ledger
    tail: tail.Tail
    lease: Lease
    availability: Availability
    #: The load of the machine, given the number of holdings.
    load: Callable[[int], agent_pb2.Load]
    #: Is the sidecar being stopped, so that it takes nothing new?
    closing: Callable[[], bool]
    time: clock.Clock
    rng: random.Random
    meter: Meter = NOBODY


class Conversation:
    """One stream."""

    def __init__(
        self, desk: Desk, on_welcome: Callable[[], None], on_change: Callable[[], None], *, welcome_timeout_s: float
    ) -> None:
        """`on_change` is called after everything that may have made something due; it calls `tell`."""
        self._desk = desk
        self._on_change = on_change
        self._on_welcome = on_welcome
        self._welcome_timeout_s = welcome_timeout_s
        self._outgoing = Outgoing(ack=lambda: desk.ledger.ack, heartbeat=self._heartbeat, log=self._log)
        self._cut = asyncio.Event()
        self._paced = asyncio.Event()
        self._pace_s = HEARTBEAT_DEFAULT_S
        #: What hello listed.
        self._listed: list[Holding] = []
        #: Goodbye is said.
        self._leaving = False
        #: Reports may be sent.
        self.welcomed = False

    async def run(
        self, stub: agent_service_pb2_grpc.AgentServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> Ended:
        """Talk until the stream ends; returns why it did."""
        stream = Stream(stub, metadata)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(stream.read(self._heard), name="stream.read")
                group.create_task(stream.write(self._hello(), self._outgoing), name="stream.write")
                group.create_task(self._watch_cut(), name="stream.watch")
                await self._talk(stream, group)
        except BaseExceptionGroup as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # A group that has errors drops the cancel that came with them (until Python 3.13).
                raise asyncio.CancelledError from error
            end = cause_of(error)
            if end is None:
                raise
            if end.problem is not None and not isinstance(end.problem, errors.Unavailable):
                # Whatever the hub has against this session, a new one says everything again.
                self._desk.ledger.forget()
            return end
        finally:
            self.welcomed = False
            stream.close()
        raise AssertionError("a talk ends with Ended")

    def tell(self) -> None:
        """Say what is due: call it whenever a holding has changed."""
        if self.welcomed:
            self._outgoing.say(self._desk.ledger.due(self._desk.holdings.slots))

    def goodbye(self, reason: str) -> None:
        """Say that this is the end, on purpose; the stream ends when the hub has it."""
        self._outgoing.say(self._desk.ledger.goodbye(reason))
        self._leaving = True

    def beat(self) -> None:
        """Send a heartbeat now: something in it has changed that the hub should not wait for."""
        if self.welcomed:
            self._outgoing.beat()

    def wake(self) -> None:
        """There is live log to send."""
        self._outgoing.wake()

    def cut(self) -> None:
        """The hub has been silent for too long: end this stream."""
        self._cut.set()

    # In order of their coming: hello, welcome, the rest.

    def _hello(self) -> attach_pb2.AttachRequest:
        desk = self._desk
        self._listed = [entry.holding for entry in desk.holdings.slots.entries()]
        self_test = desk.availability.tell_always()
        offered = desk.offer
        hello = attach_pb2.Hello(
            agent=desk.agent,
            session=desk.ledger.session,
            holdings=translate.to_holdings(self._listed),
            offer=translate.to_offer(offered),
            version=desk.version[:32],
            host=desk.host[:128],
            self_test=None if self_test is None else translate.to_self_test(self_test),
            draining=desk.closing(),
            features=[BATCH_FEATURE],
            time=translate.to_time(desk.time.now()),
        )
        return attach_pb2.AttachRequest(ack=desk.ledger.ack if desk.ledger.session else 0, hello=hello)

    async def _talk(self, stream: Stream, group: asyncio.TaskGroup) -> None:
        try:
            async with asyncio.timeout(self._welcome_timeout_s):
                batch = await stream.batch()
        except TimeoutError:
            raise Ended("WELCOME_TIMEOUT", f"the hub said nothing for {self._welcome_timeout_s:g} s") from None
        first = batch.pop(0)
        if first.WhichOneof("body") == "goaway":
            raise _gone(first.goaway)
        if first.WhichOneof("body") != "welcome":
            self._desk.ledger.forget()
            raise Ended("PROTOCOL", "the hub's first message is no welcome")
        try:
            self._welcome(first.welcome)
            group.create_task(self._beat(), name="stream.heartbeat")
            while True:
                await self._apply(batch)
                batch = await stream.batch()
        except (ledger.Gap, errors.Invalid) as problem:
            # What the hub says does not fit this session, or is no word of this protocol.
            log.warning("session.broken", reason=problem.reason, message=problem.message)
            self._desk.ledger.forget()
            raise Ended(problem.reason, problem.message) from problem

    def _welcome(self, welcome: attach_pb2.Welcome) -> None:
        desk = self._desk
        _look_at(desk.version, welcome.version)
        desk.lease.grant(_seconds(welcome.lease_duration), desk.time.monotonic())
        self._set_pace(_seconds(welcome.heartbeat_interval) or HEARTBEAT_DEFAULT_S)
        resumed = welcome.resumed and welcome.session == desk.ledger.session
        pending: list[tuple[int, Sequenced]] = []
        if resumed:
            settled, pending = desk.ledger.resume(welcome.received_seq)
            self._settle(settled)
        else:
            desk.ledger.open(welcome.session)
        self.welcomed = True
        self._outgoing.start(desk.ledger.ack, batched=BATCH_FEATURE in welcome.features)
        readopted = set(translate.holdings(welcome.holdings))
        for holding in self._listed:
            if holding not in readopted:
                desk.holdings.stop(holding, "NOT_READOPTED")
        log.info(
            "sidecar.attached",
            agent=ids.parse_name("agents", desk.agent, field="agent"),
            session=welcome.session,
            resumed=resumed,
            holdings=len(self._listed),
            hub=welcome.version,
        )
        desk.meter.attached(resumed=resumed)
        self._outgoing.say(pending)
        self._on_welcome()
        self._on_change()

    async def _apply(self, batch: Sequence[attach_pb2.AttachResponse]) -> None:
        book = self._desk.ledger
        offered: list[Assignment] = []
        for message in batch:
            if message.ack:
                self._settle(book.acked(message.ack))
            if not book.is_new(message.seq):
                continue
            match message.WhichOneof("body"):
                case "assign":
                    self._assign(message.assign, offered)
                case "revoke":
                    await self._write(offered)
                    self._revoke(message.revoke)
                case "desired":
                    await self._write(offered)
                    self._desired(message.desired)
                case "goaway":
                    await self._write(offered)
                    raise _gone(message.goaway)
                case _:  # only an ack, or a word of a newer hub
                    pass
        await self._write(offered)
        book.applied()
        self._on_change()
        self._outgoing.wake()
        if self._leaving and book.empty:
            raise Ended("LEFT", "the hub has everything")

    def _assign(self, message: attach_pb2.Assign, offered: list[Assignment]) -> None:
        desk = self._desk
        holding = translate.holding(message.holding)
        try:
            assignment = translate.assignment(message)
        except errors.Invalid as problem:
            self._refuse(holding, offer.Refusal(problem.reason, problem.message))
            return
        answer = desk.holdings.slots.answer(holding)
        if answer is Answer.KNOWN:
            desk.ledger.say_again(holding)
            return
        refusal = offer.refusal(desk.offer, desk.availability.newest, assignment, closing=desk.closing())
        if answer is Answer.STALE:
            log.warning("assignment.stale", **fields(holding, assignment))
        elif refusal is not None:
            self._refuse(holding, refusal, assignment)
        elif answer is Answer.FULL:
            self._refuse(holding, offer.Refusal("NO_SLOT", f"all {desk.offer.slots} slots are taken"), assignment)
        else:
            desk.holdings.offer(assignment)
            offered.append(assignment)

    async def _write(self, offered: list[Assignment]) -> None:
        """Journal and begin what was offered; empties the list."""
        problem = await self._desk.holdings.write()
        if problem is not None:
            for assignment in offered:
                self._refuse(assignment.holding, offer.Refusal("JOURNAL_FAILED", problem.message), assignment)
        offered.clear()

    def _refuse(self, holding: Holding, refusal: offer.Refusal, assignment: Assignment | None = None) -> None:
        log.warning("assignment.refused", **fields(holding, assignment), reason=refusal.reason)
        self._outgoing.say(self._desk.ledger.refuse(holding, refusal))

    def _revoke(self, message: attach_pb2.Revoke) -> None:
        holding = translate.holding(message.holding)
        entry = self._desk.holdings.slots.get(holding)
        if entry is not None and entry.phase is Phase.FINISHED:
            self._desk.holdings.settle(holding, "revoked")
        else:
            self._desk.holdings.stop(holding, message.reason or "REVOKED")

    def _desired(self, message: attach_pb2.Desired) -> None:
        desk = self._desk
        desk.meter.answered()
        slots = desk.holdings.slots
        for holding in slots.settle(translate.holdings(message.holdings)):
            desk.holdings.stop(holding, "NOT_DESIRED")
        desk.tail.watch(holding for holding in translate.holdings(message.tail) if holding in slots)
        if message.HasField("next_heartbeat"):
            self._set_pace(_seconds(message.next_heartbeat))

    def _settle(self, holdings: Sequence[Holding]) -> None:
        for holding in holdings:
            self._desk.holdings.settle(holding, ACKED)

    # What is asked of this side at the moment it can be written.

    def _heartbeat(self) -> attach_pb2.Heartbeat:
        desk = self._desk
        entries = desk.holdings.slots.list_in_heartbeat()
        news = desk.availability.tell_news()
        desk.meter.beat()
        return attach_pb2.Heartbeat(
            holdings=translate.to_holdings(entry.holding for entry in entries),
            progress=[translate.to_progress(desk.holdings.progress(entry)) for entry in entries],
            load=desk.load(len(entries)),
            self_test=None if news is None else translate.to_self_test(news),
            draining=desk.closing(),
            time=translate.to_time(desk.time.now()),
        )

    def _log(self) -> attach_pb2.LogChunk | None:
        chunk = self._desk.tail.take() if self.welcomed else None
        return None if chunk is None else translate.to_log(chunk)

    def _heard(self) -> None:
        self._desk.lease.heard(self._desk.time.monotonic())

    def _set_pace(self, seconds: float) -> None:
        # However slow the hub wants it, two heartbeats fit into a lease: its answers keep the work alive.
        duration_s = self._desk.lease.duration_s
        longest_s = max(HEARTBEAT_MIN_S, duration_s / 2) if duration_s is not None else seconds
        self._pace_s = min(max(seconds, HEARTBEAT_MIN_S), longest_s)
        self._paced.set()

    async def _beat(self) -> None:
        """Heartbeats at the hub's pace, counted from the last one, so that many words of the hub do not put it off."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        early = self._desk.rng.uniform(1 - HEARTBEAT_JITTER, 1)
        while True:
            self._paced.clear()
            try:
                async with asyncio.timeout_at(last + self._pace_s * early):
                    await self._paced.wait()
            except TimeoutError:
                self._outgoing.beat()
                last = loop.time()
                early = self._desk.rng.uniform(1 - HEARTBEAT_JITTER, 1)

    async def _watch_cut(self) -> None:
        await self._cut.wait()
        raise Ended("SILENT_HUB", "the hub said nothing for the length of a lease")


def _look_at(own: str, hub: str) -> None:
    """Compare versions; raises Ended when the hub is too far from us. A hub that is as new as this looks itself."""
    text = version.warning(version.Node("hub", hub), version.Node("sidecar", own))
    if version.skew(own, hub) is version.Skew.FAR:
        log.error("hub.version_refused", problem=text)
        raise Ended(version.REASON, text, retry_delay_s=version.RETRY_S)
    if text:
        log.warning("hub.version_differs", problem=text)


def _gone(goaway: attach_pb2.Goaway) -> Ended:
    delay_s = _seconds(goaway.retry_delay)
    return Ended(goaway.reason or "GOAWAY", "the hub sent this sidecar away", retry_delay_s=delay_s, final=goaway.final)


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1_000_000_000
