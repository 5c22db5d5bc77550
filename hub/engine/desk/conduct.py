"""How callers behave: nobody asks more often than its limits, and who breaks the rules again and again waits outside.

Both are kept by the caller's name. A caller with a good token is judged by its token only, wherever it calls from;
callers that no token was accepted from are judged by their address, and so is only what they ask without a token. A
violator behind a shared address therefore never shuts out its neighbours that have tokens.

The person at this machine (`local`) is counted but neither limited nor refused, unless the configuration says so.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hub.core import violation
from hub.core.limit import Action, Limit, Limiter
from hub.core.violation import Kind, Patience, Violator, Violators
from hub.engine.live.context import Context
from hub.store.base import Txn
from kit import errors, logs

log = logs.get(__name__)

LOCAL: Final = "local"
"""The principal of callers without a token where none is required."""

PEER: Final = "peer:"
"""What the name of a caller without a token begins with where one is required; its address follows."""

EVENTS_MAX: Final = 20
"""Refusals written into the event log in `EVENTS_S`, at most; the log line and the list tell of the others."""

EVENTS_S: Final = 60.0
"""A first refusal is written at once, the next ones together."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What callers may do."""

    limits: Mapping[Action, Limit]
    patience: Patience
    #: Do they hold for `local`, too?
    local: bool = False


class Conduct:
    """Lets callers ask, or tells them when to come back."""

    def __init__(self, ctx: Context, rules: Rules) -> None:
        self._ctx = ctx
        self._free = None if rules.local else LOCAL
        self._limiter = Limiter(rules.limits)
        #: Addresses have buckets of their own: strangers cannot push out those of tokens.
        self._strangers = Limiter(rules.limits)
        self._violators = Violators(rules.patience)
        self._untold: list[Violator] = []
        #: Wakes the loop that writes.
        self.wake = asyncio.Event()
        self._wrote_at = -EVENTS_S
        self._monotonic = ctx.clock.monotonic
        self._now = ctx.clock.now

    def admit(self, caller: str, action: Action, cost: float = 1.0) -> None:
        """Take from the caller's bucket. Raises Exhausted, with the delay after which it may come back."""
        if caller == self._free:
            return
        refused_s = self._violators.refused(caller, self._now())
        if refused_s:
            self._ctx.figures.throttled += 1
            raise errors.Exhausted(
                f"too many of your requests broke the rules, all are refused for {refused_s:.1f} s",
                reason="REFUSED",
                metadata={"principal": caller, "subject": caller},
                retry_delay_s=refused_s,
            )
        limiter = self._strangers if caller.startswith(PEER) else self._limiter
        wait_s = limiter.take(caller, action, self._monotonic(), cost)
        if wait_s:
            self._ctx.figures.throttled += 1
            raise errors.Exhausted(
                f"{caller} asks too often ({action.value}), come back in {wait_s:.1f} s",
                reason="RATE_LIMITED",
                metadata={"principal": caller, "subject": f"{caller} {action.value}", "action": action.value},
                retry_delay_s=wait_s,
            )

    def blame(self, caller: str, method: str, problem: errors.Problem) -> errors.Problem:
        """Count what broke a rule; gives what the caller is told. Who cannot say who it is too often, is told to wait.

        Call it once for each refusal, also for those that `admit` has raised.
        """
        kind = violation.kind_of(problem)
        if kind is None:
            return problem
        now = self._now()
        found = self._violators.add(caller, kind, violation.told(method, problem), now, bear=caller == self._free)
        if found is not None:
            self._tell(found, now)
        if kind is not Kind.UNAUTHENTICATED:
            return problem
        try:
            self.admit(caller, Action.AUTH)
        except errors.Exhausted as later:
            return later
        return problem

    def recent(self) -> list[Violator]:
        """Who broke rules, the most recent first."""
        return self._violators.recent()

    def forgive(self, caller: str, *, actor: str) -> Violator:
        """Forget what a caller did. Raises NotFound."""
        known = self._violators.forgive(caller)
        log.info("violator.forgiven", principal=caller, actor=actor)
        self._limiter.forget(caller)
        self._strangers.forget(caller)
        return known

    async def run_once(self, now: float) -> None:
        """Write into the event log who was refused since the last time."""
        untold, self._untold = self._untold[:EVENTS_MAX], []
        if not untold:
            return

        def write(txn: Txn) -> None:
            for one in untold:
                kinds = {kind.value.lower(): str(count) for kind, count in one.kinds.items()}
                until = f"{one.refuse_until:.3f}"
                txn.append(
                    now, "violator.refused", _subject(one.principal), until=until, last=one.last_message, **kinds
                )

        self._wrote_at = self._monotonic()
        try:
            await self._ctx.store.write(write)
        except BaseException:
            self._untold = (untold + self._untold)[:EVENTS_MAX]
            raise

    def _tell(self, violator: Violator, now: float) -> None:
        log.warning(
            "violator.refused",
            principal=violator.principal,
            refused_s=round(violator.refuse_until - now, 1),
            last=violator.last_message,
        )
        if len(self._untold) < EVENTS_MAX:
            self._untold.append(dataclasses.replace(violator, kinds=violator.kinds.copy()))
            if self._monotonic() - self._wrote_at >= EVENTS_S:
                self.wake.set()


def _subject(principal: str) -> str:
    return f"peers/{principal.removeprefix(PEER)}" if principal.startswith(PEER) else principal
