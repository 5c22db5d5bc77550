"""The outbox: what waits for each sink, when it may be sent, and what becomes of it when it cannot.

Theory. Each sink has a lane of its own: the ids of the notices that wait for it, in order. A lane sends one notice at a
time and goes on when that was taken. A try that fails is repeated after a growing delay for as long as it takes;
meanwhile what waits is folded into one summary when it becomes too much, so nothing is lost without being counted and
nothing grows without a bound. A lane has a bucket for urgent notices: when they come faster than a person can use,
those that wait are sent as one. All of it is a value that is written down before anything is sent, so a hub that dies
sends again what it was about to send, under the same id.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import msgspec

from hub.core.notices import notice
from hub.core.notices.notice import Kind, Notice
from kit import backoff

WAITING_MAX: Final = 30
"""Notices that wait for one sink; beyond it the oldest are folded."""
BURST: Final = 5.0
"""Urgent notices that go out at once; beyond it the rate holds."""
REFUSED_MAX: Final = 5
"""A notice that was refused so often is given up, or everything behind it would wait for ever."""
RETRY: Final = backoff.Schedule(steps_s=(5.0, 30.0, 120.0, 600.0), cap_s=3_600.0, jitter=0.2)
RETRY_AFTER_S_MAX: Final = 3_600.0
"""What the other side may ask for."""
ERROR_CHARS_MAX: Final = 300


class Lane(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What waits for one sink, and how the sink does."""

    waiting: tuple[str, ...] = ()
    """Ids of notices, the next one first."""
    bucket: float = BURST
    bucket_at: float = 0.0
    tries: int = 0
    """Failed in a row."""
    refused: int = 0
    """Times that the first notice was refused."""
    next_at: float = 0.0
    succeeded_at: float | None = None
    failed_at: float | None = None
    error: str = ""

    @property
    def failing(self) -> bool:
        """Did the last try fail?"""
        return self.tries > 0


class Outbox(msgspec.Struct, frozen=True, kw_only=True):
    """All lanes, and the notices that wait in any of them."""

    lanes: dict[str, Lane] = {}
    notices: dict[str, Notice] = {}

    def lane(self, sink: str) -> Lane:
        """That of a sink; an empty one when nothing was ever sent there."""
        return self.lanes.get(sink) or Lane()

    def backlog(self, sink: str) -> int:
        """How many notices wait for a sink, those that were folded counted one by one."""
        return sum(self.notices[id].stands_for for id in self.lane(sink).waiting)


def keep(box: Outbox, sinks: Sequence[str]) -> Outbox:
    """Without the lanes of sinks that there are no more."""
    return _swept({name: lane for name, lane in box.lanes.items() if name in sinks}, box.notices)


def put(box: Outbox, made: Notice, sinks: Sequence[str]) -> Outbox:
    """The notice waits for these sinks, too."""
    lanes, notices = dict(box.lanes), {**box.notices, made.id: made}
    for sink in sinks:
        lane = box.lane(sink)
        if made.id in lane.waiting:
            continue
        waiting = (*lane.waiting, made.id)
        if len(waiting) > WAITING_MAX:
            # The first one may be on its way this moment, and must be found under its id when it has arrived.
            folded = notice.fold([notices[id] for id in waiting[1:-1]])
            notices[folded.id] = folded
            waiting = (waiting[0], folded.id, waiting[-1])
        lanes[sink] = msgspec.structs.replace(lane, waiting=waiting)
    return _swept(lanes, notices)


def due_at(box: Outbox, sink: str, now: float, rate_per_s: float) -> float | None:
    """When this sink may be given its next notice; None: nothing waits for it."""
    lane = box.lane(sink)
    if not lane.waiting:
        return None
    at = min(lane.next_at, now + RETRY.cap_s) if lane.tries else 0.0  # a clock that was set back must not silence it
    first = box.notices[lane.waiting[0]]
    if first.kind in _LIMITED and rate_per_s:
        at = max(at, now + max(0.0, 1.0 - _level(lane, now, rate_per_s)) / rate_per_s)
    return at


def ready(box: Outbox, sink: str, now: float, rate_per_s: float) -> Outbox:
    """Before a sink is given its next notice: folded, when what waits would empty its bucket. A rate of 0: no bound."""
    lane = box.lane(sink)
    level = _level(lane, now, rate_per_s)
    limited = [id for id in lane.waiting if box.notices[id].kind in _LIMITED]
    if not rate_per_s or lane.tries or level >= 2.0 or len(limited) < 2 or len(limited) <= level:
        return box
    folded = notice.fold([box.notices[id] for id in limited])
    others = tuple(id for id in lane.waiting if id not in limited)
    lanes = {**box.lanes, sink: msgspec.structs.replace(lane, waiting=(folded.id, *others))}
    return _swept(lanes, {**box.notices, folded.id: folded})


def sent(box: Outbox, sink: str, id: str, now: float, rate_per_s: float) -> Outbox:
    """The sink took it."""
    lane = box.lane(sink)
    level = _level(lane, now, rate_per_s)
    known = box.notices.get(id)
    if known is not None and known.kind in _LIMITED:
        level = max(0.0, level - 1.0)
    lane = msgspec.structs.replace(
        lane,
        waiting=tuple(one for one in lane.waiting if one != id),
        bucket=level,
        bucket_at=now,
        tries=0,
        refused=0,
        next_at=0.0,
        succeeded_at=now,
    )
    return _swept({**box.lanes, sink: lane}, box.notices)


def failed(box: Outbox, sink: str, id: str, now: float, problem: notice.Failed, rng: random.Random) -> Outbox:
    """The sink did not take it: later again, or never when it refuses this very notice time after time."""
    lane = box.lane(sink)
    refused = lane.refused + 1 if isinstance(problem, notice.Refused) else lane.refused
    given_up = refused >= REFUSED_MAX
    asked_s = min(problem.retry_delay_s or 0.0, RETRY_AFTER_S_MAX)
    lane = msgspec.structs.replace(
        lane,
        waiting=tuple(one for one in lane.waiting if not (given_up and one == id)),
        tries=lane.tries + 1,
        refused=0 if given_up else refused,
        next_at=now + max(RETRY.delay_s(lane.tries, rng), asked_s),
        failed_at=now,
        error=notice.plain(problem.message, ERROR_CHARS_MAX),
    )
    return _swept({**box.lanes, sink: lane}, box.notices)


def tried(lane: Lane, now: float, problem: notice.Failed | None) -> Lane:
    """After a trial: what waits is not touched, but for a sink that works again it waits no longer."""
    if problem is None:
        return msgspec.structs.replace(lane, tries=0, next_at=0.0, succeeded_at=now)
    return msgspec.structs.replace(lane, failed_at=now, error=notice.plain(problem.message, ERROR_CHARS_MAX))


def _level(lane: Lane, now: float, rate_per_s: float) -> float:
    """What is in the bucket."""
    if not rate_per_s:
        return BURST
    return min(BURST, lane.bucket + max(0.0, now - lane.bucket_at) * rate_per_s)


def _swept(lanes: dict[str, Lane], notices: dict[str, Notice]) -> Outbox:
    """Notices stay as long as somebody waits for them."""
    used = {id for lane in lanes.values() for id in lane.waiting}
    return Outbox(lanes=lanes, notices={id: one for id, one in notices.items() if id in used})


_LIMITED: Final = frozenset({Kind.URGENT, Kind.SUMMARY})
"""Kinds that the rate holds for; a digest comes seldom by itself."""
