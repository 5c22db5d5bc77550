"""The problems a caller can act on.

    Problem
    ├── NotFound          nothing has that name
    ├── AlreadyExists     something has that name
    ├── IllegalState      the thing is in a state that refuses the verb (carries the state)
    ├── Conflict          somebody else was faster: etag, session gap
    │   └── Fenced        the generation quoted is not the current one
    ├── Exhausted         a rate, a quota or a queue is full (carries the delay after which to try again)
    ├── Invalid           the request breaks a rule (names every field)
    ├── OutOfRange        it asks for what is not kept any more (names the oldest that is)
    ├── Unavailable       not now: draining, starting, store busy
    ├── Unauthenticated   who are you
    ├── Forbidden         I know you, and no
    └── DataLoss          stored data is damaged: a person must restore it

Raised low, translated once by kit/status.py. A programmer's error is an `assert`, never a Problem.
Messages are lower case, without a full stop, and name the thing and the limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self


class Problem(Exception):
    """A refusal that the caller can act on; `reason` is for machines, the message for people."""

    default_reason: ClassVar[str] = "PROBLEM"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, object] | None = None,
        retry_delay_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        #: Seconds after which trying again makes sense; None when that is not known.
        self.retry_delay_s = retry_delay_s


class NotFound(Problem):
    """Nothing has that name."""

    default_reason = "NOT_FOUND"


class AlreadyExists(Problem):
    """Something has that name already."""

    default_reason = "ALREADY_EXISTS"


class IllegalState(Problem):
    """The thing is in a state that refuses the verb; nothing was changed."""

    default_reason = "ILLEGAL_STATE"

    def __init__(
        self, message: str, *, state: str, reason: str | None = None, metadata: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message, reason=reason, metadata={**(metadata or {}), "state": state})
        self.state = state


class Conflict(Problem):
    """The caller looked at something that has changed since: read again and decide again."""

    default_reason = "CONFLICT"


class Fenced(Conflict):
    """The generation quoted is not the current one: the holding belongs to somebody else now."""

    default_reason = "FENCED"


class Exhausted(Problem):
    """A rate, a quota or a bounded queue is full."""

    default_reason = "EXHAUSTED"


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: the proto path of the field (`task.checks[0].run`) and what is wrong with it."""

    field: str
    description: str
    rule: str = ""


class Invalid(Problem):
    """The request, file or configuration breaks rules; each violation names its field."""

    default_reason = "INVALID"

    def __init__(
        self,
        message: str = "",
        *,
        violations: Iterable[Violation] = (),
        reason: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        self.violations = tuple(violations)
        #: The message of a stream that breaks the rules, for a handler that can answer for it and go on; None
        # otherwise.
        self.subject: object = None
        text = message or "; ".join(f"{v.field}: {v.description}" for v in self.violations)
        super().__init__(text or "invalid", reason=reason, metadata=metadata)

    @classmethod
    def of(cls, field: str, description: str, *, reason: str | None = None) -> Self:
        """The common case: one field, one rule."""
        return cls(violations=(Violation(field, description),), reason=reason)


class OutOfRange(Problem):
    """The request asks for what was there once and is not kept any more."""

    default_reason = "OUT_OF_RANGE"


class Unavailable(Problem):
    """Not now: the node drains, starts or cannot reach what it needs. Trying again later is right."""

    default_reason = "UNAVAILABLE"


class Unauthenticated(Problem):
    """The caller did not say who it is, or could not prove it."""

    default_reason = "UNAUTHENTICATED"


class Forbidden(Problem):
    """The caller is known and may not do this."""

    default_reason = "FORBIDDEN"


class DataLoss(Problem):
    """Stored data does not check: it is not served, and trying again does not help."""

    default_reason = "DATA_LOSS"
