"""What the event log must say after any fault: the oracle of the tests with real processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from agentcom.v1 import event_pb2

#: The two events by which the hub tells that it accepted a completion.
ACCEPTED = ("task.succeeded", "task.pushed")


def check(events: Sequence[event_pb2.Event], names: Iterable[str]) -> None:
    """No gap in the log, and exactly one accepted completion for each task (a merged one is told once more)."""
    assert [event.position for event in events] == list(range(1, len(events) + 1)), "the log has gaps"
    assert len({event.hash for event in events}) == len(events)
    ends = Counter(event.subject for event in events if event.type == "task.succeeded")
    assert ends == Counter(list(names)), "each task succeeds exactly once"
    accepted: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.type in ACCEPTED and event.fields.get("generation"):
            accepted[event.subject, event.fields["generation"]] += 1
    for subject in ends:
        assert sum(count for (name, _), count in accepted.items() if name == subject) == 1, f"{subject}: {accepted}"


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
