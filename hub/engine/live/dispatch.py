"""The dispatcher: gives waiting tasks to free slots, in as few transactions as can be.

Decisions are made on the event loop, from the seats (`fleet`) and from the hint of what waits (`waiting`); what is
decided there is only who *may* take how much, and where to look. Which task it is, is decided inside the transaction by
`take`, so that two who look at once never get the same one. There are three who take:

- a submit that finds a free slot and nothing older waiting reserves the slot (`reserve`) and assigns in its own commit;
- a report of an end frees a slot and takes the next task for it in its own commit (`prospects`);
- `run_once` does the rest: it is woken by whatever may have made an assignment possible, and by the sweep.

No assignment depends on a message to a sidecar: those follow from the events of the commit (`sessions`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from hub.core import lane, match
from hub.core.event import Event
from hub.core.task import Requirement, Task
from hub.engine.live.context import Context
from hub.engine.live.fleet import Fleet, Moves, Seat
from hub.engine.live.waiting import Look, Waiting
from hub.engine.script import queue
from hub.store.base import ReadyHead, Txn
from kit import errors, logs

log = logs.get(__name__)

SEATS_MAX: Final = 64
"""Seats served by one transaction of `run_once`; the next follows at once."""

BATCH_MAX: Final = 128
"""Tasks assigned in one transaction: a few milliseconds of the writer, which others wait for."""

LOOKAHEAD: Final = 16
"""How far behind a head that refuses its agents one looks for another: it must not hold up those behind it."""

PATIENCE_S: Final = 60.0
"""How long a task waits for an agent that has not refused it while another that fits is available but busy."""

_WAKES: Final = frozenset(
    {
        "hub.resumed",
        "repo.resumed",
        "repo.deleted",
        "agent.resumed",
        "agent.draining",
        "agent.deleted",
        "agent.isolated",
    }
)


class Plan(NamedTuple):
    """Who may take how much, and where to look; decided on the event loop, carried out in a transaction."""

    idle: tuple[match.Idle, ...]
    looks: tuple[Look, ...]
    impatient: frozenset[str] = frozenset()
    """Tasks that go to an agent that has refused them, because no other fits."""


class Taken(NamedTuple):
    """What a transaction has assigned, and what it saw."""

    placed: tuple[queue.Placed, ...]
    refused: tuple[Refused, ...]
    looked: tuple[tuple[int, float | None], ...]
    """Classes and a lower bound for the rank of what is left in them; None: nothing was there."""


class Refused(NamedTuple):
    """A task that was kept back because all who were asked have refused it before."""

    task: str
    class_id: int
    refused_by: tuple[str, ...]


NOTHING: Final = Taken((), (), ())


def take(txn: Txn, plan: Plan, now: float, age_step_s: float) -> Taken:
    """Assign the best waiting tasks to the idle agents of the plan."""
    if txn.meta("paused") == b"1":
        return NOTHING
    slots = min(sum(idle.slots for idle in plan.idle), BATCH_MAX)
    looks = [look for look in plan.looks if not _paused(txn, look.repo)]
    for depth in (slots, slots + LOOKAHEAD):
        heads = _heads(txn, looks, depth, age_step_s)
        tasks = {head.task: task for _, head in heads[:depth] if (task := txn.task(head.task)) is not None}
        found = match.match(plan.idle, [_waiting(tasks[head.task], rank, plan, now) for rank, head in heads[:depth]])
        if not found.refused or len(found.pairs) >= slots:
            break
    placed = tuple([_place(txn, tasks[pair.task], pair.agent, now) for pair in found.pairs])
    refused = tuple([Refused(one.task, one.class_id, one.refused_by) for one in found.refused])
    best: dict[int, float | None] = {look.class_id: None for look in looks}
    for rank, head in reversed(heads):
        best[head.class_id] = rank
    for class_id, lane_ in {(one.task.class_id, one.task.lane) for one in placed}:
        # A class that is empty now must be known as empty, or the next submit would not dare to take a free slot.
        if not txn.ready(class_id, lane_, limit=1) and not txn.ready_heads(class_id):
            best[class_id] = None
    return Taken(placed, refused, tuple(best.items()))


def _heads(txn: Txn, looks: Iterable[Look], depth: int, age_step_s: float) -> list[tuple[float, ReadyHead]]:
    """Waiting tasks of these classes in the order of their ranks: the best `depth` of all are among them."""
    found: list[tuple[float, ReadyHead]] = []
    for look in looks:
        for head in txn.ready_heads(look.class_id):
            line = [head] if depth == 1 else txn.ready(look.class_id, head.lane, limit=depth)
            found += [(lane.rank(one.lane, one.queued_at, age_step_s), one) for one in line]
    found.sort(key=lambda pair: (pair[0], pair[1].task))
    return found


def _waiting(task: Task, rank: float, plan: Plan, now: float) -> match.Waiting:
    patient = bool(task.refused_by) and task.id not in plan.impatient and now - task.updated_at < PATIENCE_S
    return match.Waiting(task.id, task.class_id, rank, task.refused_by, patient)


def _place(txn: Txn, task: Task, agent: str, now: float) -> queue.Placed:
    spec = txn.spec(task.id)
    assert spec is not None, task.id
    return queue.place(txn, task, spec, agent, now)


def _paused(txn: Txn, repo: str) -> bool:
    if not repo:
        return False
    record = txn.repos.get(repo)
    return record is not None and record.paused


class Dispatcher:
    """Matches free slots with waiting tasks."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.fleet = Fleet(ctx)
        self.waiting = Waiting(ctx, self.fleet)
        #: Set by whatever may have made an assignment possible; the loop that runs `run_once` waits for it.
        self.wake = asyncio.Event()
        #: The store refuses assignments; until `run_once` gets through again, reports take no next task either.
        self._full = False
        ctx.bus.listen(self._committed)
        self.fleet.follow(self._moved)
        self.fleet.load()
        self.waiting.load()

    def reserve(self, requirement: Requirement) -> str:
        """A free slot for a new task: its agent, to be given back with `release`; empty: there is none, or others wait.

        The least recently used of the agents that fit. It is not given while something older may wait for that slot.
        """
        if not self._ctx.gate.open or self.waiting.paused(requirement.repo):
            return ""
        seat = self._idle_for(requirement)
        if seat is None:
            return ""
        self.fleet.reserve(seat)
        return seat.agent

    def release(self, agent: str) -> None:
        """Give a reservation back, after its transaction has ended either way. Empty: nothing happens."""
        seat = self.fleet.get(agent) if agent else None
        if seat is not None and seat.reserved:
            self.fleet.release(seat)
            self._nudge(seat)

    def prospects(self, seat: Seat, freed: int) -> Plan | None:
        """A plan for the slots that a report is about to free; None when nothing waits for them."""
        now = self._ctx.clock.now()
        if self._full or not self._ctx.gate.open or not seat.available(now):
            return None
        room = min(freed, seat.profile.offer.slots - seat.used + freed)
        looks = self.waiting.for_seat(seat) if room > 0 and self.waiting.is_work_for(seat) else []
        if not looks:
            return None
        return Plan((match.Idle(seat.agent, room, frozenset(look.class_id for look in looks)),), tuple(looks))

    def settle(self, taken: Taken) -> None:
        """Learn from what a transaction saw; every `take` ends with it, after the commit."""
        for class_id, rank in taken.looked:
            self.waiting.looked(class_id, rank)

    async def run_once(self, now: float) -> int:
        """Assign what can be assigned now; how many tasks. Repeats itself as long as it gets anywhere."""
        count = 0
        self.fleet.refresh(now)
        while plan := self._plan(now):
            taken = await self._carry_out(plan, now)
            forced = self._impatient(taken.refused, now)
            if forced:
                again = await self._carry_out(plan._replace(impatient=forced), now)
                taken = taken._replace(placed=taken.placed + again.placed)
            count += len(taken.placed)
            if not taken.placed:
                break
        return count

    async def _carry_out(self, plan: Plan, now: float) -> Taken:
        age_step_s = self._ctx.settings.age_step_s
        seats = [(self.fleet.seat(idle.agent), idle.slots) for idle in plan.idle]
        for seat, slots in seats:
            self.fleet.reserve(seat, slots)
        try:
            # Not essential: a store that is nearly full keeps its reserve for the reports of what runs already.
            taken = await self._ctx.store.write(lambda txn: take(txn, plan, now, age_step_s))
        except errors.Exhausted as problem:
            self._full = True
            log.warning("dispatch.held_back", reason=problem.reason, message=problem.message)
            return NOTHING
        finally:
            for seat, slots in seats:
                self.fleet.release(seat, slots)
        self._full = False
        self.settle(taken)
        return taken

    def _plan(self, now: float) -> Plan | None:
        if not self._ctx.gate.open:
            return None
        idle, looks = [], set()
        for seat in self._idle_seats():
            classes = self.waiting.for_seat(seat)
            slots = min(seat.free(now), BATCH_MAX)
            if classes and slots:
                idle.append(match.Idle(seat.agent, slots, frozenset(look.class_id for look in classes)))
                looks.update(classes)
            if len(idle) >= SEATS_MAX:
                break
        return Plan(tuple(idle), tuple(looks)) if idle else None

    def _idle_seats(self) -> list[Seat]:
        """Seats with a free slot that may find work, least recently used first; some more than are served at once."""
        seats = {
            seat.agent: seat
            for profile in self.fleet.profiles()
            if profile.waiting
            for seat in itertools.islice(profile.idle.values(), 2 * SEATS_MAX)
        }
        for agent in self.waiting.pinned():
            seat = self.fleet.get(agent)
            if seat is not None and agent in seat.profile.idle:
                seats[agent] = seat
        return sorted(seats.values(), key=lambda seat: seat.tick)

    def _idle_for(self, requirement: Requirement) -> Seat | None:
        if requirement.agent:
            seat = self.fleet.get(requirement.agent)
            if seat is None or seat.agent not in seat.profile.idle or not seat.profile.serves(requirement):
                return None
            return None if self.waiting.is_work_for(seat) else seat
        best: Seat | None = None
        for profile in self.fleet.profiles():
            if not profile.idle or not profile.serves(requirement):
                continue
            seat = next(iter(profile.idle.values()))
            if (best is None or seat.tick < best.tick) and not self.waiting.is_work_for(seat):
                best = seat
        if best is not None and best.free(self._ctx.clock.now()) < 1:  # an isolation that has begun or passed meanwhile
            self.fleet.touch(best)
            return None
        return best

    def _impatient(self, refused: Iterable[Refused], now: float) -> frozenset[str]:
        """Those for whom no agent is available that fits and has not refused them."""
        return frozenset(one.task for one in refused if not self._has_other(one, now))

    def _has_other(self, one: Refused, now: float) -> bool:
        requirement = self._ctx.store.read(lambda reader: reader.task_class(one.class_id))
        assert requirement is not None
        wanted = requirement.requirement
        return any(
            seat.agent not in one.refused_by
            and wanted.agent in ("", seat.agent)
            and seat.available(now)
            and seat.profile.serves(wanted)
            for seat in self.fleet
        )

    def _nudge(self, seat: Seat) -> None:
        if seat.agent in seat.profile.idle and (seat.profile.waiting or self.waiting.is_work_for(seat)):
            self.wake.set()

    def _moved(self, moves: Moves) -> None:
        for ended in moves.ended:
            seat = self.fleet.get(ended.agent)
            if seat is not None:
                self._nudge(seat)

    def _committed(self, events: Sequence[Event]) -> None:
        if not self.wake.is_set() and any("class" in event.fields or event.type in _WAKES for event in events):
            self.wake.set()
