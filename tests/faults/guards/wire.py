"""Guards of the wire between hub and sidecars, taken out."""

from __future__ import annotations

from typing import Any

from tests.faults.patching import patch


def silence_unseen() -> None:
    """No lease ever passes at the hub."""
    from hub.engine.live.silence import Silence

    patch(Silence, "overdue", lambda self, monotonic: [])


def acks_unwatched() -> None:
    """The hub does not mind what is not acked or not read."""
    from hub.engine.live.silence import Silence

    patch(Silence, "deaf", lambda self, monotonic: [])


def doubt_off() -> None:
    """Who took nothing in is offered the next thing as soon as it says hello."""
    from hub.engine.live.fleet import Seat

    real = Seat.available

    def available(self: Any, now: float) -> bool:
        self.in_doubt = False
        return real(self, now)

    patch(Seat, "available", available)


def only_heartbeats_count() -> None:
    """Reports, logs and acks are no sign of life."""
    from hub.engine.live.sessions import Sessions

    heard, heartbeat = Sessions.heard, Sessions.heartbeat

    def deaf(self: Any, session: Any, ack: int) -> None:
        before = session.heard_at
        heard(self, session, ack)
        session.heard_at = before

    async def beat(self: Any, session: Any, message: Any) -> None:
        session.heard_at = self._ctx.clock.monotonic()
        await heartbeat(self, session, message)

    patch(Sessions, "heard", deaf)
    patch(Sessions, "heartbeat", beat)


def suspects_are_robbed() -> None:
    """Silence is believed at once, without a look at what waits in the sockets."""
    from hub.engine.live.silence import Suspicion

    patch(Suspicion, "confirmed", lambda self, suspects, monotonic: list(suspects))


def lease_unwatched() -> None:
    """The sidecar works on, however long it hears nothing."""
    from sidecar.core.lease import Lease

    patch(Lease, "ran_out", lambda self, now: False)


def repeats_unknown() -> None:
    """A report that comes again is taken for news."""
    from hub.engine.script import work
    from kit.ledger import Inbox, Verdict

    patch(work, "_repeat", lambda *_: None)
    patch(Inbox, "accept", lambda self, seq: _applied(self, seq, Verdict.APPLY))


def watches_wait() -> None:
    """A watch waits for its reader for ever."""
    from kit import interceptors

    real = interceptors._write
    patch(interceptors, "_write", lambda context, response, stall_s: real(context, response, 1e6))


def jitter_off() -> None:
    """Who lost its stream comes back after exactly the time that all others wait, too."""
    from kit import backoff

    patch(backoff, "full_jitter", lambda attempt, base_s, cap_s, rng: min(cap_s, base_s * 2**attempt))


def _applied(inbox: Any, seq: int, verdict: Any) -> Any:
    inbox._applied = max(inbox._applied, seq)
    return verdict


GUARDS = {
    "silence_unseen": silence_unseen,
    "acks_unwatched": acks_unwatched,
    "doubt_off": doubt_off,
    "only_heartbeats_count": only_heartbeats_count,
    "suspects_are_robbed": suspects_are_robbed,
    "lease_unwatched": lease_unwatched,
    "repeats_unknown": repeats_unknown,
    "jitter_off": jitter_off,
    "watches_wait": watches_wait,
}
