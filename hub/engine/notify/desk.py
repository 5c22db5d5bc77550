"""What NotifyService asks: how the sinks do, a trial, and the browsers of those who ask."""

from __future__ import annotations

from typing import Final, NamedTuple

from hub.core.notices.outbox import Lane
from hub.core.notices.subscription import Subscription
from hub.engine.live.context import Context
from hub.engine.notify.notifier import WEBPUSH, Notifier, Pusher
from kit import errors

SORTS: Final = ("log", "webhook", "ntfy", "email", WEBPUSH)
"""In the order of a list."""


class Facts(NamedTuple):
    """How a sink does."""

    name: str
    enabled: bool
    target: str
    digest: bool
    backlog: int
    lane: Lane
    """Of browsers the worst one: whoever looks wants to know what does not work."""
    sent: int
    failed: int


class Browser(NamedTuple):
    """How one browser is reached."""

    one: Subscription
    lane: Lane
    backlog: int


class Desk:
    """One for each hub."""

    def __init__(self, ctx: Context, notifier: Notifier) -> None:
        self._ctx = ctx
        self._notifier = notifier

    def sinks(self) -> list[Facts]:
        """All of them."""
        return [self.sink(name) for name in SORTS]

    def sink(self, name: str) -> Facts:
        """One of them."""
        notifier = self._notifier
        lanes = [lane for lane in notifier.lanes() if lane.partition("/")[0] == name]
        states = [notifier.box.lane(lane) for lane in lanes]
        enabled = name == "log" or name in notifier.sinks or (name == WEBPUSH and notifier.push is not None)
        return Facts(
            name=name,
            enabled=enabled,
            target=self._target(name),
            digest=name == "log" or (enabled and name in notifier.digests),
            backlog=sum(notifier.box.backlog(lane) for lane in lanes),
            lane=_worst(states),
            sent=notifier.sent[name],
            failed=notifier.failed[name],
        )

    def next_digest_at(self) -> float:
        """When the next digest is due."""
        return self._notifier.next_digest_at()

    async def trial(self, name: str, principal: str) -> Facts:
        """Send a test now. Raises NotFound, IllegalState when it is not configured, Unavailable when it fails."""
        if name not in SORTS[1:]:
            raise errors.NotFound(
                f"there is no sinks/{name} to try: there are {', '.join(SORTS[1:])}", reason="SINK_NOT_FOUND"
            )
        if not self.sink(name).enabled:
            raise errors.IllegalState(
                f"sinks/{name} is not configured, see [notify.{name}]", state="OFF", reason="SINK_OFF"
            )
        await self._notifier.trial(name, self._ctx.clock.now(), principal=principal)
        return self.sink(name)

    def key(self) -> bytes:
        """What browsers subscribe under. Raises IllegalState when web push is off."""
        return self._push().public_key

    async def subscribe(
        self, principal: str, endpoint: str, public_key: bytes, auth: bytes, display_name: str
    ) -> Browser:
        """Tell a browser from now on. Raises Invalid, Exhausted, IllegalState."""
        push, now = self._push(), self._ctx.clock.now()
        push.check(endpoint, public_key)
        made = Subscription(
            id=self._ctx.ids.new(now),
            principal=principal,
            endpoint=endpoint,
            public_key=public_key,
            auth=auth,
            made_for=push.public_key,
            display_name=display_name,
            created_at=now,
        )
        await self._notifier.browsers.add(made)
        return self._browser(made)

    def browsers(self, principal: str, *, everybody: bool) -> list[Browser]:
        """Those of one person, or of all."""
        found = self._notifier.browsers.all
        return [self._browser(one) for one in found if everybody or one.principal == principal]

    async def unsubscribe(self, principal: str, *, id: str = "", endpoint: str = "", everybody: bool) -> None:
        """Tell a browser nothing more. Raises NotFound, also for one of somebody else."""
        for one in self._notifier.browsers.all:
            if (one.id == id if id else one.endpoint == endpoint) and (everybody or one.principal == principal):
                await self._notifier.forget(one.id)
                return
        raise errors.NotFound(
            f"there is no pushSubscriptions/{id}" if id else "this browser is not subscribed",
            reason="SUBSCRIPTION_NOT_FOUND",
        )

    def _push(self) -> Pusher:
        push = self._notifier.push
        if push is None:
            raise errors.IllegalState(
                "web push is not configured, see [notify.webpush]", state="OFF", reason="SINK_OFF"
            )
        return push

    def _browser(self, one: Subscription) -> Browser:
        box = self._notifier.box
        return Browser(one, box.lane(one.sink), box.backlog(one.sink))

    def _target(self, name: str) -> str:
        if name == "log":
            return "the hub's log"
        if name == WEBPUSH:
            count = len(self._notifier.browsers.all) if self._notifier.push is not None else 0
            return f"{count} browser{'' if count == 1 else 's'}" if self._notifier.push is not None else ""
        sink = self._notifier.sinks.get(name)
        return sink.target if sink is not None else ""


def _worst(lanes: list[Lane]) -> Lane:
    """The one that fails for the longest; when none does, the one that was used last."""
    failing = [lane for lane in lanes if lane.failing]
    if failing:
        return max(failing, key=lambda lane: lane.tries)
    return max(lanes, key=lambda lane: lane.succeeded_at or 0.0, default=Lane())
