"""Which classes of the ready index have waiting tasks: a hint in memory, so that dispatch looks only where work is.

A class comes in when a commit queues a task of it (the events say so), and goes out when a look finds it empty. A class
that is in without need costs one look; one that is out although a task waits would be a lost wake-up, so going out is
checked against the store on the event loop, and the sweep goes through all classes in turn. For each class there is a
lower bound for the rank of its best task, which matters only when an agent can serve more classes than are looked at at
once.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from hub.core import match
from hub.core.event import Event
from hub.core.task import Requirement
from hub.engine.live.context import Context
from hub.engine.live.fleet import Fleet, Profile, Seat

LOOK_MAX: Final = 64
"""Classes looked at in one transaction: about a millisecond. The best ones, so that the others lose nothing."""

CHECK_MAX: Final = 500
"""Classes that one sweep checks: about five milliseconds of the event loop."""


class Look(NamedTuple):
    """A class to look at."""

    class_id: int
    repo: str


class Waiting:
    """The classes that may have waiting tasks."""

    def __init__(self, ctx: Context, fleet: Fleet) -> None:
        self._ctx = ctx
        self._fleet = fleet
        self._ranks: dict[int, float] = {}
        self._requirements: dict[int, Requirement] = {}
        self._pinned: dict[str, set[int]] = {}
        self._paused: set[str] = set()
        self._check_from = 0
        fleet.on_profile = self._new_profile
        ctx.bus.listen(self._committed)

    def load(self) -> None:
        """Find out from the store what waits, and which repos are paused; once, at the start."""
        repos = self._ctx.store.read(lambda reader: reader.repos.page(limit=1_000_000))
        self._paused = {repo.id for repo in repos if repo.paused}
        for found in self._ctx.store.read(lambda reader: reader.classes()):
            self._check(found.id)

    def check(self) -> None:
        """Compare the next classes with the store; the sweep's part."""
        classes = self._ctx.store.read(lambda reader: reader.classes())
        for found in classes[self._check_from : self._check_from + CHECK_MAX]:
            self._check(found.id)
        self._check_from = self._check_from + CHECK_MAX if self._check_from + CHECK_MAX < len(classes) else 0

    def drop_idle(self, classes: Iterable[int]) -> None:
        """Let go of those of these classes that nothing waits in: their numbers may become those of others."""
        for class_id in classes:
            if class_id in self._ranks:
                self._check(class_id)

    def for_seat(self, seat: Seat) -> list[Look]:
        """The classes that a seat may find work in, the best ones first where there are more than are looked at."""
        ids = seat.profile.waiting | self._pinned_for(seat)
        looks = [Look(id, self._requirements[id].repo) for id in ids]
        looks = [look for look in looks if look.repo not in self._paused]
        if len(looks) > LOOK_MAX:
            looks = heapq.nsmallest(LOOK_MAX, looks, key=lambda look: self._ranks[look.class_id])
        return looks

    def is_work_for(self, seat: Seat) -> bool:
        """May there be something waiting that this seat could do?"""
        if not seat.profile.waiting and seat.agent not in self._pinned:
            return False
        return bool(self.for_seat(seat))

    def pinned(self) -> list[str]:
        """Agents for whom something waits that only they may have."""
        return list(self._pinned)

    def paused(self, repo: str) -> bool:
        """Is nothing of this repo assigned now?"""
        return repo in self._paused

    def looked(self, class_id: int, rank: float | None) -> None:
        """A transaction looked at a class: its best task left had this rank at least; None: it found nothing."""
        if class_id not in self._ranks:
            return
        if rank is None:
            self._check(class_id)
        else:
            self._ranks[class_id] = max(self._ranks[class_id], rank)

    def _check(self, class_id: int) -> None:
        heads = self._ctx.store.read(lambda reader: reader.ready_heads(class_id))
        if heads:
            self._enter(class_id, -math.inf)
        else:
            self._leave(class_id)

    def _enter(self, class_id: int, rank: float) -> None:
        known = self._ranks.get(class_id)
        if known is not None:
            self._ranks[class_id] = min(known, rank)
            return
        found = self._ctx.store.read(lambda reader: reader.task_class(class_id))
        assert found is not None, class_id
        self._ranks[class_id] = rank
        self._requirements[class_id] = found.requirement
        if found.requirement.agent:
            self._pinned.setdefault(found.requirement.agent, set()).add(class_id)
            return
        for profile in self._fleet.profiles():
            if profile.serves(found.requirement):
                profile.waiting.add(class_id)

    def _leave(self, class_id: int) -> None:
        if self._ranks.pop(class_id, None) is None:
            return
        requirement = self._requirements.pop(class_id)
        if requirement.agent:
            mine = self._pinned[requirement.agent]
            mine.discard(class_id)
            if not mine:
                del self._pinned[requirement.agent]
            return
        for profile in self._fleet.profiles():
            profile.waiting.discard(class_id)

    def _pinned_for(self, seat: Seat) -> set[int]:
        mine = self._pinned.get(seat.agent)
        if not mine:
            return set()
        return {id for id in mine if match.fits(self._requirements[id], seat.agent, seat.profile.offer)}

    def _new_profile(self, profile: Profile) -> None:
        profile.waiting = {
            id
            for id, requirement in self._requirements.items()
            if not requirement.agent and profile.serves(requirement)
        }

    def _committed(self, events: Sequence[Event]) -> None:
        for event in events:
            found = event.fields.get("class")
            if found is not None:
                # What is queued afresh ranks behind this moment; what was released keeps its place, wherever that is.
                self._enter(int(found), -math.inf if event.type == "task.released" else event.at)
            elif event.type in ("repo.paused", "repo.resumed", "repo.created", "repo.deleted"):
                repo = event.subject.removeprefix("repos/")
                if event.type == "repo.paused":
                    self._paused.add(repo)
                else:
                    self._paused.discard(repo)
