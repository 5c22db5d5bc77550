"""The catalogue of log records: every event that a program tells, its level, what it means and which fields it has.

Here are the records of `kit`, which any program may tell; each node has its own beside its code. docs/logs.md is
written from them, and a test holds every call of a logger against them. A name is a noun and what happened to it (or,
where a state is found and not reached, what it is). Error: a person must act. Warning: it healed itself, or is somebody
else's to mend. Info: a state changed. Debug: the rest.
"""

from __future__ import annotations

from typing import Final, NamedTuple

WORK: Final = ("task", "generation", "goal", "agent", "session", "trace_id", "span_id")
"""Of what a record is: any record has those that are known where it is made, and none has them under other names."""


class Entry(NamedTuple):
    """One kind of record."""

    level: str
    meaning: str
    fields: tuple[str, ...] = ()
    """Besides those of `WORK`, time, level, event and module; `exception` is a traceback."""


RECORDS: Final = {
    "certificate.ends_soon": Entry("warning", "renew it", ("file", "days_left")),
    "certificate.expired": Entry(
        "error", "it is not good any more, and callers will not take it", ("file", "not_after")
    ),
    "certificate.read": Entry(
        "info", "it was read, at the start or because the file has changed", ("file", "not_after")
    ),
    "certificate.refused": Entry(
        "error", "the file has changed and cannot be used; the one before it is kept", ("file", "problem")
    ),
    "library.logged": Entry("warning", "what a library has to say", ("message", "exception")),
    "log.resumed": Entry("error", "the log file could not be written for a while, and now it can", ("dropped",)),
    "loop.failed": Entry(
        "error", "one run of a duty failed; it is tried again", ("loop", "streak", "error", "exception")
    ),
    "process.cancelled": Entry("warning", "it did not end in time, or was asked twice: it ends at once", ("cause",)),
    "process.stopping": Entry("info", "a signal asked it to end", ("signal", "deadline_s")),
    "rpc.crashed": Entry(
        "error", "a call met a fault of ours; its caller was given the incident", ("method", "incident", "exception")
    ),
    "rpc.peer_lost": Entry("debug", "a caller has gone", ("method",)),
    "rpc.refused": Entry("debug", "a call was answered with an error", ("method", "reason", "message")),
    "server.drain_timed_out": Entry("warning", "calls that were still open at the end were cut", ("grace_s",)),
    "telemetry.page_served": Entry("info", "the page for Prometheus is there", ("address",)),
    "telemetry.push_abandoned": Entry(
        "info", "the last push took too long and was given up", ("endpoint", "deadline_s")
    ),
    "telemetry.push_failed": Entry(
        "warning", "the collector did not take it; told once a minute at most", ("endpoint", "error", "failed")
    ),
    "telemetry.push_started": Entry("info", "pushes to a collector begin", ("endpoint", "every_s")),
}
