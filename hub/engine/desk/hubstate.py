"""Whether the hub hands out work: paused (survives a restart) and draining (ends with the process)."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple

from hub.engine.live.context import Context
from hub.store.base import StoreFacts, Txn
from kit import errors

PAUSED_KEY: Final = "paused"
PAUSED_WHY_KEY: Final = "paused_why"
"""Who paused it and why, as a person reads it; of the last pause. A hub of 0.1 wrote none."""
UID_KEY: Final = "uid"

DRAIN_RETRY_S: Final = 30.0
"""A submitter asks again after about the time that a restart takes."""


class State(IntEnum):
    """The state of the hub; the numbers are those of the proto."""

    SERVING = 1
    PAUSED = 2
    DRAINING = 3
    DEGRADED = 4


class HubFacts(NamedTuple):
    """What GetHub tells."""

    version: str
    uid: str
    state: State
    started_at: float
    store: StoreFacts
    position: int
    position_oldest: int
    """0: there is no event."""
    lease_s: float
    reason: str = ""
    """Why it is in this state, where that is not plain."""


class HubState:
    """The hub's own state, and the verbs that change it."""

    def __init__(self, ctx: Context, *, version: str, wake: Callable[[], None]) -> None:
        self._ctx = ctx
        self._version = version
        self._wake = wake
        self._uid = ""
        self._started_at = 0.0
        #: Who drains it and why; of the last drain of this process.
        self._drained_why = ""

    async def start(self) -> None:
        """Tell the log that the process serves; name the store when it is new."""
        now, uid = self._ctx.clock.now(), self._ctx.ids.new(self._ctx.clock.now())

        def write(txn: Txn) -> str:
            known = txn.meta(UID_KEY)
            if known is None:
                txn.set_meta(UID_KEY, uid.encode())
            txn.append(now, "hub.started", "hub", version=self._version)
            return known.decode() if known is not None else uid

        self._started_at = now
        try:
            self._uid = await self._ctx.store.write(write, essential=True)
        except errors.Problem:
            if not self._ctx.gate.degraded:
                raise
            known = self._ctx.store.read(lambda reader: reader.meta(UID_KEY))
            self._uid = known.decode() if known is not None else ""

    async def stopped(self) -> None:
        """Tell the log that the process ends on purpose."""
        if self._ctx.gate.degraded:
            return
        now = self._ctx.clock.now()
        await self._ctx.store.write(lambda txn: txn.append(now, "hub.stopped", "hub"), essential=True)

    @property
    def state(self) -> State:
        """What refuses more goes before what refuses less."""
        gate = self._ctx.gate
        if gate.degraded:
            return State.DEGRADED
        return State.DRAINING if gate.draining else State.PAUSED if gate.paused else State.SERVING

    def facts(self) -> HubFacts:
        """What GetHub tells."""
        ctx = self._ctx
        return HubFacts(
            version=self._version,
            uid=self._uid,
            state=self.state,
            started_at=self._started_at,
            store=ctx.store.facts(),
            position=ctx.bus.position,
            position_oldest=ctx.bus.oldest(),
            lease_s=ctx.settings.lease_s,
            reason=self._reason(),
        )

    def _reason(self) -> str:
        """Why it is in its state, where that is not plain."""
        match self.state:
            case State.DEGRADED:
                return self._ctx.gate.damage
            case State.DRAINING:
                return self._drained_why
            case State.PAUSED:
                found = self._ctx.store.read(lambda reader: reader.meta(PAUSED_WHY_KEY))
                return found.decode() if found is not None else ""
            case State.SERVING:
                return ""

    async def pause(self, actor: str, reason: str) -> None:
        """Assign nothing more until `resume`, also after a restart."""
        gate = self._ctx.gate
        gate.paused = True  # before the write: nothing is assigned while it is on its way
        try:
            await self._tell("hub.paused", actor, reason, paused=b"1")
        except BaseException:
            gate.paused = self._ctx.store.read(lambda reader: reader.meta(PAUSED_KEY)) == b"1"
            raise

    async def resume(self, actor: str) -> None:
        """Assign again."""
        # The gate follows the event (context.py), in the order of the commits: a pause that came right behind holds.
        await self._tell("hub.resumed", actor, "", paused=b"0")
        self._wake()

    async def drain(self, actor: str, reason: str) -> None:
        """Assign nothing more and refuse submissions, until `resume` or the end of the process."""
        self._drained_why = _why("drained", actor, reason)
        self._ctx.gate.draining = True  # a fact of this process: it holds even when the log cannot be told
        await self._tell("hub.draining", actor, reason)

    async def _tell(self, event: str, actor: str, reason: str, *, paused: bytes | None = None) -> None:
        now = self._ctx.clock.now()

        def write(txn: Txn) -> None:
            if paused is not None:
                txn.set_meta(PAUSED_KEY, paused)
                txn.set_meta(PAUSED_WHY_KEY, _why("paused", actor, reason).encode())
            txn.append(now, event, "hub", actor=actor, **({"reason": reason} if reason else {}))

        await self._ctx.store.write(write, essential=True)


def _why(what: str, actor: str, reason: str) -> str:
    return f"{what} by {actor}: {reason}" if reason else f"{what} by {actor}"


def refuse_when_draining(ctx: Context) -> None:
    """Raise Unavailable when the hub takes nothing new."""
    if ctx.gate.draining:
        raise errors.Unavailable(
            "the hub is draining and takes nothing new", reason="HUB_DRAINING", retry_delay_s=DRAIN_RETRY_S
        )
