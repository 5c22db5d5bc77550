"""All sessions: they are opened, resumed, superseded, kept alive by heartbeats, and end.

The theory. The hub decides in transactions; the sessions follow what was committed. A holding that a commit puts on a
seat is sent to its agent, one that a commit takes off with a reason to revoke is revoked; nobody calls the sessions to
say so. Heartbeats compare the two sides (level-triggered): what the sidecar should hold and was never told is told,
what it was told and does not hold any more is lost, what it holds and should not is left out of `Desired`, which means
stop.

A stream that ends without goodbye leaves its session and its holdings for one lease: the sidecar comes back and
resumes. A hub that has just started knows no session; it takes over what the sidecars bring along at the same
generation, and lets no lease pass before one lease length is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from hub.core import attach
from hub.core import task as core
from hub.core.event import Event
from hub.core.holding import Holding
from hub.engine.live import silence, skew
from hub.engine.live.context import Context
from hub.engine.live.dispatch import Dispatcher
from hub.engine.live.fleet import Fleet, Moves
from hub.engine.live.session import Session, Stream, Told
from hub.engine.script import attaching
from hub.store.base import Reader
from kit import errors, logs

log = logs.get(__name__)

RETRY_DELAY_S: Final = 1.0
"""Asked of the sidecars when the hub goes away: it is usually back soon, and they add their own jitter."""

DEGRADED_RETRY_S: Final = 5.0
"""Asked of the sidecars when the hub can take nothing in until a person has restored its store."""

RETRY_LEASE_SHARE: Final = 0.25
"""Of a lease: how soon a sidecar is asked to come back when the store took nothing."""

STUCK_GRACE_S: Final = 60.0
"""The sidecar ends an attempt that is silent for too long; the hub steps in this much later, when the sidecar did not.
"""

_FINAL: Final = {"agent.deleted": "DELETED", "agent.token_rotated": "REVOKED"}


class Sessions:
    """The live and the resumable sessions, by agent."""

    def __init__(self, ctx: Context, dispatcher: Dispatcher) -> None:
        self._ctx = ctx
        self._dispatcher = dispatcher
        self._fleet = dispatcher.fleet
        self._sessions: dict[str, Session] = {}
        self._live = 0
        self._detached: list[tuple[str, str, str]] = []
        self.silence = silence.Silence(ctx, self._fleet, self._sessions)
        self._gatekeeper = skew.Gatekeeper(ctx)
        #: Called when a stream has ended and `flush` has something to write; set by the sweep.
        self.on_detach: Callable[[], None] = lambda: None
        #: Holdings whose output somebody watches; set by the tail.
        self.watched: set[Holding] = set()
        #: The trace context of an assignment; set by the telemetry, when somebody traces.
        self.trace: Callable[[core.Task], str] | None = None
        self._fleet.follow(self._moved)
        ctx.bus.listen(self._committed)

    @property
    def fleet(self) -> Fleet:
        """The seats."""
        return self._fleet

    def get(self, agent: str) -> Session | None:
        """The session of an agent, live or resumable."""
        return self._sessions.get(agent)

    @property
    def live_count(self) -> int:
        """Sessions with an open stream."""
        return self._live

    @property
    def interval_s(self) -> float:
        """The pace of heartbeats: slower for a large fleet, but two of them always fit into a lease."""
        settings = self._ctx.settings
        return min(max(settings.heartbeat_s, self._live / settings.heartbeats_per_s_max), settings.lease_s / 2)

    async def open(self, hello: attach.Hello, ack: int) -> Stream:
        """Begin a stream: resume the session that the hello names, or open a new one.

        Raises NotFound, Conflict, and IllegalState for a version that is too far from ours.
        """
        ctx, agent, monotonic = self._ctx, hello.agent, self._ctx.clock.monotonic()
        if ctx.gate.degraded:
            message = f"the store is open for reading only: {ctx.gate.damage}"
            raise errors.Unavailable(message, reason="STORE_DEGRADED", retry_delay_s=DEGRADED_RETRY_S)
        if ctx.store.read(lambda reader: reader.agents.get(agent)) is None:
            name = f"agents/{agent}"
            raise errors.NotFound(f"there is no {name}", reason="AGENT_NOT_FOUND", metadata={"name": name})
        await self._gatekeeper.admit(hello)
        before = self._sessions.get(agent)
        resumed = before is not None and before.id == hello.session
        died = before is not None and not resumed and before.stream is None
        if before is not None and before.stream is not None:
            self._supersede(before, final=not resumed)
        if before is not None and resumed:
            session = before
            session.acked(ack)
            session.hello = hello
        else:
            id = ctx.ids.new(ctx.clock.now())
            outbox_max, seat = ctx.settings.outbox_max, self._fleet.seat(agent)
            session = Session(id, seat, hello, outbox_max=outbox_max, monotonic=ctx.clock.monotonic)
        self._sessions[agent] = session
        session.heard_at = monotonic
        session.saw_clock(hello.time_at, ctx.clock.now())
        return await self._welcome(session, resumed=resumed, died=died)

    async def _welcome(self, session: Session, *, resumed: bool, died: bool) -> Stream:
        ctx, hello = self._ctx, session.hello
        stream = session.open()  # now, so that what a commit moves meanwhile is said on it
        received_seq = session.stored
        entry = attaching.Entry(
            hello=hello,
            session=session.id,
            resumed=resumed,
            died=died,
            in_flight=frozenset(holding for holding, told in session.told.items() if told.seq > session.outbox.acked),
        )
        now, roll = ctx.clock.now(), ctx.rng.random()
        self._live += 1
        try:
            entered = await ctx.store.write(lambda txn: attaching.enter(txn, entry, now, roll=roll), essential=True)
            if session.stream is not stream:
                raise errors.Conflict(f"another stream of agents/{hello.agent} came first", reason="SUPERSEDED")
        except BaseException as error:
            if isinstance(error, errors.Exhausted | errors.Unavailable):
                self.not_now(error)
            self.close(stream, "refused")
            raise
        session.seat = self._fleet.attach(entered.agent, hello.offer)
        self._fleet.recount(hello.agent)
        adopted = self._take_over(session, entered)
        pace_s = silence.PROOF_HEARTBEAT_S if session.seat.in_doubt else self.interval_s
        stream.welcome(
            attach.Welcome(
                session=session.id,
                resumed=resumed,
                heartbeat_s=self._jittered(min(pace_s, self.interval_s)),
                lease_s=ctx.settings.lease_s,
                holdings=adopted,
                received_seq=received_seq if resumed else 0,
            )
        )
        self._apply(session, hello.self_test, draining=hello.draining)
        log.info("session.opened", agent=hello.agent, session=session.id, resumed=resumed, adopted=len(adopted))
        return stream

    def _take_over(self, session: Session, entered: attaching.Entered) -> tuple[Holding, ...]:
        """Go on with what it brought along, stop what it must not have, and say again what it never heard."""
        ctx, held = self._ctx, session.holds()
        adopted = tuple([holding for holding in entered.adopted if holding in held])
        ctx.figures.adopted += len(adopted)
        ctx.figures.lost += entered.lost
        for holding in adopted:
            self._known(session, holding)
        for holding in sorted(set(session.hello.holdings) - set(adopted)):
            session.say(attach.Revoke(holding, "UNKNOWN", "it is not, or no longer, yours"))
        for holding in held:
            if holding not in session.told and not session.outbox.full:
                self._assign(session, holding)
        return adopted

    def _known(self, session: Session, holding: Holding) -> None:
        """The sidecar has it: its progress counts from now."""
        told = session.told.get(holding)
        if told is None:
            session.told[holding] = self._told(0, self._ctx.store.read(lambda reader: reader.spec(holding.task)))
        else:
            told.progress_at = self._ctx.clock.monotonic()

    def heard(self, session: Session, ack: int) -> None:
        """Any message shows that the sidecar lives. Raises Gap for an ack of what was never sent."""
        session.heard_at = self._ctx.clock.monotonic()
        if ack:
            session.acked(ack)
        if session.seat.in_doubt and session.stream is not None and not session.stream.cut.is_set():
            self._trust(session)

    def _trust(self, session: Session) -> None:
        """It speaks, so the welcome arrived; and when nothing waits for its ack, what is sent does, too."""
        if session.unacked_since is None:
            session.seat.in_doubt = False
            self._fleet.touch(session.seat)
            self._dispatcher.wake.set()

    async def heartbeat(self, session: Session, heartbeat: attach.Heartbeat) -> None:
        """Take the whole state in, and answer with what ought to be."""
        session.seen_at = self._ctx.clock.now()
        session.saw_clock(heartbeat.time_at, session.seen_at)
        session.load = heartbeat.load
        self._apply(session, heartbeat.self_test or session.self_test, draining=heartbeat.draining)
        lost, untold = session.beat(heartbeat, self._ctx.clock.monotonic())
        for holding in untold:
            if holding in heartbeat.holdings:
                self._known(session, holding)
            elif not session.outbox.full:  # else the next heartbeat, after some acks
                self._assign(session, holding)
        if lost and not self._ctx.gate.degraded:
            await self.lose(lost, reason="FORGOTTEN", message="its sidecar does not hold it any more", died=False)
        if session.stream is not None:
            session.stream.desire(self._desired(session))

    async def lose(
        self, holdings: Iterable[Holding], *, reason: str, message: str, died: bool, revoke: str = ""
    ) -> None:
        """Take holdings back that nobody will report on."""
        now, roll, lost = self._ctx.clock.now(), self._ctx.rng.random(), tuple(holdings)
        loss = attaching.Loss(reason=reason, message=message, died=died, revoke=revoke)
        count = await self._ctx.store.write(lambda txn: attaching.lose(txn, lost, loss, now, roll=roll), essential=True)
        self._ctx.figures.lost += count
        log.warning("holdings.lost", reason=reason, count=count, message=message)

    async def leave(self, session: Session, reason: str) -> None:
        """Goodbye: what it still holds is given back at once, and the session ends."""
        message = f"agents/{session.agent} left: {reason or 'goodbye'}"
        holdings = session.holds()
        if holdings:
            await self.lose(holdings, reason="GOODBYE", message=message, died=False)
        if self._sessions.get(session.agent) is session:
            del self._sessions[session.agent]

    def close(self, stream: Stream, how: str) -> None:
        """A stream has ended, by whatever cause; its session can be resumed until its lease passes."""
        session = stream.session
        self._live -= 1
        if session.stream is not stream:
            return  # another one took its place
        session.stream = None
        if self._sessions.get(session.agent) in (session, None):
            self._fleet.detach(session.agent)
            self._detached.append((session.agent, session.id, how))
            self.on_detach()

    async def flush(self, now: float) -> int:
        """Write down which streams have ended since the last time; how many."""
        ended, self._detached = self._detached, []
        if ended:
            try:
                await self._ctx.store.write(lambda txn: attaching.left(txn, ended, now), essential=True)
            except BaseException:
                self._detached = ended + self._detached
                raise
        return len(ended)

    def be_patient(self) -> None:
        """Let no lease pass for one lease length: the hub itself was away (it started, or its loop stood still)."""
        self.silence.be_patient()

    def not_now(self, problem: errors.Problem) -> None:
        """The store takes nothing, so nothing is acked and a stream ends; its sidecar keeps what it has to say.

        It must be back, and its leases must hold, before they pass for a fault that is the hub's.
        """
        self.be_patient()
        soon_s = self._ctx.settings.lease_s * RETRY_LEASE_SHARE
        problem.retry_delay_s = min(problem.retry_delay_s or soon_s, soon_s)

    def go_away(self, agent: str, reason: str, *, final: bool) -> None:
        """End the stream of one agent with a last word."""
        session = self._sessions.get(agent)
        if session is not None and session.stream is not None:
            session.stream.go_away(attach.Goaway(reason=reason, retry_delay_s=RETRY_DELAY_S, final=final))

    def shut_down(self) -> None:
        """Tell every sidecar that the hub goes away; its streams end by themselves."""
        for agent in list(self._sessions):
            self.go_away(agent, "SHUTDOWN", final=False)

    def nudge(self, agent: str) -> None:
        """Say again what ought to be: something about it has changed, and the next heartbeat may be far."""
        session = self._sessions.get(agent)
        if session is not None and session.stream is not None:
            session.stream.desire(self._desired(session))

    def clock_offsets(self) -> dict[str, float]:
        """How far the clocks of the connected sidecars are ahead of ours, as far as they say so."""
        live = (one for one in self._sessions.values() if one.stream is not None)
        return {one.agent: one.clock_offset_s for one in live if one.clock_offset_s is not None}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    # What a commit did

    def _moved(self, moves: Moves) -> None:
        for agent, holding, revoke in moves.ended:
            session = self._sessions.get(agent)
            if session is None:
                continue
            told = session.told.pop(holding, None)
            if revoke and told is not None:
                session.say(attach.Revoke(holding, revoke, "the hub took it back"))
        placed = [(self._sessions[agent], holding) for agent, holding in moves.placed if agent in self._sessions]
        if placed:
            # One snapshot for all: a commit often places dozens.
            found = self._ctx.store.read(lambda reader: [_assignment(reader, holding) for _, holding in placed])
            for (session, holding), assign in zip(placed, found, strict=True):
                self._say(session, holding, assign, first=True)

    def _committed(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.type in _FINAL and "grace_s" not in event.fields:
                self.go_away(event.subject.removeprefix("agents/"), _FINAL[event.type], final=True)
            elif event.type in ("agent.draining", "agent.resumed"):
                self.nudge(event.subject.removeprefix("agents/"))

    def _assign(self, session: Session, holding: Holding) -> None:
        self._say(session, holding, self._ctx.store.read(lambda reader: _assignment(reader, holding)))

    def _say(self, session: Session, holding: Holding, found: attach.Assign | None, *, first: bool = False) -> None:
        if found is None or found.task.agent != session.agent:
            return  # taken back meanwhile: the next commit says so
        task = found.task
        if first and task.queued_at is not None and task.assigned_at is not None:
            self._ctx.figures.waited(task.assigned_at - task.queued_at, task.lane, task)
        if self.trace is not None:
            found = msgspec.structs.replace(found, traceparent=self.trace(task))
        seq = session.say(found)
        if seq:
            session.told[holding] = self._told(seq, found.spec)

    def _told(self, seq: int, spec: core.TaskSpec | None) -> Told:
        silence_s = (
            max([spec.silence_timeout_s, *(check.timeout_s for check in spec.checks)]) if spec is not None else 0.0
        )
        stuck_s = max(self._ctx.settings.stuck_s, silence_s + STUCK_GRACE_S)
        return Told(seq, stuck_s, attach.Progress(), self._ctx.clock.monotonic())

    # Small parts

    def _apply(self, session: Session, self_test: attach.SelfTest | None, *, draining: bool) -> None:
        seat = session.seat
        session.self_test = self_test
        blocked = self_test is None or not self_test.passed
        if (seat.blocked, seat.leaving) != (blocked, draining):
            seat.blocked, seat.leaving = blocked, draining
            self._fleet.touch(seat)
            self._dispatcher.wake.set()

    def _desired(self, session: Session) -> attach.Desired:
        seat, holdings = session.seat, session.holds()
        watched = self.watched
        return attach.Desired(
            next_heartbeat_s=self._jittered(self.interval_s),
            holdings=tuple(holdings),
            tail=tuple([one for one in holdings if one in watched]) if watched else (),
            draining=seat.draining or seat.leaving or self._ctx.gate.draining,
        )

    def _jittered(self, seconds: float) -> float:
        return seconds * (1.0 - self._ctx.settings.heartbeat_jitter * self._ctx.rng.random())

    def _supersede(self, session: Session, *, final: bool) -> None:
        """Its stream makes place for a newer one; `final` tells another process of the same name to stay away."""
        stream, session.stream = session.stream, None
        assert stream is not None
        log.info("session.superseded", agent=session.agent, session=session.id, final=final)
        self._fleet.detach(session.agent)
        if final:
            stream.go_away(attach.Goaway(reason="SUPERSEDED", final=True))
        else:
            stream.end()  # half open: the sidecar is on the new one already


def _assignment(reader: Reader, holding: Holding) -> attach.Assign | None:
    """Everything that an agent is told with a task; None when it is not assigned at this generation any more."""
    task, spec = reader.task(holding.task), reader.spec(holding.task)
    if task is None or spec is None or task.generation != holding.generation or task.state not in core.HELD:
        return None
    repo = reader.repos.get(task.repo) if task.repo else None
    change = reader.changes.get(task.change) if task.kind is core.Kind.MERGE and task.change else None
    return attach.Assign(task=task, spec=spec, repo=repo, change=change)
