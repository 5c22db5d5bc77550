"""The catalogue of metrics: every number that a node tells, with its unit, its attributes and what it means.

docs/metrics.md is written from it. Names are those of OpenTelemetry (dots, unit apart); `prometheus` spells them as
Prometheus wants them. The values of an attribute are a closed list, so the number of series is known beforehand: no id
of a task, goal or agent is ever an attribute. The numbers themselves are kept in `kit.tally`.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

UNKNOWN: Final = "unknown"
"""Where a value is counted that is not in the list of its attribute: a newer sidecar may say what this hub cannot."""


class Kind(enum.Enum):
    """How a metric behaves."""

    COUNTER = "counter"
    """Only grows, from 0 at the start of the process."""
    GAUGE = "gauge"
    """As of now."""
    HISTOGRAM = "histogram"
    """A distribution, counted in buckets since the start of the process."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """By what a metric is split."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the catalogue."""

    name: str
    kind: Kind
    unit: str
    """UCUM: "s", "By", "1" for a ratio, "{task}" for a count of something."""
    meaning: str
    attributes: tuple[Attribute, ...] = ()
    bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets of a histogram, in its unit; one more bucket has no bound."""

    @property
    def node(self) -> str:
        """Which program tells it: "hub", "sidecar", or both."""
        if self.name.startswith("agentcom.telemetry."):
            return "hub, sidecar"
        return "sidecar" if self.name.startswith("agentcom.sidecar.") else "hub"

    @property
    def series(self) -> Iterator[tuple[str, ...]]:
        """Every combination of the values of its attributes."""
        return itertools.product(*(attribute.values for attribute in self.attributes))

    @property
    def prometheus(self) -> str:
        """Its name on a page for Prometheus, without the suffix that the format itself adds to a counter."""
        suffix = {"s": "_seconds", "By": "_bytes", "1": "_ratio"}.get(self.unit, "")
        return self.name.replace(".", "_") + suffix


LANE: Final = Attribute("lane", ("urgent", "high", "normal", "low"))
STATE: Final = Attribute(
    "state",
    (
        "pending", "scheduled", "queued", "assigned", "running", "parked", "merging", "succeeded", "cancelled", "dead",
    ),
)  # fmt: skip
ATTRIBUTION: Final = Attribute("attribution", ("task", "agent", "environment", "credential", "provider", "hub"))
TASK_END: Final = Attribute("state", ("succeeded", "cancelled", "dead"))
ATTEMPT_END: Final = Attribute("outcome", ("completed", "failed", "returned"))
PHASE: Final = Attribute("phase", ("base", "head", "merged"))
VERDICT: Final = Attribute("verdict", ("pass", "fail", "unknown"))
CHANGE_END: Final = Attribute("outcome", ("merged", "returned", "abandoned"))
GOAL_END: Final = Attribute("state", ("succeeded", "failed", "cancelled"))
AGENT_STATE: Final = Attribute("state", ("offline", "idle", "assigned", "working", "blocked", "draining", "isolated"))
SESSION_START: Final = Attribute("how", ("new", "resumed"))
SEVERITY: Final = Attribute("severity", ("warning", "critical"))
ALERT_RULE: Final = Attribute(
    "rule",
    (
        "store-degraded", "store-full", "disk-low", "backup-old", "backup-failed", "loops-late", "queue-growing",
        "oldest-task", "stuck-tasks", "failure-rate", "no-agents", "agent-offline", "agent-isolated", "agent-refused",
        "main-red",
    ),
)  # fmt: skip
HUB_STATE: Final = Attribute("state", ("serving", "paused", "draining", "degraded"))
KIND: Final = Attribute("kind", ("work", "survey", "verify", "merge", "revert", "probe"))
TRY_END: Final = Attribute("outcome", ("completed", "failed", "stopped"))
EXECUTOR: Final = Attribute("executor", ("shell", "fake"))
RUN_END: Final = Attribute("outcome", ("completed", "failed"))
GIT: Final = Attribute("operation", ("fetch", "push", "commit", "merge", "worktree", "read", "other"))
PUSH_END: Final = Attribute("outcome", ("succeeded", "failed", "skipped"))
SINK: Final = Attribute("sink", ("webhook", "ntfy", "email", "webpush"))
NOTICE_END: Final = Attribute("outcome", ("sent", "failed"))

# Bounds of the buckets, in seconds unless said. A bucket costs one series each, so they are as fine as decisions need.
FAST_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""What the hub itself does: the targets of the design are milliseconds, the trouble begins at a second."""
WAIT_S: Final = (0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)
"""From at once (an idle agent) to a day (nobody fits)."""
RUN_S: Final = (0.05, 0.2, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0)
"""From a shell command to the default run timeout of an hour, and beyond."""
GIT_S: Final = (0.01, 0.05, 0.2, 1.0, 5.0, 30.0, 120.0, 600.0)
"""From a look into a cache to the default bound of a fetch over a slow line."""
END_TO_END_S: Final = (0.02, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 604_800.0)
"""Waiting, all attempts and the merge: up to a week."""
BATCH: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Writes in one commit; 512 is the bound of the store."""


def _counter(name: str, unit: str, meaning: str, *attributes: Attribute) -> Metric:
    return Metric(f"agentcom.{name}", Kind.COUNTER, unit, meaning, attributes)


def _gauge(name: str, unit: str, meaning: str, *attributes: Attribute) -> Metric:
    return Metric(f"agentcom.{name}", Kind.GAUGE, unit, meaning, attributes)


def _spread(name: str, unit: str, meaning: str, bounds: tuple[float, ...], *attributes: Attribute) -> Metric:
    return Metric(f"agentcom.{name}", Kind.HISTOGRAM, unit, meaning, attributes, bounds)


# The queue
TASKS = _gauge("tasks", "{task}", "Tasks that there are.", STATE, LANE)
OLDEST_AGE = _gauge("queue.oldest.age", "s", "How long the oldest QUEUED task waits; 0: none does.")
SUBMITTED = _counter("task.submitted", "{task}", "Tasks filed.")
ASSIGNED = _counter("task.assigned", "{task}", "Assignments, the first one of a task and the others.")
RETRIED = _counter("task.retried", "{task}", "Assignments of tasks that had been assigned before.")
WAIT = _spread("task.wait", "s", "From queued to assigned, to an agent with a session.", WAIT_S, LANE)
END_TO_END = _spread(
    "task.end_to_end", "s", "From filed to succeeded, with its merge where one is asked for.", END_TO_END_S
)
TASK_ENDED = _counter("task.ended", "{task}", "Tasks that reached an end.", TASK_END)
DEAD = _counter("task.dead_lettered", "{task}", "Tasks that were dead-lettered, by whose fault it was.", ATTRIBUTION)
REVIVED = _counter("task.revived", "{task}", "Tasks that were retried after they had ended or parked.")

# Attempts
RUN = _spread("attempt.run", "s", "From accepted to the end of the attempt.", RUN_S, ATTEMPT_END)
FAILED = _counter("attempt.failed", "{attempt}", "Attempts that failed, by whose fault it was.", ATTRIBUTION)
REJECTED = _counter("attempt.rejected", "{attempt}", "Assignments that an agent did not take: not me.")
STUCK = _counter("attempt.stuck", "{attempt}", "Attempts that showed no progress for too long.")
FENCED = _counter("report.fenced", "{report}", "Reports of an old generation, refused.")
ADOPTED = _counter("holding.adopted", "{holding}", "Holdings that sidecars brought along and kept.")
LOST = _counter("holding.lost", "{holding}", "Holdings that nobody will report on, taken back.")
CHECKS = _counter("check.runs", "{run}", "Check runs that sidecars reported, by when and with what.", PHASE, VERDICT)
CHECK_DURATION = _spread("check.duration", "s", "How long a check ran.", RUN_S, PHASE)

# Changes and goals
CHANGE_ENDED = _counter("change.ended", "{change}", "Changes that left the merge train.", CHANGE_END)
GOAL_ENDED = _counter("goal.ended", "{goal}", "Goals that reached an end.", GOAL_END)

# Agents
AGENTS = _gauge("agents", "{agent}", "Agents that there are.", AGENT_STATE)
ISOLATED = _counter("agent.isolated", "{agent}", "Isolations: too many failures of one agent in a row.")
SLOTS = _gauge("slots", "{slot}", "Slots of the agents that may be given work.")
SLOTS_USED = _gauge("slots.used", "{slot}", "Those of them that are taken or reserved.")
UTILISATION = _gauge("slots.utilisation", "1", "Used slots by slots; 0 when there are none.")
SESSIONS = _gauge("sessions", "{session}", "Sessions with an open stream.")
SESSION_OPENED = _counter("session.opened", "{session}", "Streams of sidecars that began; resumed: a reconnect.",
                          SESSION_START)  # fmt: skip
SESSION_ENDED = _counter("session.ended", "{session}", "Streams of sidecars that ended, for whatever cause.")
HEARTBEAT_AGE = _gauge("heartbeat.age", "s", "How long ago the most silent open session was heard; 0: none is open.")

# The hub
DISPATCH = _spread("dispatch.duration", "s", "One run of the dispatcher: plan, transaction, what follows.", FAST_S)
COMMIT = _spread("store.commit.duration", "s", "One commit of the store with its fsync.", FAST_S)
COMMIT_BATCH = _spread("store.commit.batch", "{write}", "Writes that shared one commit.", BATCH)
COMMITS = _counter("store.commits", "{commit}", "Commits of the store.")
WRITES = _counter("store.writes", "{write}", "Writes of the store; by commits: the mean batch.")
STORE_USED = _gauge("store.used", "By", "Pages of the store that are in use.")
STORE_LIMIT = _gauge("store.limit", "By", "How large the store may become.")
DISK_FREE = _gauge("disk.free", "By", "Free on the disk of the store, as of the last look of the alerts.")
BACKUP_AGE = _gauge("backup.age", "s", "Age of the newest good backup; absent: there is none.")
ALERTS = _gauge("alerts", "{alert}", "Alerts that hold now.", SEVERITY)
ALERTS_BY_RULE = _gauge("alert.rule.alerts", "{alert}", "Alerts that hold now, by their rule.", ALERT_RULE)
ALERT_RAISED = _counter("alert.raised", "{alert}", "Alerts that began.", SEVERITY)
NOTICES = _counter("notice.deliveries", "{notice}", "Notices that a sink took, and tries that failed.", SINK,
                   NOTICE_END)  # fmt: skip
NOTICE_BACKLOG = _gauge("notice.backlog", "{notice}", "Notices that wait for a sink.", SINK)
SINKS_FAILING = _gauge("notice.sink.failing", "{sink}", "1 for a sink whose last try failed, 0 for the others.", SINK)
INVALID = _counter("request.invalid", "{request}", "Rules of the contract that requests broke: they were refused.")
THROTTLED = _counter("request.throttled", "{request}", "Requests refused because their caller asks too often.")
SHUT_OUT = _counter("caller.shut_out", "{caller}", "Callers that broke the rules so often that all is refused.")
LOOP_FAILURES = _counter("loop.failures", "{failure}", "Failed runs of the loops of the hub; each is tried again.")
HUB_STATE_NOW = _gauge("hub.state", "{hub}", "1 for the state that the hub is in, 0 for the others.", HUB_STATE)
STARTED = _gauge("hub.start_time", "s", "When the process began to serve, in seconds since the epoch.")
PUSHES = _counter("telemetry.pushes", "{push}", "Pushes of these numbers to a collector; skipped: the one before it "
                  "was still under way.", PUSH_END)  # fmt: skip

SPANS_DROPPED = _counter("telemetry.spans.dropped", "{span}", "Ended spans that were given up: too many waited "
                                "for a collector that took none.")  # fmt: skip

# A sidecar
OWN_SLOTS = _gauge("sidecar.slots", "{slot}", "Slots of this sidecar.")
OWN_SLOTS_USED = _gauge("sidecar.slots.used", "{slot}", "Those of them that are taken.")
OWN_UNTOLD = _gauge("sidecar.outcomes.untold", "{attempt}", "Ended attempts whose outcome the hub has not acked.")
TRIES = _counter("sidecar.attempts", "{attempt}", "Attempts that ended here.", KIND, TRY_END)
TRY_RUN = _spread("sidecar.attempt.run", "s", "From the begin of an attempt to its outcome.", RUN_S, KIND)
OWN_CHECKS = _counter("sidecar.check.runs", "{run}", "Check runs, by when and with what.", PHASE, VERDICT)
OWN_CHECK_DURATION = _spread("sidecar.check.duration", "s", "How long a check ran.", RUN_S, PHASE)
EXECUTOR_RUN = _spread("sidecar.executor.run", "s", "How long an executor worked, repairs each by itself.", RUN_S,
                              EXECUTOR, RUN_END)  # fmt: skip
GIT_RUN = _spread("sidecar.git.duration", "s", "One of the sidecar's own git commands.", GIT_S, GIT)
GIT_FAILED = _counter("sidecar.git.failures", "{command}", "Those that failed or took too long.", GIT)
STREAMS = _counter("sidecar.session.opened", "{session}", "Streams to the hub that it welcomed; beyond the first "
                          "each is a reconnect.", SESSION_START)  # fmt: skip
STREAMS_LOST = _counter("sidecar.session.lost", "{session}", "Streams, or tries of one, that ended without being "
                               "asked to.")  # fmt: skip
ROUND_TRIP = _spread("sidecar.heartbeat.round_trip", "s", "From a heartbeat to the hub's answer.", FAST_S)
JOURNAL_SIZE = _gauge("sidecar.journal.size", "By", "Length of the journal.")
OWN_DISK_FREE = _gauge("sidecar.disk.free", "By", "Free on the disk of the working trees.")
OWN_STARTED = _gauge("sidecar.start_time", "s", "When the process began, in seconds since the epoch.")

CATALOGUE: Final = tuple([one for one in list(globals().values()) if isinstance(one, Metric)])
"""All of them, in the order of this file."""
