"""Who says nothing, and who takes nothing in: suspected first, and believed when it is still so a moment later.

A stream can be dead in one direction only. Up: nothing is heard for a lease. Down: heartbeats come, but what was said
is not acked, or the writer waits because nobody reads. Keepalive pings show neither when a proxy answers them.

Silence is judged by what was *read*. A hub whose process stood still (a suspended machine, a full disk, a long pause)
has the words of that time still in its sockets when it goes on; judged at once, the busiest agents would be robbed
first. So a suspect is believed only when it was suspected in looks that are close together, and the loop has read in
between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from hub.core.holding import Holding
from hub.engine.live.context import Context
from hub.engine.live.fleet import Fleet
from hub.engine.live.session import Session
from kit import errors

CONFIRM_S: Final = 0.25
"""How long a suspicion must last: the loop reads what waits in its sockets many times meanwhile."""

GAP_S_MAX: Final = 2.0
"""Looks further apart than this are not close together: the process may have stood still in between."""

PROOF_HEARTBEAT_S: Final = 0.5
"""The first heartbeat that is asked of an agent in doubt: it shows that the welcome arrived."""


class Suspicion:
    """One kind of silence."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._looked_at = 0.0

    def __bool__(self) -> bool:
        """Is there somebody to look at again soon?"""
        return bool(self._since)

    def confirmed(self, suspects: Iterable[Session], monotonic: float) -> list[Session]:
        """Those of the suspects of this look that have been suspected for long enough."""
        before = self._since if monotonic - self._looked_at <= GAP_S_MAX else {}
        self._looked_at = monotonic
        found: list[Session] = []
        self._since = {}
        for session in suspects:
            since = before.get(session.id, monotonic)
            if monotonic - since >= CONFIRM_S:
                found.append(session)
            else:
                self._since[session.id] = since
        return found


class Overdue(NamedTuple):
    """An agent that was silent for a lease, or took nothing in, and what of its holdings is lost by that."""

    agent: str
    holdings: list[Holding]
    was_here: bool
    """It had a session, so it died or hangs; False: it has not come back since the hub started."""


class Silence:
    """Over all sessions (the mapping is that of `Sessions`, live or resumable, by agent)."""

    def __init__(self, ctx: Context, fleet: Fleet, sessions: dict[str, Session]) -> None:
        self._ctx = ctx
        self._fleet = fleet
        self._sessions = sessions
        self._patient_from = ctx.clock.monotonic()
        self._silent, self._deaf = Suspicion(), Suspicion()

    def be_patient(self) -> None:
        """Let no lease pass for one lease length: the hub itself was away (it started, or its loop stood still)."""
        self._patient_from = self._ctx.clock.monotonic()

    def patience_left_s(self, monotonic: float) -> float:
        """For how long from now no lease passes; 0: they pass as they should."""
        return max(0.0, self._patient_from + self._ctx.settings.lease_s - monotonic)

    def overdue(self, monotonic: float) -> list[Overdue]:
        """Agents that were silent for a lease. Their sessions end here; their holdings are for the caller to take."""
        found: list[Overdue] = []
        lease_s = self._ctx.settings.lease_s
        if monotonic - self._patient_from < lease_s:
            self._silent.confirmed((), monotonic)
            return found
        late = [one for one in self._sessions.values() if monotonic - one.heard_at >= lease_s]
        for session in self._silent.confirmed(late, monotonic):
            del self._sessions[session.agent]
            session.seat.in_doubt = True
            if session.stream is not None:
                session.stream.fail(
                    errors.Unavailable("no heartbeat came for a lease", reason="SILENT", retry_delay_s=1.0)
                )
                self._fleet.detach(session.agent)
            if holdings := session.holds():
                found.append(Overdue(session.agent, holdings, was_here=True))
        known = {one.agent for one in found}
        return found + [one for one in self._orphans() if one.agent not in known]

    def deaf(self, monotonic: float) -> list[Overdue]:
        """Agents that do not take in what is said. Their streams end here; what they were offered and never took up is
        for the caller to take, and they are offered nothing more until they have shown that they hear.
        """
        found: list[Overdue] = []
        timeout_s = self._ctx.settings.ack_timeout_s
        late = [
            session
            for session in self._sessions.values()
            if (since := _deaf_since(session)) is not None and monotonic - since >= timeout_s
        ]
        for session in self._deaf.confirmed(late, monotonic):
            assert session.stream is not None
            session.stream.fail(_problem(session, timeout_s, monotonic))
            session.seat.in_doubt = True
            self._fleet.touch(session.seat)
            held = session.seat.holdings
            unheard = [one for one, told in session.told.items() if told.seq > session.outbox.acked]
            offered = [one for one in unheard if one.task in held and not held[one.task].accepted]
            found.append(Overdue(session.agent, offered, was_here=True))
        return found

    def next_look(self, monotonic: float) -> float | None:
        """When, by the monotonic clock, the first session may be silent for a lease, or deaf for too long."""
        if self.is_suspicious:
            return monotonic + CONFIRM_S
        settings = self._ctx.settings
        times = [since + settings.ack_timeout_s for since in map(_deaf_since, self._sessions.values()) if since]
        if self._sessions:
            heard_at = min(session.heard_at for session in self._sessions.values())
            times.append(max(heard_at, self._patient_from) + settings.lease_s)
        return min(times, default=None)

    @property
    def is_suspicious(self) -> bool:
        """Is there somebody to look at again in a moment?"""
        return bool(self._silent or self._deaf)

    def _orphans(self) -> list[Overdue]:
        """Agents that hold something and have no session: they did not come back since the hub started."""
        found = []
        for seat in self._fleet:
            if seat.holdings and seat.agent not in self._sessions:
                held = [Holding(task, one.generation) for task, one in seat.holdings.items() if not one.claimed]
                if held:
                    found.append(Overdue(seat.agent, held, was_here=False))
        return found


def _deaf_since(session: Session) -> float | None:
    """Since when its stream takes nothing in; None: it does, or has no stream."""
    stream = session.stream
    if stream is None:
        return None
    since = [at for at in (session.unacked_since, stream.writing_since) if at is not None]
    return min(since, default=None)


def _problem(session: Session, timeout_s: float, monotonic: float) -> errors.Problem:
    """What its stream is ended with."""
    stream = session.stream
    assert stream is not None
    agent = f"agents/{session.agent}"
    if stream.writing_since is not None and monotonic - stream.writing_since >= timeout_s:
        message = f"{agent} has not read for {timeout_s:g} s"
        return errors.Exhausted(message, reason="SLOW_READER", retry_delay_s=1.0)
    message = f"{agent} has acknowledged nothing for {timeout_s:g} s"
    return errors.Unavailable(message, reason="UNACKED", retry_delay_s=1.0)
