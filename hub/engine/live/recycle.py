"""Classes of requirements that no task has any more are freed, so that others may have their numbers.

Theory. A class is made with the first task of its requirement, and there is a bound on how many there are. Nothing says
how many tasks have a class: that would cost every write. So when there are many, all tasks are gone through in small
steps, and the writer notes meanwhile which classes are asked for. What was neither seen nor asked for is free. It is
given away only when there is no new number left, so a hub below the bound changes nothing, on the disk or in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hub.engine.live.context import Context

BEGIN_AT: Final = 8_000
"""Classes from which on it is worth a look: four fifths of the bound."""

TASKS_BATCH: Final = 200
"""Looked at in one step: a millisecond of the event loop."""

AGAIN_S: Final = 3_600.0
"""Between two looks: tasks go when they are days old."""


class Done(NamedTuple):
    """What one step came to."""

    forgotten: int
    more: bool


@dataclass(slots=True)
class _Scan:
    """One going through all tasks."""

    #: How many classes there were when it began; later ones are in use.
    count: int
    used: set[int] = field(default_factory=set)
    after: str = ""


class Recycler:
    """One for each hub; a duty of the retention."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._scan: _Scan | None = None
        self._again_at = 0.0
        #: Called with classes that are about to be freed, by whoever remembers things by their number.
        self.on_free: Callable[[Iterable[int]], object] = lambda numbers: None

    async def step(self) -> Done:
        """One step; `forgotten` is how many classes are free at the end of the last one."""
        store = self._ctx.store
        if self._scan is None:
            if self._ctx.clock.monotonic() < self._again_at:
                return Done(0, False)
            count = len(store.read(lambda reader: reader.classes()))
            if count < BEGIN_AT:
                return Done(0, False)
            await store.write(lambda txn: txn.watch_classes(), essential=True)
            self._scan = _Scan(count)
        scan = self._scan
        found = store.read(lambda reader: reader.tasks(after=scan.after, limit=TASKS_BATCH))
        scan.used.update(task.class_id for task in found)
        if len(found) == TASKS_BATCH:
            scan.after = found[-1].id
            return Done(0, True)
        self._scan, self._again_at = None, self._ctx.clock.monotonic() + AGAIN_S
        free = set(range(1, scan.count + 1)) - scan.used
        self.on_free(free)
        return Done(await store.write(lambda txn: txn.free_classes(free), essential=True), False)
