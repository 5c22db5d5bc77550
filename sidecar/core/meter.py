"""Who is told of what a sidecar does, for its telemetry. Pure; this one keeps nothing, and is told when none is wanted.

Its methods are called on the event loop where things happen. They must not fail and not take time.
"""

from __future__ import annotations

from typing import Final

from kit import tracing
from sidecar.core.assignment import Assignment, Holding, Outcome
from sidecar.core.trail import Trail


class Meter:
    """Told of everything, keeps nothing."""

    def trail(self, assignment: Assignment) -> Trail:
        """Where the spans of an attempt go: nowhere, but children are told the attempt's own."""
        return Trail(tracing.parse(assignment.traceparent), lambda: 0.0)

    def begun(self, assignment: Assignment) -> None:
        """An attempt begins."""

    def ended(self, assignment: Assignment, outcome: Outcome) -> None:
        """It has ended; the outcome is in the journal and is to be told."""

    def settled(self, holding: Holding, *, acked: bool) -> None:
        """Nothing more is to be said of it; `acked`: because the hub has the outcome."""

    def checked(self, phase: str, verdict: str, seconds: float, *, where: str = "") -> None:
        """A check ran; `where` is the trace context in which."""

    def executed(self, executor: str, seconds: float, *, good: bool, where: str = "") -> None:
        """An executor did its work, or one repair."""

    def git(self, operation: str, seconds: float, *, good: bool) -> None:
        """One of our own git commands ran; `operation` is its first word."""

    def attached(self, *, resumed: bool) -> None:
        """The hub welcomed a stream."""

    def detached(self) -> None:
        """A stream, or the try of one, ended without being asked to."""

    def beat(self) -> None:
        """A heartbeat is on its way."""

    def answered(self) -> None:
        """The hub said what ought to be: the answer to a heartbeat, when one is on its way."""


NOBODY: Final = Meter()
