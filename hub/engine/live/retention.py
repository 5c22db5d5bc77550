"""Retention: what has ended is kept for a while and then forgotten, so that a store stops growing.

Theory. Every sort has an index in the order of its ends, so a run looks only at what is old enough. It works in small
transactions (one or two milliseconds of the writer) and rests after each for four times as long as it took: work that
waits for the writer goes in between. What is left over after `ROUND_BATCHES` is done by the next run, which follows at
once. Only when runs have left something over again and again, so that more comes than goes, it rests as long as it
works: half of the writer's time is the most that this can ever take.

A clock that is wrong would make everything look old. So nothing is forgotten before the clock has gone steadily for
`settle_s` since the start, or since it last jumped: time enough for it to be set right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from hub.engine.live.context import Context
from hub.engine.live.recycle import Done, Recycler
from hub.engine.script import forget
from hub.engine.script.forget import Span
from hub.store.base import Ended, EndedOne, Reader
from kit import logs

log = logs.get(__name__)

DAY_S: Final = 86_400.0

TASKS_BATCH: Final = 25
"""Each is a dozen keys and an event: about one and a half milliseconds."""
GOALS_BATCH: Final = 4
"""Each may have hundreds of tasks to look at."""
RECORDS_BATCH: Final = 100
ARTIFACTS_BATCH: Final = 50
EVENTS_BATCH: Final = 150
ANSWERS_BATCH: Final = 250

ROUND_BATCHES: Final = 40
"""Transactions for one duty in one run; then the others have their turn."""

REST_SHARE: Final = 4.0
REST_SHARE_BEHIND: Final = 1.0
BEHIND_RUNS: Final = 20
"""Runs in a row that left something over: a minute or so, tens of thousands of events. Then more comes than goes."""

REST_S_MIN: Final = 0.001
REST_S_MAX: Final = 0.25
"""Bounds of the rest after a transaction: on a slow disk it must not come to a standstill."""

JUMP_S: Final = 30.0
"""The clock may drift from the monotonic one by this much; more is a jump."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long what is kept after its end, in seconds."""

    tasks_s: float = 30 * DAY_S
    #: Dead letters, and goals that failed: a person must see them, and may retry them.
    dead_s: float = 90 * DAY_S
    goals_s: float = 90 * DAY_S
    #: Contents of artefacts of tasks that succeeded or were cancelled.
    artifacts_s: float = 7 * DAY_S
    #: After their end by time, revocation or use.
    tokens_s: float = 30 * DAY_S
    events_s: float = 90 * DAY_S
    #: Events beyond this many go before their time: about one gigabyte.
    events_max: int = 5_000_000
    #: How often to look for what has become old.
    look_s: float = 60.0
    #: What was old enough and still needed is looked at again this often.
    again_s: float = 6 * 3600.0
    #: Nothing is forgotten before the clock has gone steadily for so long.
    settle_s: float = 600.0


class Retention:
    """One for each hub; `run_once` is a loop of the supervisor."""

    def __init__(self, ctx: Context, keep: Keep) -> None:
        self._ctx = ctx
        self._keep = keep
        #: Set when a run has left something over.
        self.wake = asyncio.Event()
        #: How far each list was looked at. What was needed is passed over, until all is looked at anew.
        self._places: dict[Ended, EndedOne] = {}
        self._anew_at = 0.0
        #: Runs in a row that left something over.
        self._behind = 0
        self._steady_since = (ctx.clock.now(), ctx.clock.monotonic())
        self.recycler = Recycler(ctx)

    async def run_once(self, now: float) -> int:
        """Forget what is old enough at `now`; how much."""
        monotonic = self._ctx.clock.monotonic()
        if not self._steady(now, monotonic):
            return 0
        if monotonic >= self._anew_at:
            self._anew_at = monotonic + self._keep.again_s
            self._places.clear()
        total, left = 0, False
        for name, duty in self._duties(now):
            done = await self._round(duty)
            if done.forgotten:
                log.info("retention.forgot", sort=name, count=done.forgotten)
            total += done.forgotten
            left |= done.more
        self._behind = self._behind + 1 if left else 0
        if left:
            self.wake.set()
        return total

    def _duties(self, now: float) -> list[tuple[str, Callable[[], Awaitable[Done]]]]:
        """Goals before their tasks, tasks before their changes: what one lets go, the next takes in the same run."""
        keep = self._keep
        lists = (
            ("goals", Ended.GOAL, keep.goals_s, GOALS_BATCH),
            ("failed_goals", Ended.FAILED_GOAL, keep.dead_s, GOALS_BATCH),
            ("tasks", Ended.TASK, keep.tasks_s, TASKS_BATCH),
            ("dead_tasks", Ended.DEAD_TASK, keep.dead_s, TASKS_BATCH),
            ("changes", Ended.CHANGE, keep.tasks_s, RECORDS_BATCH),
            ("tokens", Ended.TOKEN, keep.tokens_s, RECORDS_BATCH),
        )
        return [
            ("answers", partial(self._answers, now)),
            ("artifacts", partial(self._artifacts, now - keep.artifacts_s)),
            *((name, partial(self._list, sort, now - age_s, limit)) for name, sort, age_s, limit in lists),
            ("events", partial(self._events, now - keep.events_s)),
            ("classes", self.recycler.step),
        ]

    async def _round(self, duty: Callable[[], Awaitable[Done]]) -> Done:
        """One duty, until there is nothing left or its turn is over."""
        total = 0
        monotonic = self._ctx.clock.monotonic
        for _ in range(ROUND_BATCHES):
            began = monotonic()
            done = await duty()
            total += done.forgotten
            if not done.more:
                return Done(total, False)
            await asyncio.sleep(self._rest_s(monotonic() - began))
        return Done(total, True)

    def _rest_s(self, took_s: float) -> float:
        share = REST_SHARE if self._behind < BEHIND_RUNS else REST_SHARE_BEHIND
        return min(REST_S_MAX, max(REST_S_MIN, share * took_s))

    async def _list(self, sort: Ended, until: float, limit: int) -> Done:
        store, now = self._ctx.store, self._ctx.clock.now()
        span = Span(sort, until, self._places.get(sort), limit)
        found = store.read(lambda reader: forget.look(reader, span))
        count = 0
        if found.may_go:  # an idle hub writes nothing
            untils = {Ended.TASK: now - self._keep.tasks_s, Ended.DEAD_TASK: now - self._keep.dead_s}
            count = await store.write(lambda txn: forget.forget(txn, sort, found.may_go, untils, now), essential=True)
        if found.last is not None:
            self._places[sort] = found.last
        return Done(count, found.more)

    async def _artifacts(self, until: float) -> Done:
        store = self._ctx.store
        if not store.read(lambda reader: forget.any_artifacts(reader, until)):
            return Done(0, False)
        done = await store.write(lambda txn: forget.artifacts(txn, until, ARTIFACTS_BATCH), essential=True)
        return Done(*done)

    async def _answers(self, now: float) -> Done:
        store = self._ctx.store
        if not store.read(lambda reader: reader.answer_passed(now)):
            return Done(0, False)
        count = await store.write(lambda txn: txn.drop_answers(now, ANSWERS_BATCH), essential=True)
        return Done(count, count >= ANSWERS_BATCH)

    async def _events(self, before: float) -> Done:
        store, keep = self._ctx.store, self._keep.events_max

        def due(reader: Reader) -> bool:
            gone, newest = reader.position_gone(), reader.position()
            if newest - gone <= 1:
                return False  # the newest one stays
            return newest - gone > keep or reader.events(after=gone, limit=1)[0].at < before

        if not store.read(due):
            return Done(0, False)
        count = await store.write(
            lambda txn: txn.drop_events(before=before, keep=keep, limit=EVENTS_BATCH), essential=True
        )
        return Done(count, count >= EVENTS_BATCH)

    def _steady(self, now: float, monotonic: float) -> bool:
        """Has the clock gone steadily for long enough to believe it?"""
        since, since_monotonic = self._steady_since
        drift_s = (now - since) - (monotonic - since_monotonic)
        if abs(drift_s) > JUMP_S:
            log.warning("retention.clock_jumped", jumped_s=round(drift_s, 1), waits_s=self._keep.settle_s)
            self._steady_since = (now, monotonic)
        return monotonic - self._steady_since[1] >= self._keep.settle_s
