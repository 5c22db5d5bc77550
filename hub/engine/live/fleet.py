"""The fleet in memory: a seat for each agent, with what it offers, what it holds, and how many slots are free.

What a seat holds is never counted up and down by those who assign and report. It follows the event log: a committed
`task.assigned` puts a holding on the seat, and the next event that takes the task away from the agent removes it,
whoever caused it. So there is one path, in the order of the commits, and a slot cannot leak. On top of that come
reservations: slots that a transaction under way may use, given back by whoever took them, when its transaction has
ended either way.

Seats with equal offers share a profile, because what a profile can serve is worked out once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hub.core import agent_state, match
from hub.core.agent import Agent, Offer
from hub.core.event import Event
from hub.core.holding import Holding
from hub.core.task import Requirement, State
from hub.engine.live.context import Context

MEMO_MAX: Final = 10_000
"""Requirements remembered for each profile; submitters choose them, so the memory is emptied when it is full."""

AGENTS_PAGE: Final = 500
"""Agent records read at once at the start."""

_STAYS: Final = frozenset({"task.accepted", "task.fenced", "task.refunded", "task.stuck"})
"""Events of a held task after which it is still held."""

_REREAD: Final = frozenset({"agent.enrolled", "agent.draining", "agent.resumed", "agent.isolated"})


class Profile:
    """Everything that follows from an offer alone."""

    __slots__ = ("_memo", "idle", "offer", "seats", "waiting")

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.seats = 0
        #: Seats with a free slot, least recently used first.
        self.idle: dict[str, Seat] = {}
        #: Classes with waiting tasks that this offer can serve, whoever has it; kept by the dispatcher.
        self.waiting: set[int] = set()
        self._memo: dict[Requirement, bool] = {}

    def serves(self, requirement: Requirement) -> bool:
        """Does the offer meet the requirement, but for the agent that it may name?"""
        known = self._memo.get(requirement)
        if known is None:
            if len(self._memo) >= MEMO_MAX:
                self._memo.clear()
            known = match.fits(requirement, requirement.agent, self.offer)
            self._memo[requirement] = known
        return known


@dataclass(slots=True)
class Held:
    """A holding of a seat."""

    generation: int
    accepted: bool = False
    claimed: bool = False
    """Held by hand: it fills no slot, and no session knows it."""


@dataclass(slots=True, eq=False)
class Seat:
    """One agent."""

    agent: str
    profile: Profile
    online: bool = False
    #: Its self-test fails, or it has none yet.
    blocked: bool = True
    #: Its sidecar said that it takes nothing new.
    leaving: bool = False
    #: DrainAgent said so.
    draining: bool = False
    isolated_until: float | None = None
    #: It was silent, or took nothing in: until it has shown that it hears, it is offered nothing.
    in_doubt: bool = False
    holdings: dict[str, Held] = field(default_factory=dict)
    reserved: int = 0
    #: Grows with each use: the smallest is the least recently used.
    tick: int = 0

    @property
    def used(self) -> int:
        """Slots that are taken or reserved."""
        return self.reserved + sum(not held.claimed for held in self.holdings.values())

    def available(self, now: float) -> bool:
        """May it be given work, slots aside?"""
        able = self.online and not (self.blocked or self.in_doubt or self.leaving or self.draining)
        return able and not self.isolated(now)

    def isolated(self, now: float) -> bool:
        """Did it fail too often in a row a while ago?"""
        return self.isolated_until is not None and now < self.isolated_until

    def free(self, now: float) -> int:
        """How many tasks it may be given now."""
        return max(0, self.profile.offer.slots - self.used) if self.available(now) else 0

    def facts(self, now: float) -> agent_state.Facts:
        """What its state is derived from."""
        working = sum(held.accepted for held in self.holdings.values() if not held.claimed)
        offered = sum(not held.accepted for held in self.holdings.values())
        return agent_state.Facts(
            online=self.online,
            assigned=offered,
            working=working,
            blocked=self.blocked or self.in_doubt,
            draining=self.draining or self.leaving,
            isolated=self.isolated(now),
        )


class Placed(NamedTuple):
    """A holding that a commit has put on a seat."""

    agent: str
    holding: Holding


class Ended(NamedTuple):
    """A holding that a commit has taken off a seat."""

    agent: str
    holding: Holding
    revoke: str
    """Why its agent must be told to stop; empty: it need not be."""


class Moves(NamedTuple):
    """What a commit did to the seats."""

    placed: list[Placed]
    ended: list[Ended]


class Fleet:
    """All seats."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._seats: dict[str, Seat] = {}
        self._profiles: dict[Offer, Profile] = {}
        self._holders: dict[str, Seat] = {}
        self._isolated: set[str] = set()
        self._tick = 0
        self._followers: list[Callable[[Moves], None]] = []
        #: Called with each new profile, before it is used.
        self.on_profile: Callable[[Profile], None] = lambda _profile: None
        ctx.bus.listen(self._committed)

    def load(self) -> None:
        """Read who there is and who holds what; once, at the start."""
        page = self._page("")
        while page:
            for agent in page:
                self._known(agent)
                self.recount(agent.id)
            page = self._page(page[-1].id)

    def follow(self, follower: Callable[[Moves], None]) -> None:
        """Call `follower` after each commit that moved holdings."""
        self._followers.append(follower)

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats.values())

    def get(self, agent: str) -> Seat | None:
        """The seat of an agent; None when nothing was heard of it since the start."""
        return self._seats.get(agent)

    def seat(self, agent: str) -> Seat:
        """The seat of an agent, made when it is new."""
        found = self._seats.get(agent)
        if found is None:
            found = self._seats[agent] = Seat(agent, self._profile(Offer(slots=0)))
        return found

    def profiles(self) -> Iterator[Profile]:
        """The offers that there are."""
        return iter(self._profiles.values())

    def holder(self, task: str) -> Seat | None:
        """Who holds a task."""
        return self._holders.get(task)

    def attach(self, agent: Agent, offer: Offer) -> Seat:
        """An agent is online, with this offer.

        Its record is read again: it may have been drained or isolated in the very commit of its hello, and the news of
        that came before whoever waited for the hello goes on.
        """
        seat = self._known(self._ctx.store.read(lambda reader: reader.agents.get(agent.id)) or agent)
        if seat.profile.offer != offer:
            seat.profile.idle.pop(seat.agent, None)
            self._leave(seat.profile)
            seat.profile = self._profile(offer)
        seat.online = True
        self.touch(seat)
        return seat

    def detach(self, agent: str) -> None:
        """An agent is not online any more; what it holds stays."""
        seat = self._seats.get(agent)
        if seat is not None:
            seat.online = False
            seat.blocked = True  # until its next self-test
            self.touch(seat)

    def touch(self, seat: Seat) -> None:
        """Something about a seat has changed: is it idle now?"""
        if seat.free(self._ctx.clock.now()) > 0:
            seat.profile.idle.setdefault(seat.agent, seat)
        else:
            seat.profile.idle.pop(seat.agent, None)

    def reserve(self, seat: Seat, slots: int = 1) -> None:
        """Set slots aside for a transaction; `release` gives them back, whatever has become of it."""
        seat.reserved += slots
        self._used(seat)

    def release(self, seat: Seat, slots: int = 1) -> None:
        """The transaction has ended: what it assigned is a holding by now."""
        seat.reserved -= slots
        assert seat.reserved >= 0, seat.agent
        self.touch(seat)

    def refresh(self, now: float) -> None:
        """See whose isolation has passed: no event tells of that."""
        for agent in list(self._isolated):
            seat = self._seats.get(agent)
            if seat is None or not seat.isolated(now):
                self._isolated.discard(agent)
                if seat is not None:
                    self.touch(seat)

    def next_due(self) -> float | None:
        """When the next isolation passes; None when nobody is isolated."""
        seats = [self._seats[agent] for agent in self._isolated if agent in self._seats]
        return min((seat.isolated_until for seat in seats if seat.isolated_until is not None), default=None)

    def recount(self, agent: str) -> None:
        """Read again what an agent holds: the truth is in the store.

        Not while a commit is on its way from the store to here: its events would find the seat as they leave it, and
        nobody would be told what moved. They bring the seat up to date themselves.
        """
        seat = self.seat(agent)
        position, held = self._ctx.store.read(lambda reader: (reader.position(), reader.held_by(agent)))
        if position != self._ctx.bus.position:
            return
        for task in seat.holdings.keys() - {task.id for task in held}:
            del seat.holdings[task]
            if self._holders.get(task) is seat:
                del self._holders[task]
        for record in held:
            self._holders[record.id] = seat
            seat.holdings[record.id] = Held(record.generation, record.state is State.RUNNING, record.claimed)
        self.touch(seat)

    def _page(self, after: str) -> list[Agent]:
        return self._ctx.store.read(lambda reader: reader.agents.page(after=after, limit=AGENTS_PAGE))

    def _known(self, agent: Agent) -> Seat:
        seat = self.seat(agent.id)
        seat.draining = agent.draining
        seat.isolated_until = agent.isolated_until
        if seat.isolated(self._ctx.clock.now()):
            self._isolated.add(agent.id)
        return seat

    def _profile(self, offer: Offer) -> Profile:
        profile = self._profiles.get(offer)
        if profile is None:
            profile = self._profiles[offer] = Profile(offer)
            self.on_profile(profile)
        profile.seats += 1
        return profile

    def _leave(self, profile: Profile) -> None:
        profile.seats -= 1
        if not profile.seats:
            del self._profiles[profile.offer]

    def _used(self, seat: Seat) -> None:
        """It goes to the end of the line."""
        self._tick += 1
        seat.tick = self._tick
        seat.profile.idle.pop(seat.agent, None)
        self.touch(seat)

    def _committed(self, events: Sequence[Event]) -> None:
        placed: dict[str, Placed] = {}
        ended: list[Ended] = []
        for event in events:
            kind, _, id = event.subject.partition("/")
            if kind == "tasks":
                self._task(event, id, placed, ended)
            elif kind == "agents":
                self._agent(event, id)
        if placed or ended:
            moves = Moves(list(placed.values()), ended)
            for follower in self._followers:
                follower(moves)

    def _task(self, event: Event, id: str, placed: dict[str, Placed], ended: list[Ended]) -> None:
        if event.type == "task.assigned":
            self._place(event, id, placed)
            return
        seat = self._holders.get(id)
        if seat is None:
            return
        held = seat.holdings[id]
        if event.type == "task.accepted":
            held.accepted = True
            if "claimed_by" in event.fields:
                held.claimed = True
                placed.pop(id, None)
                self.touch(seat)
        elif event.type not in _STAYS:
            del self._holders[id]
            del seat.holdings[id]
            self.touch(seat)
            if placed.pop(id, None) is None and not held.claimed:
                revoke = event.fields.get("revoke", "")
                ended.append(Ended(seat.agent, Holding(id, held.generation), revoke))

    def _place(self, event: Event, id: str, placed: dict[str, Placed]) -> None:
        agent, generation = event.fields["agent"], int(event.fields["generation"])
        seat = self.seat(agent)
        seat.holdings[id] = Held(generation)
        self._holders[id] = seat
        self._used(seat)
        placed[id] = Placed(agent, Holding(id, generation))

    def _agent(self, event: Event, id: str) -> None:
        if event.type in _REREAD:
            agent = self._ctx.store.read(lambda reader: reader.agents.get(id))
            if agent is not None:
                self.touch(self._known(agent))
        elif event.type == "agent.deleted":
            seat = self._seats.pop(id, None)
            if seat is not None:
                seat.online = False  # a transaction under way may still give a reservation back
                seat.profile.idle.pop(id, None)
                self._leave(seat.profile)
