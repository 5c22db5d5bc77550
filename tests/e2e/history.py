"""What the event log must say after any fault, for the tests that hold it as it came over the wire.

The rules are the oracle's (`tests/oracle`); here is the way from the wire to them, and what these tests add.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from agentcom.v1 import event_pb2
from hub.core.event import Event
from tests.oracle import check as oracle
from tests.oracle.record import History, Rules


def check(events: Sequence[event_pb2.Event], names: Iterable[str]) -> None:
    """The oracle finds nothing, no two hashes are the same, and each of these tasks, and no other, has succeeded."""
    # The hashes themselves cannot be computed from what came over a wire: it rounds times and shuffles fields.
    oracle.check(History(events=[_event(one) for one in events], hashed=False), Rules(logs_complete=False))
    assert len({event.hash for event in events}) == len(events)
    ends = Counter(event.subject for event in events if event.type == "task.succeeded")
    assert ends == Counter(list(names)), "each task succeeds exactly once"


def of(events: Iterable[event_pb2.Event], type_: str) -> list[event_pb2.Event]:
    """Those of one type."""
    return [event for event in events if event.type == type_]


def latencies_s(events: Sequence[event_pb2.Event], names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """For each task: seconds from its filing to its first assignment, and from there to its start."""
    found = {}
    for name in names:
        first: dict[str, float] = {}
        for event in events:
            if event.subject == name:
                first.setdefault(event.type, event.create_time.ToNanoseconds() / 1e9)
        found[name] = (
            first["task.assigned"] - first["task.created"],
            first.get("task.accepted", first["task.assigned"]) - first["task.assigned"],
        )
    return found


def _event(one: event_pb2.Event) -> Event:
    return Event(
        position=one.position,
        at=one.create_time.ToNanoseconds() / 1e9,
        type=one.type,
        subject=one.subject,
        goal=one.goal.removeprefix("goals/"),
        actor=one.actor,
        fields=dict(one.fields),
        hash=bytes.fromhex(one.hash),
    )
