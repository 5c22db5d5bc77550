"""How the hub's figures went on, as a table: one row a minute or hour, the newest last."""

from __future__ import annotations

from google.protobuf import duration_pb2

from agentcom.v1 import history_pb2, hub_service_pb2
from cli import output, words
from cli.session import Session

UNKNOWN = "?"
"""What could only be seen, and was not."""


def _time(duration: duration_pb2.Duration) -> str:
    nanoseconds = duration.ToNanoseconds()
    return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds < 1_000_000_000 else words.seconds_text(nanoseconds / 1e9)


def _waiting(one: history_pb2.Sample) -> str:
    return str(sum(lane.count for lane in one.lanes)) if one.observed else UNKNOWN


def _slots(one: history_pb2.Sample) -> str:
    return f"{one.slots_used:.1f}/{one.slots}" if one.observed else UNKNOWN


def _wait(one: history_pb2.Sample) -> str:
    if not one.HasField("queue_wait"):
        return "" if one.observed else UNKNOWN
    return f"{_time(one.queue_wait.p50)}, {_time(one.queue_wait.p99)}"


def _run(one: history_pb2.Sample) -> str:
    if not one.HasField("run"):
        return "" if one.observed else UNKNOWN
    return f"{_time(one.run.p50)}, {_time(one.run.p99)}"


COLUMNS: list[output.Column[history_pb2.Sample]] = [
    ("FROM", lambda one: words.time_text(one.start_time)),
    ("FILED", lambda one: str(one.submitted_count)),
    ("ASSIGNED", lambda one: str(one.assigned_count)),
    ("DONE", lambda one: str(one.succeeded_count)),
    ("FAILED", lambda one: str(one.failed_count)),
    ("DEAD", lambda one: str(one.dead_count)),
    ("MERGED", lambda one: str(one.merged_count)),
    ("WAITING", _waiting),
    ("SLOTS", _slots),
    ("WAIT P50, P99", _wait),
    ("RUN P50, P99", _run),
]


async def show(session: Session, *, hours: bool, count: int) -> None:
    """Ask and print."""
    step = history_pb2.Sample.STEP_HOUR if hours else history_pb2.Sample.STEP_MINUTE
    ask = hub_service_pb2.GetHistoryRequest(step=step, count=count)
    reply = await session.call(session.hub.GetHistory, ask)
    session.output.many(reply.history.samples, COLUMNS, empty="nothing is known of that time")
