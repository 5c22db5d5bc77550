"""Priority inversions: a task is assigned although more urgent work of its class has waited for longer than it should.

Within a class (equal requirements) whoever can have the one can have the other, so only order decides between them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from hub.core.task import State, Task
from tests.oracle.record import History, Rules, Violation
from tests.oracle.replay import Replay


def inversions(history: History, replay: Replay, rules: Rules) -> Iterator[Violation]:
    """Says so when there were more of them than the scenario allows."""
    if rules.inversion_s is None or history.tasks is None:
        return
    found = _found(history, history.tasks, rules.inversion_s)
    if len(found) > rules.inversions_max:
        first, position = found[0]
        message = f"{len(found)} inversions, the bound is {rules.inversions_max}"
        yield Violation("inversion", f"tasks/{first}", message, position)


def _found(history: History, tasks: dict[str, Task] | object, inversion_s: float) -> list[tuple[str, int]]:
    assert isinstance(tasks, dict)
    waiting: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    found = []
    for event in history.events:
        kind, _, id = event.subject.partition("/")
        record = tasks.get(id) if kind == "tasks" else None
        if record is None:
            continue
        place = waiting[record.class_id, record.lane]
        if event.type == "task.assigned":
            place.pop(id, None)
            for lane in range(1, record.lane):
                # Dictionaries keep their order, so the first one has waited longest (a release keeps its place in the
                # hub's queue and comes last here, which finds less, never more).
                oldest = next(iter(waiting[record.class_id, lane].items()), None)
                if oldest is not None and event.at - oldest[1] > inversion_s:
                    found.append((id, event.position))
                    break
        elif "class" in event.fields or event.fields.get("state") == State.QUEUED.name:
            place[id] = event.at
        else:
            place.pop(id, None)
    return found
