"""What callers ask about goals and changes and do to them: each method is one read, one transaction or one watch."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final, NamedTuple, TypeVar

from hub.core import filter as filters
from hub.core.change import Change
from hub.core.change import State as ChangeState
from hub.core.event import Event
from hub.core.goal import Goal, Plan, State
from hub.engine.live.context import Context
from hub.engine.script import goals, steering
from hub.store.base import Reader, ReadTable, Txn

SCAN_MAX: Final = 2_000
"""Records looked at for one page: a page may be short, or empty, before the end, but its time is bounded."""

TALLY_MAX: Final = 2_000
"""Tasks counted for one page of goals (ten goals of the largest plan): about ten milliseconds."""

CHUNK: Final = 200
"""Records read at once."""

GOAL_FIELDS: Final[Mapping[str, filters.Read]] = {
    "state": filters.choice(State),
    "repo": filters.resource("repos"),
}
CHANGE_FIELDS: Final[Mapping[str, filters.Read]] = {
    "state": filters.choice(ChangeState),
    "repo": filters.resource("repos"),
    "goal": filters.resource("goals"),
}

R = TypeVar("R", Goal, Change)


class Shown(NamedTuple):
    """A goal with the count of its tasks, and its plan where it was asked for."""

    goal: Goal
    tally: goals.Tally | None
    plan: Plan | None = None


class Told(NamedTuple):
    """What a watch is told: an event with its goal as it is now, or only how far the log was read."""

    position: int
    event: Event | None = None
    shown: Shown | None = None


class GoalDesk:
    """The goals and their changes, as callers see them."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def get(self, goal_id: str) -> Shown:
        """One goal with its plan. Raises NotFound."""

        def read(reader: Reader) -> Shown:
            goal = steering.found(reader, goal_id)
            return Shown(goal, goals.tally(reader, goal), reader.plans.get(goal_id))

        return self._ctx.store.read(read)

    def page(self, wanted: Mapping[str, object], *, after: str, limit: int) -> tuple[list[Shown], str]:
        """Goals that fulfil the filter, newest first, and where the next page begins; empty at the end."""

        def read(reader: Reader) -> tuple[list[Shown], str]:
            shown: list[Shown] = []
            counted = 0

            def take(goal: Goal) -> bool:
                nonlocal counted
                live = goal.state in (State.ACTIVE, State.VERIFYING)
                counted += goal.task_total if live else 0
                shown.append(Shown(goal, goals.tally(reader, goal) if live else None))
                return len(shown) < limit and counted < TALLY_MAX

            cursor = _scan(reader.goals, wanted, after, take)
            return shown, cursor

        return self._ctx.store.read(read)

    def changes(self, wanted: Mapping[str, object], *, after: str, limit: int) -> tuple[list[Change], str]:
        """Changes that fulfil the filter, newest first, and where the next page begins; empty at the end."""

        def read(reader: Reader) -> tuple[list[Change], str]:
            found: list[Change] = []

            def take(change: Change) -> bool:
                found.append(change)
                return len(found) < limit

            cursor = _scan(reader.changes, wanted, after, take)
            return found, cursor

        return self._ctx.store.read(read)

    async def cancel(self, goal_id: str, *, actor: str, reason: str, etag: str) -> Shown:
        """End a goal and all its tasks."""
        now = self._ctx.clock.now()
        return await self._write(
            lambda txn: steering.cancel(txn, goal_id, now, actor=actor, reason=reason, etag=etag), essential=True
        )

    async def pause(self, goal_id: str, *, actor: str) -> Shown:
        """Hold its waiting tasks back."""
        now = self._ctx.clock.now()
        return await self._write(lambda txn: steering.pause(txn, goal_id, now, actor=actor), essential=True)

    async def resume(self, goal_id: str, *, actor: str) -> Shown:
        """Let its tasks go on."""
        now = self._ctx.clock.now()
        return await self._write(lambda txn: steering.resume(txn, goal_id, now, actor=actor))

    async def watch(self, position: int, *, goal_id: str = "") -> AsyncGenerator[Told, None]:
        """Events of goals, their tasks and changes behind a position, for ever: of this goal; empty: of all.

        The goals come without their plans, which do not change. Raises NotFound for an unknown goal.
        """
        if goal_id:
            self._ctx.store.read(lambda reader: steering.found(reader, goal_id))

        def wanted(event: Event) -> bool:
            return event.goal == goal_id if goal_id else event.goal != ""

        async with contextlib.aclosing(self._ctx.bus.follow(position, wanted)) as batches:
            async for batch in batches:
                if not batch.events:
                    yield Told(batch.position)
                # Each goal is read once for the events of a batch, which are all in the past.
                now = {id: self._now(id) for id in {event.goal for event in batch.events}}
                for event in batch.events:
                    yield Told(event.position, event, now[event.goal])

    def start(self, asked: int) -> int:
        """Where a watch begins: 0 is now, -1 the beginning of the log."""
        return self._ctx.bus.position if asked == 0 else max(asked, 0)

    def _now(self, goal_id: str) -> Shown | None:
        def read(reader: Reader) -> Shown | None:
            goal = reader.goals.get(goal_id)
            return Shown(goal, goals.tally(reader, goal)) if goal is not None else None

        return self._ctx.store.read(read)

    async def _write(self, verb: Callable[[Txn], Goal], *, essential: bool = False) -> Shown:
        def write(txn: Txn) -> Shown:
            goal = verb(txn)
            return Shown(goal, goals.tally(txn, goal), txn.plans.get(goal.id))

        return await self._ctx.store.write(write, essential=essential)


def _scan(table: ReadTable[R], wanted: Mapping[str, object], after: str, take: Callable[[R], bool]) -> str:
    """Hand the records that fulfil the filter to `take`, newest first, until it wants no more; where to go on."""
    looked_at = 0
    while looked_at < SCAN_MAX:
        chunk = table.page(after=after, limit=CHUNK, reverse=True)
        for record in chunk:
            after = record.id
            if all(getattr(record, field) == value for field, value in wanted.items()) and not take(record):
                return after
        looked_at += len(chunk)
        if len(chunk) < CHUNK:
            return ""
    return after
