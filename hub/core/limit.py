"""Rate limits: how often one caller may do one kind of thing, and how long one waits who asks too often.

Each (caller, action) has a token bucket, kept as a single time: when it will be full again (GCRA). A call moves that
time on by `cost / rate`; it is let through while the time lies less than `burst / rate` ahead. A cost that is larger
than the burst is let through by a full bucket and leaves a debt, so that a batch of any size can pass.

Who is refused is told when to come back. Who does not wait for it strikes: the wait doubles with each strike, at most
one strike a `STRIKE_S`, so that the parallel calls of a caller that has just learnt of its limit count as one. A caller
that waited as it was told starts anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from hub.core import scope

STRIKE_S: Final = 1.0
"""Calls within this time of a strike do not strike again: they were on their way, or come from another thread."""

STRIKES_MAX: Final = 16
"""Doublings that are counted; the cap of the wait is reached long before."""

RETRY_MIN_S: Final = 0.05
"""A shorter wait is not worth a timer, and many callers would come back as one."""

RETRY_MAX_S: Final = 60.0
"""The longest wait that hammering earns; the same as the sidecar's own longest backoff."""

CALLERS_MAX: Final = 8_192
"""Buckets that are remembered: four actions of two thousand callers, about two megabytes. The one that was used
longest ago is forgotten first, and a forgotten bucket is a full one."""


class Action(Enum):
    """A kind of call that has a limit of its own."""

    READ = "read"
    WRITE = "write"
    SUBMIT = "submit"
    """Counted by task."""
    OPEN = "open"
    """A stream is opened: Attach, the watches, the tail."""
    AUTH = "auth"
    """Somebody failed to say who it is; counted by address."""


_READ_VERBS: Final = ("Get", "List", "Explain", "Lint")
"""Verifying and diagnosing read, too, but the whole store: they count with the dearer kind."""
_OPEN_VERBS: Final = ("Watch", "Tail", "Attach")
_SUBMITS: Final = frozenset({"CreateTask", "BatchCreateTasks", "CreateGoal"})


def action_of(method: str) -> Action:
    """The kind of a method, from its name: `TaskService/GetTask` or the full one."""
    name = method.rpartition("/")[2]
    if name in _SUBMITS:
        return Action.SUBMIT
    if name.startswith(_OPEN_VERBS):
        return Action.OPEN
    return Action.READ if name.startswith(_READ_VERBS) else Action.WRITE


ACTIONS: Final = {method: action_of(method) for method in scope.TABLE}
"""The same for every method of the table of scopes."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`rate` a second for ever, `burst` at once. A rate of 0 is no limit."""

    rate: float
    burst: float


class _Bucket:
    """One caller's place in one limit."""

    __slots__ = ("full_at", "strikes", "struck_at", "until")

    def __init__(self) -> None:
        self.full_at = 0.0
        #: Refused before this, whatever is in the bucket; 0: not.
        self.until = 0.0
        self.strikes = 0
        self.struck_at = 0.0


class Limiter:
    """The buckets of all callers."""

    def __init__(self, limits: Mapping[Action, Limit], *, callers_max: int = CALLERS_MAX) -> None:
        # By action: seconds that one costs, and how far ahead the bucket may be.
        self._limits = {
            action: (1.0 / limit.rate, max(limit.burst, 1.0) / limit.rate)
            for action, limit in limits.items()
            if limit.rate > 0
        }
        self._callers_max = callers_max
        self._buckets: OrderedDict[tuple[str, Action], _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: str, action: Action, now: float, cost: float = 1.0) -> float:
        """0: the call may pass. Otherwise it may not, and it makes sense to come back after so many seconds."""
        limit = self._limits.get(action)
        if limit is None:
            return 0.0
        each_s, ahead_s = limit
        key = (caller, action)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._add(key)
        else:
            self._buckets.move_to_end(key)
        if bucket.until > now:
            return self._hammered(bucket, now)
        full_at = bucket.full_at if bucket.full_at > now else now
        cost_s = cost * each_s
        # A full bucket takes anything; a float's rounding must not refuse the last of a burst.
        if full_at <= now or full_at + cost_s - now <= ahead_s + 1e-9:
            bucket.full_at = full_at + cost_s
            if bucket.until:
                bucket.until, bucket.strikes = 0.0, 0
            return 0.0
        # Until there is room for this cost; for one above the burst, until the bucket is full.
        wait_s = full_at - now - max(ahead_s - cost_s, 0.0)
        return self._struck(bucket, max(wait_s, RETRY_MIN_S), now)

    def forget(self, caller: str) -> None:
        """A caller starts anew."""
        for action in Action:
            self._buckets.pop((caller, action), None)

    def _add(self, key: tuple[str, Action]) -> _Bucket:
        while len(self._buckets) >= self._callers_max:
            self._buckets.popitem(last=False)
        bucket = self._buckets[key] = _Bucket()
        return bucket

    def _hammered(self, bucket: _Bucket, now: float) -> float:
        """It did not wait as it was told."""
        if now - bucket.struck_at < STRIKE_S:
            return bucket.until - now
        bucket.strikes = min(bucket.strikes + 1, STRIKES_MAX)
        return self._struck(bucket, bucket.until - now, now)

    def _struck(self, bucket: _Bucket, wait_s: float, now: float) -> float:
        wait_s = min(wait_s * 2.0**bucket.strikes if bucket.strikes else wait_s, max(RETRY_MAX_S, wait_s))
        bucket.struck_at, bucket.until = now, now + wait_s
        return wait_s
