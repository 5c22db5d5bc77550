"""Strikes: faults at chosen awaits. Each seed arms a part of all awaits of the product, each for a suspension to come.

An await that a run passes three times would hardly ever be hit by faults that come every so many steps. So the dice of
a seed say for each await whether it is armed, from when on, and for which of its suspensions: the first ones are much
more likely than the later ones, for most awaits have only few. When a task is suspended there, one of the things is
done that can go wrong at that place: its process dies, its step comes late, its call or its wire is cut, the stream is
ended by a middle box, the store or the journal fails the very write that it waits for, or dies around its commit.
Some of them strike while the task waits, others when what it waits for has come and it does not know yet.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hub.store import front
from tests.sim import coverage, places
from tests.sim.chance import Dice
from tests.sim.journal import SimJournal
from tests.sim.process import LATE_S, Process
from tests.sim.server import CALL

if TYPE_CHECKING:
    from tests.sim.net import Call
    from tests.sim.world import World

NTH_MAX: Final = 200
"""The last suspension at an await that is ever struck."""

_STORE: Final = front.Front._put.__code__
_JOURNAL: Final = SimJournal.append.__code__

#: What can be done, and how often one is taken where others can be done, too. Deaths are rare: they hide what the
#: others would have shown.
WEIGHTS: Final = {
    "kill": 1,
    "late": 6,
    "lost": 4,
    "reset": 2,
    "ended": 2,
    "silent": 1,
    "refuse": 5,
    "fail": 2,
    "fail_but_done": 1,
    "crash_before": 1,
    "crash_after": 1,
    "journal_fail": 5,
}

#: They are done to what a task waits for, and so before it has come.
DOOMS: Final = frozenset({"refuse", "fail", "fail_but_done", "crash_before", "crash_after", "journal_fail"})

#: Where only the hub's process may die, nothing else goes wrong.
HUB_ONLY: Final = frozenset({"kill", "crash_before", "crash_after"})


class _Armed:
    """One await of a run."""

    __slots__ = ("from_s", "left")

    def __init__(self, from_s: float, left: int) -> None:
        self.from_s = from_s
        self.left = left


class _Where(NamedTuple):
    """A suspension that is struck."""

    place: str
    task: asyncio.Task[Any]
    process: Process
    call: Call | None
    waits_for: str
    """`store`, `journal`, or nothing of the two."""


class Strikes:
    """`loop.Hunter` of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice: Dice = world.dice("strikes")
        mix = world.mix
        self._kinds = {kind for kind in WEIGHTS if self._dice.random() < 0.6} | {"late"}
        if mix.hub_only:
            self._kinds &= HUB_ONLY
        self._armed: dict[str, _Armed] = {}
        for place in sorted(mix.hunted):
            self._armed[place] = _Armed(0.0, 1)
        for one in () if mix.hunted else coverage.awaits():
            rolls = [self._dice.random() for _ in range(5)]
            if rolls[0] < mix.armed:
                from_s = mix.chaos_s * rolls[1] if rolls[2] < 0.5 else 0.0
                highest = NTH_MAX if rolls[3] < 0.3 else 3
                self._armed[one.place] = _Armed(from_s, int(math.exp(rolls[4] * math.log(highest))))

    def start(self) -> None:
        """Lie in wait."""
        if self._armed and self._kinds:
            self._world.loop.hunter = self

    def waits(self, task: asyncio.Task[Any], owner: Any, context: Context) -> None:
        """A task is suspended: is one of the awaits that it is in to be struck?"""
        armed, hit, waits_for = self._armed, "", ""
        for place, code in places.places(task.get_coro()):
            one = armed.get(place)
            if one is not None and one.from_s <= self._world.loop.time():
                one.left -= 1
                if one.left <= 0 and not hit:
                    hit = place
            if code is _STORE:
                waits_for = "store"
        if not hit or not isinstance(owner, Process) or (self._world.mix.hub_only and owner.kind != "hub"):
            return
        if owner.kind == "agent" and _is_in(task, _JOURNAL):
            waits_for = "journal"
        self._strike(_Where(hit, task, owner, context.get(CALL), waits_for))

    def _strike(self, where: _Where) -> None:
        can = [kind for kind in _possible(where) if kind in self._kinds]
        if not can:
            return
        del self._armed[where.place]
        kind = self._dice.choices(can, [WEIGHTS[one] for one in can])[0]
        do: Callable[[_Where], float] = getattr(self, f"_{kind}")
        if kind == "late" or (kind not in DOOMS and self._dice.random() < 0.5):
            self._world.loop.marked[where.task.number] = lambda: self._do(kind, do, where)  # type: ignore[attr-defined]  # beyond what its protocol says
        else:
            self._do(kind, do, where)

    def _do(self, kind: str, do: Callable[[_Where], float], where: _Where) -> float:
        world = self._world
        if world.healed or where.process.dead:
            return 0.0
        world.tally.struck[where.place, kind] += 1
        world.fault(f"strike.{kind}", where.process.name, where.place)
        return do(where)

    # What is done. Each tells how late the step comes.

    def _kill(self, where: _Where) -> float:
        where.process.kill(where.place)
        return 0.0

    def _late(self, _where: _Where) -> float:
        return self._dice.choice(LATE_S)

    def _lost(self, where: _Where) -> float:
        assert where.call is not None
        where.call.lost()
        return 0.0

    def _reset(self, where: _Where) -> float:
        if where.call is not None:
            where.call.wire.reset("struck")
        for wire in self._world.net.of(where.process.name):
            wire.reset("struck")
        return 0.0

    def _ended(self, where: _Where) -> float:
        assert where.call is not None
        where.call.end_by_middle_box()
        return 0.0

    def _silent(self, where: _Where) -> float:
        wires = [where.call.wire] if where.call is not None else self._world.net.of(where.process.name)
        for wire in wires:
            ways = self._dice.choice(((True,), (False,), (True, False)))
            wire.fall_silent(ways, self._dice.choice((0.5, 8.0, 60.0)), keepalive=self._dice.random() < 0.5)
        return 0.0

    def _doom(self, where: _Where, how: str) -> float:
        from tests.sim.hub_side import HubProcess

        assert isinstance(where.process, HubProcess)
        where.process.disk_store.doom(where.task._fut_waiter, how)  # type: ignore[attr-defined]  # beyond what its protocol says
        return 0.0

    def _refuse(self, where: _Where) -> float:
        return self._doom(where, "refuse")

    def _fail(self, where: _Where) -> float:
        return self._doom(where, "commit.fail")

    def _fail_but_done(self, where: _Where) -> float:
        return self._doom(where, "commit.fail_but_done")

    def _crash_before(self, where: _Where) -> float:
        return self._doom(where, "commit.crash_before")

    def _crash_after(self, where: _Where) -> float:
        return self._doom(where, "commit.crash_after")

    def _journal_fail(self, where: _Where) -> float:
        from tests.sim.sidecar_side import SidecarProcess

        assert isinstance(where.process, SidecarProcess)
        where.process.journal.fail_next = True
        return 0.0


def _possible(where: _Where) -> list[str]:
    kinds = ["kill", "late"]
    if where.call is not None:
        kinds += ["lost", "reset", "silent"]
        if where.call.is_stream:
            kinds.append("ended")
    elif where.process.kind == "agent":
        kinds += ["reset", "silent"]
    if where.waits_for == "store":
        kinds += ["refuse", "fail", "fail_but_done", "crash_before", "crash_after"]
    if where.waits_for == "journal":
        kinds.append("journal_fail")
    return kinds


def _is_in(task: asyncio.Task[Any], code: Any) -> bool:
    return any(one is code for one, _ in places.codes(task.get_coro()))
