"""Reads what the nodes wrote: a sidecar's JSON log as its operation log, a hub's store as its event log and records."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from hub.core.event import Event
from hub.core.task import Attempt, Task
from hub.store.base import Reader
from hub.store.lmdb import LmdbStore
from tests.oracle.record import Op, Verb

#: Events read in one snapshot.
PAGE = 10_000

#: Which record of a sidecar's log is which operation.
VERBS = {
    "holding.taken": Verb.ASSIGNMENT_TAKEN,
    "holding.begun": Verb.WORK_BEGUN,
    "holding.restored": Verb.ASSIGNMENT_TAKEN,
    "holding.finished": Verb.WORK_ENDED,
    "holding.stopping": Verb.WORK_STOPPING,
}


def sidecar_ops(agent: str, log: str) -> Iterator[Op]:
    """The operations that a sidecar's log tells. A line that is cut short (it was killed) is left out."""
    node = f"sidecar/{agent}"
    for line in log.splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if not isinstance(record, dict) or "task" not in record:
                continue
            event, verb = record.get("event"), VERBS.get(str(record.get("event")))
            if event == "holding.settled" and record.get("reason") == "acked":
                verb = Verb.REPORT_ACKED
            if verb is None:
                continue
            at = datetime.datetime.fromisoformat(record["time"]).timestamp()
            detail = str(record.get("reason") or ("done" if record.get("done") else ""))
            yield Op(at, node, verb, str(record["task"]), int(record.get("generation") or 0), detail=detail)


def events_of(reader: Reader) -> list[Event]:
    """The whole log."""
    found: list[Event] = []
    after = 0
    while page := reader.events(after=after, limit=PAGE):
        found += page
        after = page[-1].position
    return found


async def read_store(path: Path) -> tuple[list[Event], dict[str, Task], dict[str, list[Attempt]], dict[str, str]]:
    """Events, tasks, attempts and titles by task, from the folder of a hub that has ended."""
    store = LmdbStore.open(path)
    try:
        events = store.read(events_of)
        ids = {event.subject.removeprefix("tasks/") for event in events if event.type == "task.created"}

        def records(reader: Reader) -> tuple[dict[str, Task], dict[str, list[Attempt]], dict[str, str]]:
            tasks = {id: found for id in ids if (found := reader.task(id)) is not None}
            attempts = {id: list(reader.attempts(id)) for id in tasks}
            titles = {id: spec.title for id in tasks if (spec := reader.spec(id)) is not None}
            return tasks, attempts, titles

        return events, *store.read(records)
    finally:
        await store.close()


def requests_of(titles: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Request id by task, for contracts whose title is their request id."""
    return {id: title for id, title in titles.items() if title.startswith(prefix)}
