"""The notifier: closes what was gathered, makes the digest, and gives each sink what waits for it.

One run: read on, make notices of what is due, write all of it down, send, write down what came of it. A sink that
hangs costs a run its timeout and no other loop anything; a store that takes no writes (full, damaged) stops nothing:
better told twice than not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from hub.core.alerts.alert import Alert
from hub.core.notices import digest, notice, outbox
from hub.core.notices.digest import Tally
from hub.core.notices.notice import Notice
from hub.core.notices.outbox import Outbox
from hub.core.notices.subscription import Subscription
from hub.core.task import State
from hub.engine.live.context import Context
from hub.engine.notify import book
from hub.engine.notify.browsers import Browsers
from hub.engine.notify.reading import Reading
from hub.store.base import Reader
from kit import errors, logs, secrecy

log = logs.get(__name__)

LOOK_S: Final = 15.0
"""Whatever a timer or a wake-up has missed is found after so long."""
SENDS_MAX: Final = 16
"""At once; the others follow at once."""
KEEP_S: Final = 60.0
KEEP_EVENTS: Final = 20_000
"""How far the log may be read ahead of what is written down: a second of reading for a hub that comes back."""
WEBPUSH: Final = "webpush"


class Sink(Protocol):
    """A way to tell people."""

    target: str

    async def send(self, notice: Notice) -> None:
        """Send it once. Raises notice.Failed."""


class Pusher(Protocol):
    """The way to tell browsers."""

    public_key: bytes

    def check(self, endpoint: str, public_key: bytes) -> None:
        """Raises Invalid."""

    async def send(self, notice: Notice, to: Subscription) -> None:
        """Send it once to one browser. Raises notice.Failed; Gone for good."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be tuned; the meaning of each is beside it in `notify.config`."""

    digest_at_s: float = 8 * 3_600.0
    digest_every_s: float = 0.0
    gather_s: float = 10.0
    rate_per_h: float = 20.0
    offset_s: Callable[[float], float] = lambda at: float(time.localtime(at).tm_gmtoff)
    """How far the clocks on the wall are ahead of UTC."""


class Notifier:
    """One for each hub."""

    def __init__(
        self,
        ctx: Context,
        sinks: Mapping[str, Sink],
        push: Pusher | None,
        digests: frozenset[str],
        *,
        settings: Settings,
        alerts: Callable[[], Sequence[Alert]] = list,
    ) -> None:
        """`digests` are the sinks that take the digest; `alerts` what is raised now."""
        self._ctx = ctx
        self.sinks = sinks
        self.push = push
        self.digests = digests
        self._settings = settings
        self._alerts = alerts
        self.browsers = Browsers(ctx)
        now, found = ctx.clock.now(), ctx.store.read(book.read)
        #: With the log alone nothing is worth a write, and nothing that is old is told when a sink is set up.
        self._is_kept = bool(sinks or push)
        self._is_stale = found is not None and not self._is_kept
        if found is None or not self._is_kept:
            found = book.Book(position=ctx.bus.position, tally=Tally(since=now, looked_at=now))
        self.box: Outbox = found.box
        position = min(found.position, ctx.bus.position)
        self._reading = Reading(ctx, position=position, tally=found.tally, gather=found.gather)
        self._is_dirty = True
        self._kept_position = found.position
        self._kept_at = now
        self._timer: asyncio.TimerHandle | None = None
        #: By sort of sink, since the start.
        self.sent: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    @property
    def wake(self) -> asyncio.Event:
        """Set when something has to be told."""
        return self._reading.wake

    async def run_once(self, now: float) -> None:
        """Tell what is due."""
        reading = self._reading
        if self._ctx.gate.degraded:  # what is left of the store is not asked: people must hear of that before all
            reading.look(self._alerts(), now)
        elif not reading.is_live:
            await reading.catch_up()
        self._close(now)
        self._digest(now)
        await self._send(now)
        await self._keep(now)
        self._arm()

    def next_digest_at(self) -> float:
        """When the next digest is due."""
        settings, since = self._settings, self._reading.tally.looked_at
        if settings.digest_every_s:
            return since + settings.digest_every_s
        return digest.next_at(since, settings.digest_at_s, settings.offset_s)

    def lanes(self) -> list[str]:
        """All sinks, a lane for each; of the browsers one each."""
        push = [one.sink for one in self.browsers.all] if self.push is not None else []
        return [*self.sinks, *push]

    async def trial(self, sink: str, now: float, *, principal: str) -> None:
        """Send a test, past the queue; of browsers to those of the one who asks. Raises Failed, or IllegalState when
        there is nobody to send it to.
        """
        own = [one.sink for one in self.browsers.all if one.principal == principal] if self.push is not None else []
        lanes = own if sink == WEBPUSH else [sink]
        if not lanes:
            raise errors.IllegalState(f"no browser of {principal} is told", state="EMPTY", reason="SINK_EMPTY")
        made = notice.test(self._ctx.ids.new(now), now, f"sinks/{sink}")
        problems: list[notice.Failed] = []

        async def one(lane: str) -> None:
            problem = await self._try(lane, made)
            tried = outbox.tried(self.box.lane(lane), self._ctx.clock.now(), problem)
            self.box = msgspec.structs.replace(self.box, lanes={**self.box.lanes, lane: tried})
            if problem is not None:
                problems.append(problem)

        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(one(lane), name=f"notify.trial.{lane}")
        self._is_dirty = True
        self.wake.set()
        if problems:
            raise problems[0]

    async def forget(self, *ids: str) -> None:
        """Tell these browsers nothing more."""
        await self.browsers.remove(ids)
        self.box = outbox.keep(self.box, self.lanes())
        self._is_dirty = True

    def stop(self) -> None:
        """Let no timer ring any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What is told

    def _close(self, now: float) -> None:
        found = self._reading.gather
        if found is None or 0.0 <= now - found.opened_at < self._settings.gather_s:
            return  # a clock that was set back closes it, too
        self._reading.closed()
        titles = self._titles(one.subject for one in found.items)
        self._put(notice.close(found, titles), self.lanes())

    def _digest(self, now: float) -> None:
        tally = self._reading.tally
        tally.looked_at = min(tally.looked_at, now)
        if now < self.next_digest_at():
            return
        dead = 0
        with contextlib.suppress(errors.DataLoss):
            counts = self._ctx.store.read(lambda reader: reader.counts())
            dead = sum(count for (state, _), count in counts.items() if state is State.DEAD)
        state = digest.Now(alerts=[one.message for one in self._alerts() if one.is_told], dead=dead)
        made = digest.tell(tally, now, state=state, titles=self._titles(digest.subjects(tally)))
        tally.looked_at = now
        self._is_dirty = True
        if made is not None:
            self._reading.tally = Tally(since=now, looked_at=now)
            self._put(made, [lane for lane in self.lanes() if lane.partition("/")[0] in self.digests])

    def _put(self, made: Notice, lanes: Sequence[str]) -> None:
        hidden = msgspec.structs.replace(made, title=secrecy.hide(made.title), text=secrecy.hide(made.text))
        if made.kind is notice.Kind.DIGEST:
            log.info("digest.made", notice=made.id, title=hidden.title, text=hidden.text)
        else:
            log.warning("notice.made", notice=made.id, title=hidden.title, text=hidden.text)
        self.box = outbox.put(self.box, hidden, lanes)
        self._is_dirty = True

    def _titles(self, subjects: Iterable[str]) -> dict[str, str]:
        """What people call these; without those that nobody has named."""
        with contextlib.suppress(errors.DataLoss):
            return self._ctx.store.read(
                lambda reader: {name: notice.plain(title) for name in subjects if (title := _title(reader, name))}
            )
        return {}

    # Sending

    async def _send(self, now: float) -> None:
        if not self._ctx.gate.degraded:
            void = self.browsers.void(now)
            if void:
                await self._drop(void)
        lanes = self.lanes()
        dues = sorted((at, lane) for lane in lanes if (at := self._due_at(lane, now)) is not None and at <= now)
        chosen = [lane for _, lane in dues[:SENDS_MAX]]
        for lane in chosen:
            made = outbox.ready(self.box, lane, now, self._rate())
            self._is_dirty |= made is not self.box
            self.box = made
        await self._keep(now)  # before anything is sent: who comes back must send the same under the same id
        async with asyncio.TaskGroup() as group:
            for lane in chosen:
                first = self.box.notices[self.box.lane(lane).waiting[0]]
                group.create_task(self._deliver(lane, first), name=f"notify.{lane}")

    async def _deliver(self, lane: str, made: Notice) -> None:
        problem = await self._try(lane, made)
        now = self._ctx.clock.now()
        self._is_dirty = True
        if problem is None:
            self.box = outbox.sent(self.box, lane, made.id, now, self._rate())
            log.info("notice.sent", notice=made.id, sink=lane)
        elif isinstance(problem, notice.Gone):
            log.info("browser.gone", sink=lane, problem=problem.message)
            await self._drop([lane.partition("/")[2]])
        else:
            self.box = outbox.failed(self.box, lane, made.id, now, problem, self._ctx.rng)
            log.warning("notice.failed", notice=made.id, sink=lane, problem=self.box.lane(lane).error)

    async def _try(self, lane: str, made: Notice) -> notice.Failed | None:
        """Send once; what it failed of."""
        sort, _, id = lane.partition("/")
        try:
            if sort != WEBPUSH:
                await self.sinks[sort].send(made)
            else:
                browser = self.browsers.get(id)
                if self.push is None or browser is None:
                    return None  # removed this moment: nobody waits
                await self.push.send(made, browser)
        except notice.Failed as problem:
            self.failed[sort] += 1
            return problem
        except Exception as error:  # a fault of ours in one sink must not keep the others from being used
            log.exception("sink.broke", sink=lane)
            self.failed[sort] += 1
            return notice.Failed(f"internal: {type(error).__name__}")
        self.sent[sort] += 1
        return None

    async def _drop(self, ids: Sequence[str]) -> None:
        try:
            await self.forget(*ids)
        except errors.Problem as problem:
            # Whoever may not look is not told, and who is gone is not tried without end, until the next start at least.
            self.browsers.leave_out(ids)
            log.warning("browser.not_forgotten", count=len(ids), problem=problem.message)

    def _due_at(self, lane: str, now: float) -> float | None:
        return outbox.due_at(self.box, lane, now, self._rate())

    def _rate(self) -> float:
        return self._settings.rate_per_h / 3_600.0

    # What is kept, and when to look again

    async def _keep(self, now: float) -> None:
        position = self._reading.position
        ahead = position - self._kept_position
        late = ahead >= KEEP_EVENTS or (ahead and not 0.0 <= now - self._kept_at < KEEP_S)
        if self._ctx.gate.degraded or not (self._is_stale or (self._is_kept and (self._is_dirty or late))):
            return
        reading = self._reading
        self.box = outbox.keep(self.box, self.lanes())
        data = book.encode(book.Book(position=position, tally=reading.tally, gather=reading.gather, box=self.box))
        if self._is_stale:
            data = b""
        self._is_dirty = False
        try:
            await self._ctx.store.write(lambda txn: txn.set_meta(book.KEY, data), essential=True)
        except errors.Problem as problem:
            self._is_dirty = True
            log.warning("notify.not_kept", problem=problem.message)
            return
        self._is_stale = False
        self._kept_position, self._kept_at = position, now

    def _arm(self) -> None:
        """Set the timer for what is due next."""
        clock_now = self._ctx.clock.now()
        dues = [at for lane in self.lanes() if (at := self._due_at(lane, clock_now)) is not None]
        dues.append(self.next_digest_at())
        if self._reading.gather is not None:
            dues.append(self._reading.gather.opened_at + self._settings.gather_s)
        delay_s = min(dues) - clock_now
        self.stop()
        if delay_s <= LOOK_S:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.01, delay_s), self.wake.set)


def _title(reader: Reader, name: str) -> str:
    collection, _, id = name.partition("/")
    if collection == "changes":
        change = reader.changes.get(id)
        collection, id = ("tasks", change.task) if change is not None else ("", "")
    if collection == "goals":
        goal = reader.goals.get(id)
        return goal.title if goal is not None else ""
    spec = reader.spec(id) if collection == "tasks" else None
    return spec.title if spec is not None else ""
