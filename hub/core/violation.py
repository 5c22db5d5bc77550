"""Who breaks the rules: how often, in which way, and for how long everything it asks is refused therefore.

A caller (a token, or an address that no token was accepted from) may break the rules `count_max` times within a window
that slides by halves: what was counted in the window before fades out linearly. Beyond it the caller is refused
altogether for `refuse_s`, and twice as long each time, up to the cap, while the refusals follow each other within
`MEMORY_S`. Requests that are refused for that reason are counted apart and never prolong it.

All of it lives in memory, in a bounded number of records; a restart of the hub forgives everybody.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from kit import errors

VIOLATORS_MAX: Final = 1_000
"""Callers that are remembered, about half a megabyte. Who broke a rule longest ago is forgotten first, but nobody
whose refusal lasts as long as there is somebody else."""

MEMORY_S: Final = 3_600.0
"""A refusal this long after the last one is a first one again."""

DOUBLINGS_MAX: Final = 20
"""More would only overflow; the cap of a refusal is reached long before."""

FIELDS_MAX: Final = 3
"""Fields that are named in what is remembered of a request."""


class Kind(Enum):
    """A way to break the rules."""

    INVALID = "INVALID"
    GARBLED = "GARBLED"
    TOO_LARGE = "TOO_LARGE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    RATE_LIMITED = "RATE_LIMITED"
    PROTOCOL = "PROTOCOL"


_BY_REASON: Final = {
    "GARBLED": Kind.GARBLED,
    "MESSAGE_TOO_LARGE": Kind.TOO_LARGE,
    "RATE_LIMITED": Kind.RATE_LIMITED,
    "PROTOCOL": Kind.PROTOCOL,
    "SESSION_GAP": Kind.PROTOCOL,
}
_BY_TYPE: Final = (
    (errors.Unauthenticated, Kind.UNAUTHENTICATED),
    (errors.Forbidden, Kind.FORBIDDEN),
    (errors.Invalid, Kind.INVALID),
)


def kind_of(problem: errors.Problem) -> Kind | None:
    """Which rule a refused request broke; None: none, things just are not as the caller thought."""
    known = _BY_REASON.get(problem.reason)
    if known is not None:
        return known
    return next((kind for type_, kind in _BY_TYPE if isinstance(problem, type_)), None)


def told(method: str, problem: errors.Problem) -> str:
    """What is remembered of a refusal: method, reason and fields. Never the message, which may quote the caller."""
    text = f"{method.rpartition('.')[2]}: {problem.reason}"
    if isinstance(problem, errors.Invalid) and problem.violations:
        # A subscript may be the caller's own text (the key of a map).
        fields = [violation.field.partition("[")[0] for violation in problem.violations[:FIELDS_MAX]]
        text += f" ({', '.join(dict.fromkeys(name[:100] or 'request' for name in fields))})"
    return text


@dataclass(frozen=True, slots=True)
class Patience:
    """How much is borne, and what follows. A `count_max` of 0 refuses nobody."""

    count_max: int
    window_s: float
    refuse_s: float
    refuse_s_max: float


@dataclass(slots=True)
class Violator:
    """One caller that broke rules. Times are seconds since the epoch."""

    principal: str
    kinds: Counter[Kind] = field(default_factory=Counter)
    last_at: float = 0.0
    last_message: str = ""
    refuse_until: float = 0.0
    #: Refusals in a row.
    refusals: int = 0
    window_at: float = 0.0
    count: float = 0.0
    count_before: float = 0.0


class Violators:
    """All of them. `now` is seconds since the epoch, so that a person can be told of it."""

    def __init__(self, patience: Patience, *, violators_max: int = VIOLATORS_MAX) -> None:
        self._patience = patience
        self._violators_max = violators_max
        #: The most recent last.
        self._known: OrderedDict[str, Violator] = OrderedDict()
        #: Nobody is refused after this time: the only thing that most calls look at.
        self._refused_until = 0.0

    def __len__(self) -> int:
        return len(self._known)

    def refused(self, principal: str, now: float) -> float:
        """For how many seconds everything that this caller asks is refused; 0: it is not."""
        if now >= self._refused_until:
            return 0.0
        known = self._known.get(principal)
        return max(known.refuse_until - now, 0.0) if known is not None else 0.0

    def add(self, principal: str, kind: Kind, message: str, now: float, *, bear: bool = False) -> Violator | None:
        """Count a violation. Gives the violator when this one was too many; `bear` only counts."""
        known = self._known.get(principal)
        if known is None:
            known = self._enter(principal, now)
        self._known.move_to_end(principal)
        known.kinds[kind] += 1
        known.last_at, known.last_message = now, message
        self._slide(known, now)
        known.count += 1
        patience = self._patience
        share = 1.0 - min(max(now - known.window_at, 0.0) / patience.window_s, 1.0)
        if bear or not patience.count_max or known.count + known.count_before * share <= patience.count_max:
            return None
        return self._refuse(known, now)

    def recent(self) -> list[Violator]:
        """All of them, the most recent first."""
        return list(reversed(self._known.values()))

    def forgive(self, principal: str) -> Violator:
        """Forget one. Raises NotFound."""
        known = self._known.pop(principal, None)
        if known is None:
            raise errors.NotFound(f"nothing is known against {principal}", reason="VIOLATOR_NOT_FOUND")
        return known

    def _enter(self, principal: str, now: float) -> Violator:
        if len(self._known) >= self._violators_max:
            free = next((name for name, one in self._known.items() if one.refuse_until <= now), None)
            self._known.pop(free if free is not None else next(iter(self._known)))
        made = self._known[principal] = Violator(principal, window_at=now)
        return made

    def _slide(self, known: Violator, now: float) -> None:
        passed = now - known.window_at
        if 0.0 <= passed < self._patience.window_s:
            return
        # Two windows on, or a clock that was set back: nothing of what was counted is of now.
        known.count_before = known.count if 0.0 <= passed < 2 * self._patience.window_s else 0.0
        known.count, known.window_at = 0.0, now

    def _refuse(self, known: Violator, now: float) -> Violator:
        patience = self._patience
        if now - known.refuse_until > MEMORY_S:
            known.refusals = 0
        wait_s = min(patience.refuse_s * 2.0 ** min(known.refusals, DOUBLINGS_MAX), patience.refuse_s_max)
        known.refusals += 1
        known.refuse_until = now + wait_s
        known.count = known.count_before = 0.0
        self._refused_until = max(self._refused_until, known.refuse_until)
        return known
