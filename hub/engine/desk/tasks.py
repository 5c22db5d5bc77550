"""What callers ask about tasks and do to them: each method is one read or one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Final, NamedTuple

from hub.core.event import Event
from hub.core.holding import Holding
from hub.core.repo import Repo
from hub.core.task import Attempt, Task, TaskSpec
from hub.engine.desk import listing
from hub.engine.live import bus as buses
from hub.engine.live.context import Context
from hub.engine.script import byhand, queue, requests
from hub.store.base import Reader, Txn
from kit import errors

PAGE_CHARS_MAX: Final = 4 << 20
"""Of the contracts read for one page, which may have half a megabyte each."""


class Shown(NamedTuple):
    """A task with its contract, and its attempts where they were asked for."""

    task: Task
    spec: TaskSpec | None
    attempts: tuple[Attempt, ...] = ()


class Claimed(NamedTuple):
    """A task that is held by hand now."""

    shown: Shown
    repo: Repo | None
    expires_at: float


class Told(NamedTuple):
    """What a watch is told: an event with its task as it is now, or only how far the log was read."""

    position: int
    event: Event | None = None
    shown: Shown | None = None


class Tasks:
    """The tasks, as callers see them."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def get(self, task_id: str) -> Shown:
        """One task with its attempts. Raises NotFound."""

        def read(reader: Reader) -> Shown:
            task = queue.found(reader, task_id)
            return Shown(task, reader.spec(task_id), tuple(reader.attempts(task_id)))

        return self._ctx.store.read(read)

    def page(self, wanted: Mapping[str, object], *, after: str, limit: int, reverse: bool) -> tuple[list[Shown], str]:
        """A page of tasks, and where the next one begins; empty at the end."""

        def read(reader: Reader) -> tuple[list[Shown], str]:
            found = listing.page(reader, wanted, after=after, limit=limit, reverse=reverse)
            shown: list[Shown] = []
            size = 0
            for task in found.tasks:
                spec = reader.spec(task.id)
                shown.append(Shown(task, spec))
                size += _size(spec) if spec is not None else 0
                if size > PAGE_CHARS_MAX and len(shown) < len(found.tasks):
                    return shown, task.id
            return shown, found.cursor

        return self._ctx.store.read(read)

    async def cancel(self, task_id: str, *, actor: str, reason: str, etag: str) -> Shown:
        """End a task for good."""
        now = self._ctx.clock.now()
        return await self._ctx.store.write(
            lambda txn: _shown(txn, queue.cancel(txn, task_id, now, actor=actor, reason=reason, etag=etag)),
            essential=True,
        )

    async def retry(self, task_id: str, request: requests.Request, *, etag: str) -> Shown:
        """Try a task again with fresh attempts; said twice with one request id, it is done once."""
        now = self._ctx.clock.now()
        window_at = now + self._ctx.settings.request_window_s

        def write(txn: Txn) -> Shown:
            if requests.answered(txn, request, now) is not None:
                return _shown(txn, queue.found(txn, task_id))
            after = queue.revive(txn, task_id, now, actor=request.principal, etag=etag)
            requests.remember(txn, request, f"tasks/{task_id}", window_at)
            return _shown(txn, after)

        return await self._ctx.store.write(write)

    async def delete(self, task_id: str, *, actor: str, etag: str) -> None:
        """Forget a task that has reached its end."""
        now = self._ctx.clock.now()
        await self._ctx.store.write(lambda txn: queue.delete(txn, task_id, now, actor=actor, etag=etag), essential=True)

    def history(self, task_id: str, *, after: int, limit: int) -> list[Event]:
        """Events of a task behind a position. A deleted task still has a history; an unknown one raises NotFound.

        Raises OutOfRange for a position that is gone by the retention.
        """

        def read(reader: Reader) -> list[Event]:
            newest_gone = reader.position_gone()
            if 0 < after < newest_gone:
                raise buses.gone(after, newest_gone + 1)  # the page before may not be followed by a gap
            events = reader.events_of(f"tasks/{task_id}", after=after, limit=limit)
            if not events and not after:
                queue.found(reader, task_id)
            return events

        return self._ctx.store.read(read)

    def artifact(self, task_id: str, generation: int, id: str) -> byhand.Found:
        """An artefact with its content."""
        return self._ctx.store.read(lambda reader: byhand.artifact(reader, task_id, generation, id))

    async def claim(self, task_id: str, agent: str, lease_s: float, *, actor: str) -> Claimed:
        """Hold a waiting task by hand."""
        now = self._ctx.clock.now()

        def write(txn: Txn) -> Claimed:
            placed, repo = byhand.claim(txn, task_id, agent, lease_s, now, actor=actor)
            return Claimed(Shown(placed.task, placed.spec), repo, now + lease_s)

        return await self._ctx.store.write(write)

    async def report(self, holding: Holding, outcome: byhand.Outcome, *, speaker: str | None) -> Shown:
        """Take in what became of a holding that was claimed."""
        now, roll = self._ctx.clock.now(), self._ctx.rng.random()
        try:
            return await self._ctx.store.write(
                lambda txn: _shown(txn, byhand.report(txn, holding, outcome, now, speaker=speaker, roll=roll)),
                essential=True,
            )
        except errors.Fenced:
            self._ctx.figures.fenced += 1
            raise

    async def watch(self, position: int, *, names: frozenset[str], goal: str) -> AsyncGenerator[Told, None]:
        """Events of tasks behind a position, for ever: of these names and this goal; none given: of all."""

        def wanted(event: Event) -> bool:
            if not event.subject.startswith("tasks/"):
                return False
            return (not names or event.subject in names) and (not goal or event.goal == goal)

        async with contextlib.aclosing(self._ctx.bus.follow(position, wanted)) as batches:
            async for batch in batches:
                if not batch.events:
                    yield Told(batch.position)
                for event in batch.events:
                    yield Told(event.position, event, self._now(event.subject.removeprefix("tasks/")))

    def start(self, asked: int) -> int:
        """Where a watch begins: 0 is now, -1 the beginning of the log."""
        return self._ctx.bus.start(asked)

    def _now(self, task_id: str) -> Shown | None:
        def read(reader: Reader) -> Shown | None:
            task = reader.task(task_id)
            return _shown(reader, task) if task is not None else None

        return self._ctx.store.read(read)


def _size(spec: TaskSpec) -> int:
    """About how many characters there are in a contract."""
    return len(spec.instructions) + len(spec.command) + sum(len(check.run) for check in spec.checks)


def _shown(reader: Reader, task: Task) -> Shown:
    return Shown(task, reader.spec(task.id))
