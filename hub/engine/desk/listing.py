"""Pages of tasks: which index a filter can use, and how much may be looked at for one page.

State and lane come from an index, so do the tasks of a goal and those an agent holds; everything else is compared
record by record. A page looks at `SCAN_MAX` records at most and may therefore be short, or empty, before the end: its
time is bounded however rare the match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from hub.core import filter as filters
from hub.core.task import Kind, Lane, State, Task
from hub.store.base import Reader

SCAN_MAX: Final = 2_000
"""Records looked at for one page: about ten milliseconds."""

CHUNK: Final = 250
"""Records read at once when most of them may not match."""

FIELDS: Final[Mapping[str, filters.Read]] = {
    "state": filters.choice(State),
    "lane": filters.choice(Lane),
    "kind": filters.choice(Kind),
    "goal": filters.resource("goals"),
    "repo": filters.resource("repos"),
    "agent": filters.resource("agents"),
    "labels.": filters.plain,
}

Fetch = Callable[[str, int], list[Task]]
"""Tasks behind an id, so many at most."""


class Page(NamedTuple):
    """Tasks, and where the next page begins; empty at the end."""

    tasks: list[Task]
    cursor: str


def page(reader: Reader, wanted: Mapping[str, object], *, after: str, limit: int, reverse: bool) -> Page:
    """The tasks that fulfil the filter behind `after`, in the order of their creation or the other way round."""
    rest = dict(wanted)
    fetch = _source(reader, rest, reverse=reverse)
    found: list[Task] = []
    looked_at = 0
    while looked_at < SCAN_MAX:
        size = min(limit, SCAN_MAX) if not rest else min(max(CHUNK, limit - len(found)), SCAN_MAX - looked_at)
        chunk = fetch(after, size)
        for task in chunk:
            after = task.id
            if _fulfils(task, rest):
                found.append(task)
                if len(found) == limit:
                    return Page(found, after)
        looked_at += len(chunk)
        if len(chunk) < size:
            return Page(found, "")
    return Page(found, after)


def _source(reader: Reader, rest: dict[str, object], *, reverse: bool) -> Fetch:
    """The narrowest index for the filter; what it answers is taken out of `rest`."""
    if "goal" in rest:
        goal = str(rest.pop("goal"))
        return lambda after, limit: reader.tasks_of_goal(goal, after=after, limit=limit, reverse=reverse)
    if "agent" in rest:
        held = sorted(reader.held_by(str(rest.pop("agent"))), key=lambda task: task.id, reverse=reverse)
        return lambda after, limit: _behind(held, after, limit, reverse=reverse)
    if "state" in rest or "lane" in rest:
        state, lane = rest.pop("state", None), rest.pop("lane", None)
        states = [state] if isinstance(state, State) else list(State)
        lanes = [lane] if isinstance(lane, Lane) else list(Lane)
        return lambda after, limit: reader.tasks_in(states, lanes, after=after, limit=limit, reverse=reverse)
    return lambda after, limit: reader.tasks(after=after, limit=limit, reverse=reverse)


def _behind(tasks: list[Task], after: str, limit: int, *, reverse: bool) -> list[Task]:
    return [task for task in tasks if not after or (task.id < after if reverse else task.id > after)][:limit]


def _fulfils(task: Task, rest: Mapping[str, object]) -> bool:
    for field, value in rest.items():
        if field.startswith("labels."):
            if task.labels.get(field.removeprefix("labels.")) != value:
                return False
        elif getattr(task, field) != value:
            return False
    return True
