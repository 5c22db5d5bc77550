"""Telemetry of a sidecar: its counts, its spans, and who is told of them (`kit.telemetry`), only when configured.

Everything is counted in plain integers where it happens. The spans of an attempt are children of the hub's span of it,
whose id comes with the assignment; whether they are kept is the hub's decision, which comes with it, too.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from kit import clock, metrics, supervise, tally, tracing
from kit.telemetry import Numbers, Outlet, TelemetryConfig
from sidecar.core.assignment import Assignment, Done, Holding, Outcome
from sidecar.core.meter import NOBODY, Meter
from sidecar.core.slots import BUSY, HELD_COUNT_MAX, Phase, Slots
from sidecar.core.trail import Trail

#: The first word of a git command, by what it is counted as.
GIT: Final = {
    "fetch": "fetch", "ls-remote": "fetch", "push": "push",
    "add": "commit", "commit": "commit", "commit-tree": "commit", "read-tree": "commit", "write-tree": "commit",
    "merge": "merge", "worktree": "worktree", "reset": "worktree", "checkout": "worktree", "clean": "worktree",
    "clone": "worktree", "init": "worktree", "branch": "worktree", "update-ref": "worktree",
    "diff": "read", "log": "read", "ls-files": "read", "merge-base": "read", "rev-list": "read", "rev-parse": "read",
    "status": "read", "cat-file": "read", "show-ref": "read", "for-each-ref": "read", "version": "read",
}  # fmt: skip


class Who(NamedTuple):
    """Who tells."""

    version: str
    agent: str


class Seen(NamedTuple):
    """What is looked at when somebody asks."""

    slots: Slots
    #: Length of the journal in bytes.
    journal: Callable[[], int]
    work_dir: Path


def of(config: TelemetryConfig, who: Who, time: clock.Clock) -> Telemetry | None:
    """The telemetry that is configured; None: none. Raises Unavailable when a library is missing."""
    return Telemetry(config, who, time) if config.active else None


def meter_of(telemetry: Telemetry | None) -> Meter:
    """Who is told of what happens."""
    return telemetry if telemetry is not None else NOBODY


class Telemetry(Meter):
    """Counts for one sidecar, from its start on."""

    def __init__(self, config: TelemetryConfig, who: Who, time: clock.Clock) -> None:
        """Raises Unavailable when a library is missing."""
        self._time = time
        self._started_at = time.now()
        self.tally = counted = tally.Tally(self._started_at)
        self._tries = counted.counter(metrics.TRIES)
        self._run = counted.histogram(metrics.TRY_RUN)
        self._checks = counted.counter(metrics.OWN_CHECKS)
        self._check_duration = counted.histogram(metrics.OWN_CHECK_DURATION)
        self._executor = counted.histogram(metrics.EXECUTOR_RUN)
        self._git = counted.histogram(metrics.GIT_RUN)
        self._git_failed = counted.counter(metrics.GIT_FAILED)
        self._streams = counted.counter(metrics.STREAMS)
        self._lost = counted.counter(metrics.STREAMS_LOST)
        self._round_trip = counted.histogram(metrics.ROUND_TRIP)
        self._seen: Seen | None = None
        #: Attempts that run: since when, by the monotonic clock.
        self._begun: dict[Holding, float] = {}
        #: Outcomes that are being told: the attempt's span, and since when. As many as a heartbeat can list.
        self._telling: OrderedDict[Holding, tuple[tracing.Parent, float]] = OrderedDict()
        self._beat_at: float | None = None
        names = {"service.name": "agentcom-sidecar", "service.version": who.version, "service.instance.id": who.agent}
        self._outlet = Outlet(config, names, self.snapshot)

    @property
    def address(self) -> str:
        """Where the page is; empty: there is none."""
        return self._outlet.address

    @property
    def outlet(self) -> Outlet:
        """The page and the push."""
        return self._outlet

    async def start(self, seen: Seen) -> None:
        """Tell from now on. Raises Unavailable when the port is taken."""
        self._seen = seen
        await self._outlet.start()

    def loops(self) -> list[supervise.Loop]:
        """The duty of the push; none without one."""
        return self._outlet.loops()

    async def stop(self) -> None:
        """The page goes, and the last numbers are pushed when that is quick. May be called without a start."""
        await self._outlet.stop()

    def snapshot(self) -> tally.Snapshot:
        """The numbers of now."""
        return self.tally.snapshot(self._time.now(), {**self._measured(), **self._outlet.numbers()})

    # What it is told.

    def trail(self, assignment: Assignment) -> Trail:
        spans = self._outlet.spans
        return Trail(tracing.parse(assignment.traceparent), self._time.now, None if spans is None else spans.add)

    def begun(self, assignment: Assignment) -> None:
        self._begun[assignment.holding] = self._time.monotonic()

    def ended(self, assignment: Assignment, outcome: Outcome) -> None:
        began = self._begun.pop(assignment.holding, None)
        end = "completed" if isinstance(outcome, Done) else "stopped" if outcome.stopped else "failed"
        self._tries.add(assignment.kind, end)
        parent = tracing.parse(assignment.traceparent)
        if began is not None:
            self._run.observe(self._time.monotonic() - began, assignment.kind, seen=self._seen_in(parent))
        if parent is not None and parent.sampled and self._outlet.spans is not None:
            self._telling[assignment.holding] = (parent, self._time.now())
            if len(self._telling) > HELD_COUNT_MAX:
                self._telling.popitem(last=False)

    def settled(self, holding: Holding, *, acked: bool) -> None:
        parent, began = self._telling.pop(holding, (None, 0.0))
        if parent is not None and self._outlet.spans is not None:
            id, now = tracing.span_in(parent, "report", 1), self._time.now()
            self._outlet.spans.add(tracing.Span(parent.trace, id, parent.span, "report", began, now, acked, {}))

    def checked(self, phase: str, verdict: str, seconds: float, *, where: str = "") -> None:
        self._checks.add(phase, verdict)
        self._check_duration.observe(seconds, phase, seen=self._seen_in(tracing.parse(where)))

    def executed(self, executor: str, seconds: float, *, good: bool, where: str = "") -> None:
        seen = self._seen_in(tracing.parse(where))
        self._executor.observe(seconds, executor, "completed" if good else "failed", seen=seen)

    def git(self, operation: str, seconds: float, *, good: bool) -> None:
        counted = GIT.get(operation, "other")
        self._git.observe(seconds, counted)
        if not good:
            self._git_failed.add(counted)

    def attached(self, *, resumed: bool) -> None:
        self._streams.add("resumed" if resumed else "new")
        self._beat_at = None

    def detached(self) -> None:
        self._lost.add()
        self._beat_at = None

    def beat(self) -> None:
        self._beat_at = self._time.monotonic()

    def answered(self) -> None:
        if self._beat_at is not None:
            self._round_trip.observe(self._time.monotonic() - self._beat_at)
            self._beat_at = None

    # What it tells.

    def _seen_in(self, parent: tracing.Parent | None) -> tally.Seen | None:
        if parent is None or not parent.sampled or self._outlet.spans is None:
            return None
        return tally.Seen(self._time.now(), parent.trace, parent.span)

    def _measured(self) -> Numbers:
        alone: tally.Key = ()
        made: Numbers = {metrics.OWN_STARTED: {alone: self._started_at}}
        if self._seen is None:
            return made
        entries = list(self._seen.slots.entries())
        made[metrics.OWN_SLOTS] = {alone: self._seen.slots.capacity}
        made[metrics.OWN_SLOTS_USED] = {alone: sum(entry.phase in BUSY for entry in entries)}
        made[metrics.OWN_UNTOLD] = {alone: sum(entry.phase is Phase.FINISHED for entry in entries)}
        made[metrics.JOURNAL_SIZE] = {alone: self._seen.journal()}
        with contextlib.suppress(OSError):  # the folder may be away: then nothing is said of it
            made[metrics.OWN_DISK_FREE] = {alone: shutil.disk_usage(self._seen.work_dir).free}
        return made
