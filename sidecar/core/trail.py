"""The trail of one attempt: what the sidecar did for it, as spans inside of the hub's span of the attempt. Pure.

An attempt is in one phase at a time, so entering a phase ends the one before it; inside of a phase there are smaller
spans (each check). The ids follow from the attempt's span and a count, so there is nothing to hand on.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kit import tracing


@dataclass(slots=True)
class Step:
    """A span that is open."""

    name: str
    id: int
    parent: int
    began_at: float
    attributes: dict[str, str]
    good: bool = field(default=True)


class Trail:
    """The spans of one attempt, as far as somebody wants them."""

    def __init__(
        self,
        parent: tracing.Parent | None,
        now: Callable[[], float],
        emit: Callable[[tracing.Span], None] | None = None,
    ) -> None:
        """`parent` is the attempt's span; None: the hub does not trace. Ended spans go to `emit`; None: to nobody."""
        self._parent = parent
        self._now = now
        self._emit = emit
        self._counts: Counter[str] = Counter()
        self._phase: Step | None = None
        self._inner: Step | None = None

    @property
    def traceparent(self) -> str:
        """The trace context for a child process: of the innermost open span; empty: nobody traces."""
        parent = self._parent
        if parent is None:
            return ""
        inner = self._inner or self._phase
        span = inner.id if inner is not None and self._is_kept else parent.span
        return tracing.traceparent(parent.trace, span, sampled=parent.sampled)

    def enter(self, name: str) -> None:
        """The next phase begins."""
        self.leave(good=True)
        self._phase = self._begin(name, {})

    def leave(self, *, good: bool, reason: str = "") -> None:
        """The phase ends, and no other begins here."""
        if self._phase is not None:
            self._end(self._phase, good=good, reason=reason)
            self._phase = None

    @contextlib.contextmanager
    def inside(self, name: str, **attributes: str) -> Iterator[Step | None]:
        """A span inside of the phase; set `good` of it when it was not. Whatever is raised makes it not good."""
        before, self._inner = self._inner, self._begin(name, {f"agentcom.{key}": v for key, v in attributes.items()})
        step, good = self._inner, False
        try:
            yield step
            good = True
        finally:
            self._inner = before
            if step is not None:
                self._end(step, good=good and step.good)

    @property
    def _is_kept(self) -> bool:
        return self._emit is not None and self._parent is not None and self._parent.sampled

    def _begin(self, name: str, attributes: dict[str, str]) -> Step | None:
        if self._parent is None or not self._is_kept:
            return None
        self._counts[name] += 1
        around = self._inner or self._phase
        id = tracing.span_in(self._parent, name, self._counts[name])
        return Step(name, id, around.id if around is not None else self._parent.span, self._now(), attributes)

    def _end(self, step: Step, *, good: bool, reason: str = "") -> None:
        assert self._parent is not None and self._emit is not None
        told = {**step.attributes, **({"agentcom.reason": reason} if reason else {})}
        self._emit(
            tracing.Span(self._parent.trace, step.id, step.parent, step.name, step.began_at, self._now(), good, told)
        )
