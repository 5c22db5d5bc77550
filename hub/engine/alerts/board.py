"""The board of alerts: looks every few seconds, and at once when something tells it to; what changes is written down.

It goes to the log, the event log and the store.

What is measured comes from the facts, what it means from `hub.core.alerts.facts`, and what becomes of it from
`hub.core.alerts.course`. The board holds the course in memory and writes it down, together with the events that tell of
it, whenever it has changed: so a hub that restarts tells nobody again of what it told before. What people have said
(rules, mutes, acknowledgements) is read again after each commit that changed it, and never kept ahead of the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from hub.core.alerts import alert
from hub.core.alerts import course as alert_course
from hub.core.alerts import facts as alert_facts
from hub.core.alerts import rule as alert_rule
from hub.core.alerts.alert import Alert, Mute
from hub.core.alerts.course import Course, Found, Given, News
from hub.core.alerts.facts import Facts, Work
from hub.core.alerts.rule import Setting
from hub.core.event import Event
from hub.engine.live.context import Context
from hub.engine.script import alerting
from hub.store.base import Txn
from kit import errors, logs

log = logs.get(__name__)

LOOK_S: Final = 15.0
"""A person need not know sooner; damage, and an agent that comes or goes, wake the board at once."""

SOON_S: Final = 1.0
"""What happens within this time is looked at together: a thousand agents that come back are a few looks."""

UNTOLD_MAX: Final = 100
"""Changes kept for the event log while it cannot be written."""

_SAID: Final = frozenset({"alert.acked", "alert.muted", "alert.unmuted", "alert_rule.updated"})
"""Events of what people say: what is known of it is read again."""


class Board:
    """What a person should look at now."""

    def __init__(self, ctx: Context, look: Callable[[float], Facts]) -> None:
        self._ctx = ctx
        self._look = look
        #: How the work goes; set by whoever has something to watch.
        self.work: Callable[[float], Work | None] = lambda _now: None
        #: What the last look was given; None before the first.
        self.facts: Facts | None = None
        self.said = alerting.Said()
        self._course = Course()
        #: Happened, and not in the event log yet.
        self._untold: list[News] = []
        #: People have said something since it was read.
        self._stale = False
        self._timer: asyncio.TimerHandle | None = None
        self.wake = asyncio.Event()
        self._load()
        ctx.bus.listen(self._committed)

    async def run_once(self, now: float) -> None:
        """Look, and tell what has changed."""
        found = self.look(now)
        await self._write(now)
        self._arm(found, now)

    def look(self, now: float) -> Found:
        """Find out what is the matter as of now; what has changed is told by `run_once`."""
        if self._stale and not self._ctx.gate.degraded:
            self.reload()
        self.facts = self._look(now)._replace(work=self.work(now))
        settings = self.settings
        found = alert_facts.look(self.facts, settings)
        given = Given(settings, self.said.acks, {one.target for one in alert.part(self.said.mutes, now).in_force})
        self._course, news = alert_course.step(self._course, found, given, now)
        for one in news:
            _log(one)
        self._untold = (self._untold + news)[-UNTOLD_MAX:]
        return found

    @property
    def alerts(self) -> Sequence[Alert]:
        """As of the last look, the most urgent first."""
        return self._course.raised

    @property
    def settings(self) -> dict[str, Setting]:
        """The rules as they are in force, by id."""
        return alert_rule.settings(self.said.edited)

    def mutes(self, now: float) -> Sequence[Mute]:
        """Those in force, in the order of their ends."""
        return alert.part(self.said.mutes, now).in_force

    def soon(self) -> None:
        """Look within a moment: something has happened."""
        self._wake_in(SOON_S)

    def reload(self) -> None:
        """Read again what people have said. Raises a Problem when the store cannot be read."""
        self._stale = False
        self.said = self._ctx.store.read(alerting.said)
        self._course = alert_course.join(self._course, self.said.acks)

    def _load(self) -> None:
        """Go on where the last process stopped. A store that cannot be read leaves the rules as they were made."""
        try:
            self._course = self._ctx.store.read(alerting.course)
            self.reload()
        except errors.Problem as problem:
            log.warning("alerts.not_loaded", problem=problem.message)

    def _committed(self, events: Sequence[Event]) -> None:
        """Whoever said it may not be there any more to have it read: its call was cancelled after the commit."""
        for event in events:
            if event.type in _SAID:
                self._stale = True
                self.soon()

    async def _write(self, now: float) -> None:
        """Write down what has changed. A call that is cancelled meanwhile leaves the write to run, as every write."""
        over = alert.part(self.said.mutes, now).over
        if self._ctx.gate.degraded or not (self._untold or over):
            return
        told, self._untold, course = self._untold, [], self._course

        def write(txn: Txn) -> None:
            alerting.expire(txn, now)
            if told:
                alerting.put_course(txn, course)
            for one in told:
                alerting.tell(txn, now, one)

        try:
            await self._ctx.store.write(write, essential=True)
        except errors.Problem as problem:
            self._untold = (told + self._untold)[-UNTOLD_MAX:]
            if self._ctx.gate.degraded:
                return  # the damage was met by this very write
            if not isinstance(problem, errors.Exhausted | errors.Unavailable):
                raise
            # That the disk is full is one of the things to tell: later.
        else:
            if over:
                self.reload()

    def _arm(self, found: Found, now: float) -> None:
        """Look again when something changes by the passing of time alone, should that be before the next look."""
        due = [one.expires_at - now for one in self.mutes(now)]
        next_s = alert_course.next_look(self._course, found, self.settings, now)
        if next_s is not None:
            due.append(next_s)
        if due and min(due) < LOOK_S:
            self._wake_in(max(SOON_S, min(due)))

    def _wake_in(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + delay_s
        if self._timer is not None:
            if loop.time() < self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self.wake.set)


def _log(news: News) -> None:
    one = news.alert
    if news.type == "alert.cleared":
        log.info("alert.cleared", alert=one.id)
        return
    fields = {"untold_why": news.untold_why} if news.untold_why else {}
    log.warning(news.type, alert=one.id, severity=one.severity.name, message=one.message, **fields)
