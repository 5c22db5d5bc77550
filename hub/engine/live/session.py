"""One session: what is said between the hub and one sidecar, across all the streams that it takes.

A session outlives its stream. Assignments and revocations are sequenced: held until the sidecar acks them and sent
again after a resume (`kit.ledger`). Everything else that goes down is state, of which only the newest counts: what
ought to be (`Desired`), the highest number stored (the ack), the end (`Goaway`). So a stream needs no queue:
`Stream.next` says what is to be written now, and the only thing that can fill up is the ledger, which is bounded. When
it is full the stream is ended, because its sidecar does not read or does not ack; the session can be resumed, and what
could not be said is found missing by the next heartbeat and said then.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from hub.core import attach
from hub.core.holding import Holding
from hub.engine.live.fleet import Seat
from kit import errors, ledger

REPORTS_MAX: Final = 64
"""Reports read and not applied yet; beyond it the stream is not read, and the sidecar waits."""

ACK_DELAY_S: Final = 0.004
"""How long an ack waits for a message to ride on: a message by itself costs the hub as much as an assignment, and
what a sidecar does meanwhile does not wait for it."""

MISSED_MAX: Final = 2
"""A holding that this many heartbeats in a row do not list is lost: one may have been on its way with the ack."""

CLOCK_OFFSET_S_MAX: Final = 10.0 * 365 * 86_400
"""A clock that shows 1970 is told as ten years behind: what a sidecar says of its clock has a bound as all else."""


class Out(NamedTuple):
    """One message to write; `body` None: only an ack."""

    seq: int
    ack: int
    body: attach.Down | None


class Sequenced(NamedTuple):
    """A report or goodbye with its number."""

    seq: int
    body: attach.Report | attach.Goodbye


@dataclass(slots=True)
class Told:
    """A holding that the sidecar knows of."""

    #: Number of the assign message; 0: it brought the holding along.
    seq: int
    #: How long it may show no progress: as long as its own limits for silence allow, and not less than the setting.
    stuck_s: float
    progress: attach.Progress
    progress_at: float
    missed: int = 0
    stuck: bool = False


class Stream:
    """The way down of one stream, and the reports that came up on it."""

    def __init__(self, session: Session, unsent: Iterable[tuple[int, attach.Sequenced]]) -> None:
        self.session = session
        #: Reports and goodbye, in their order; None: the sidecar says no more.
        self.reports: asyncio.Queue[Sequenced | None] = asyncio.Queue(REPORTS_MAX)
        #: Holdings whose report is read and not applied yet.
        self.reporting: Counter[Holding] = Counter()
        self._welcome: attach.Welcome | None = None
        self._unsent = deque(unsent)
        self._desired: attach.Desired | None = None
        self._goaway: attach.Goaway | None = None
        self._acked = session.stored
        self._ack_due = False
        self._ack_timer: asyncio.TimerHandle | None = None
        self._ended = False
        #: Goodbye was said and is carried out.
        self.left = False
        #: Monotonic: since when the writer waits for the wire to take a message; None: it does not.
        self.writing_since: float | None = None
        self._wake = asyncio.Event()
        #: Set when the stream must be cut, whatever its writer waits for; `problem` says why.
        self.cut = asyncio.Event()
        self.problem: errors.Problem | None = None

    def welcome(self, welcome: attach.Welcome) -> None:
        """Write this before everything else."""
        self._welcome = welcome
        self._wake.set()

    def push(self, seq: int, body: attach.Sequenced) -> None:
        """Write a sequenced message."""
        self._unsent.append((seq, body))
        self._wake.set()

    def desire(self, desired: attach.Desired) -> None:
        """Write what ought to be; replaces one that was not written yet."""
        self._desired = desired
        self._wake.set()

    def go_away(self, goaway: attach.Goaway) -> None:
        """Write this last and end."""
        self._goaway = goaway
        self._wake.set()

    def end(self) -> None:
        """End when everything is written."""
        self._ended = True
        self._wake.set()

    def ack(self, *, again: bool = False) -> None:
        """There may be a new ack to write, soon; `again`: the last one seems to be lost, so at once."""
        if again:
            self._acked = -1
            self._tell_ack()
        elif self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_DELAY_S, self._tell_ack)

    def fail(self, problem: errors.Problem) -> None:
        """Cut the stream with this problem."""
        self.problem = self.problem or problem
        self.cut.set()

    def _tell_ack(self) -> None:
        self._ack_timer = None
        self._ack_due = True
        self._wake.set()

    async def next(self) -> list[Out]:
        """What is to be written now, in this order; waits until there is something. Empty: the stream ends."""
        while True:
            self._wake.clear()
            found = self._collect()
            if found or self._ended or self._goaway:
                return found
            await self._wake.wait()

    def _collect(self) -> list[Out]:
        ack = self.session.stored
        found: list[Out] = []
        if self._welcome is not None:
            found.append(Out(0, ack, self._welcome))
            self._welcome = None
        while self._unsent:
            seq, body = self._unsent.popleft()
            found.append(Out(seq, ack, body))
        if self._desired is not None:
            found.append(Out(0, ack, self._desired))
            self._desired = None
        if self._goaway is not None:
            found.append(Out(0, ack, self._goaway))
            self._goaway, self._ended = None, True
        if not found and ack > self._acked and (self._ack_due or self._ended):
            found.append(Out(0, ack, None))
        if found:
            self._acked = ack
            self._ack_due = False
        return found


class Session:
    """What both sides know of each other."""

    def __init__(
        self, id: str, seat: Seat, hello: attach.Hello, *, outbox_max: int, monotonic: Callable[[], float]
    ) -> None:
        self.id = id
        self.monotonic = monotonic
        self.seat = seat
        self.hello = hello
        self.outbox: ledger.Outbox[attach.Sequenced] = ledger.Outbox(outbox_max)
        self.inbox = ledger.Inbox()
        #: The sidecar's highest number whose effect is durable.
        self.stored = 0
        self.stream: Stream | None = None
        #: Monotonic; the lease counts from here.
        self.heard_at = monotonic()
        #: Monotonic: since when something waits for an ack on an open stream, or the last ack; None: nothing waits.
        self.unacked_since: float | None = None
        #: Seconds since the epoch, for people.
        self.seen_at = 0.0
        self.told: dict[Holding, Told] = {}
        self.self_test = hello.self_test
        self.load: attach.Load | None = None
        #: How far its clock is ahead of ours, as of its last word; None: it does not say.
        self.clock_offset_s: float | None = None

    @property
    def agent(self) -> str:
        return self.seat.agent

    def saw_clock(self, shown_at: float | None, now: float) -> None:
        """Its clock showed this when ours showed `now`; a word that was long on its way makes it look late."""
        offset_s = None if shown_at is None else shown_at - now
        self.clock_offset_s = offset_s and max(-CLOCK_OFFSET_S_MAX, min(CLOCK_OFFSET_S_MAX, offset_s))

    def open(self) -> Stream:
        """A stream of this session begins; what is not acked is sent again."""
        # What was read but not stored before the last stream broke comes again, and must not count as a duplicate.
        self.inbox = ledger.Inbox(self.stored)
        self.stream = Stream(self, self.outbox.pending())
        self.unacked_since = self.monotonic() if len(self.outbox) else None
        return self.stream

    def acked(self, seq: int) -> None:
        """The sidecar has taken in everything up to `seq`. Raises Gap for what was never sent."""
        if self.outbox.ack(seq):
            self.unacked_since = self.monotonic() if len(self.outbox) else None

    async def receive(self, stream: Stream, message: Sequenced) -> None:
        """Hand a report on to be applied, once; waits while too many are. Raises Gap when one before it is missing."""
        if self.inbox.accept(message.seq) is ledger.Verdict.DUPLICATE:
            stream.ack(again=True)
            return
        if isinstance(message.body, attach.Report):
            stream.reporting[message.body.holding] += 1
        await stream.reports.put(message)

    def applied(self, stream: Stream, messages: Iterable[Sequenced]) -> None:
        """The effect of these is durable."""
        for message in messages:
            self.stored = max(self.stored, message.seq)
            if isinstance(message.body, attach.Report):
                stream.reporting[message.body.holding] -= 1
        stream.ack()

    def say(self, body: attach.Sequenced) -> int:
        """Hold a sequenced message until it is acked, and write it when there is a stream; its number.

        0: there was no room. The stream is cut then, and what was to be said is left to the next heartbeat.
        """
        if self.outbox.full:
            if self.stream is not None:
                message = f"{len(self.outbox)} messages to agents/{self.agent} wait for an ack, which is the bound"
                self.stream.fail(errors.Exhausted(message, reason="SLOW_READER", retry_delay_s=1.0))
            return 0
        seq = self.outbox.put(body)
        if self.stream is not None:
            self.stream.push(seq, body)
            if self.unacked_since is None:
                self.unacked_since = self.monotonic()
        return seq

    def holds(self) -> list[Holding]:
        """What the hub has on this agent's seat, but for what is held by hand."""
        held = self.seat.holdings.items()
        return [Holding(task, one.generation) for task, one in held if not one.claimed]

    def beat(self, heartbeat: attach.Heartbeat, now: float) -> tuple[list[Holding], list[Holding]]:
        """Compare a heartbeat with what ought to be (`now` is monotonic): holdings that are lost, and ones to be told.

        A holding counts as known when its assignment is acked; a report that is being applied excuses its absence.
        """
        listed = dict(zip(heartbeat.holdings, heartbeat.progress, strict=False))
        present = set(heartbeat.holdings)
        reporting = self.stream.reporting if self.stream is not None else Counter[Holding]()
        lost, untold = [], []
        for holding in self.holds():
            told = self.told.get(holding)
            if told is None:
                if not reporting[holding]:
                    untold.append(holding)
                continue
            if holding in present:
                told.missed = 0
                told.seq = 0
                self._evidence(told, listed.get(holding), now)
            elif told.seq <= self.outbox.acked and not reporting[holding]:
                told.missed += 1
                if told.missed >= MISSED_MAX:
                    lost.append(holding)
        return lost, untold

    def stuck(self, now: float, after_s: float) -> tuple[list[Holding], list[Holding]]:
        """Accepted holdings without progress (`now` is monotonic): those newly so after `after_s`, and those to be
        taken back.
        """
        new, over = [], []
        for holding, told in self.told.items():
            held = self.seat.holdings.get(holding.task)
            if held is None or held.generation != holding.generation or not held.accepted:
                continue
            still_s = now - told.progress_at
            if still_s >= told.stuck_s:
                over.append(holding)
            if still_s >= after_s and not told.stuck:
                told.stuck = True
                new.append(holding)
        return new, over

    def _evidence(self, told: Told, progress: attach.Progress | None, now: float) -> None:
        if progress is not None and progress != told.progress:
            told.progress, told.progress_at, told.stuck = progress, now, False
