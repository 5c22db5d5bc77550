"""How the work goes, for the rules of the alerts: counted from committed events, and read when the board looks.

Nothing here is asked of the store task by task. The depth of the queue is a count that the store keeps, its oldest task
is at the head of a class, agents are seats in memory; what ended is counted as it passes by. Only what may tell of a
default branch (a red base, a merge, a goal's end) is read from its records, and then at the next look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hub.core import proof
from hub.core.alerts import mainline, window
from hub.core.alerts.alert import Alert
from hub.core.alerts.facts import Offline, Red, Work
from hub.core.event import Event
from hub.core.repo import Repo
from hub.core.task import Expectation, Kind, Phase, Receipt, State, Task, Verdict
from hub.engine.live.context import Context
from hub.engine.live.fleet import Fleet
from hub.engine.live.sessions import Sessions
from hub.store.base import Reader
from kit import errors, logs

log = logs.get(__name__)

RATE_WINDOW_S: Final = 1_800.0
"""Of the failure rate, as its rule says."""
GROWTH_WINDOW_S: Final = 900.0
"""Of the growth of the queue, as its rule says."""
TAKEN_BACK_S: Final = 900.0
"""How long an attempt that was taken back for want of progress counts as stuck, as the rule says."""

TAKEN_BACK_MAX: Final = 1_000
"""Attempts taken back that are remembered; a thousand say the same as all."""
TO_READ_MAX: Final = 500
"""Events between two looks whose records are read: about 50 ms of reading. Beyond it the oldest are left out."""
AGENTS_PAGE: Final = 500
CLASSES_MAX: Final = 512
"""Classes whose heads are looked at for the oldest queued task, as for GetStats: a few milliseconds."""

_LOST: Final = frozenset({"LEASE_EXPIRED", "STUCK"})
"""Reasons of a holding that came back without a report: the attempt failed, too."""


class Watch:
    """Watches the work of one hub, from its creation on."""

    def __init__(self, ctx: Context, fleet: Fleet, sessions: Sessions, *, soon: Callable[[], None]) -> None:
        """`soon` is called when something has happened that a look should see before its time."""
        self._ctx = ctx
        self._fleet = fleet
        self._sessions = sessions
        self._soon = soon
        self._started_at = ctx.clock.now()
        self._rate = window.Rate(RATE_WINDOW_S)
        self._trail = window.Trail(GROWTH_WINDOW_S)
        self._main = mainline.Mainline()
        #: Taken back for want of progress: when, by task; the oldest first.
        self._taken_back: dict[str, float] = {}
        #: Agents that were online at any time.
        self._known: set[str] = set()
        #: Those of them that are offline.
        self._offline: dict[str, Offline] = {}
        #: Refused for their version, with what they were told.
        self._refused: dict[str, str] = {}
        self._to_read: deque[Event] = deque(maxlen=TO_READ_MAX)
        self._duties: dict[str, Callable[[Event], None]] = {
            "task.succeeded": self._ended,
            "task.pushed": self._ended,
            "task.failed": self._failed,
            "task.released": self._released,
            "task.scheduled": self._released,
            "change.merged": self._note,
            "change.returned": self._note,
            "goal.succeeded": self._note,
            "goal.failed": self._note,
            "repo.updated": self._repo_changed,
            "repo.deleted": self._repo_changed,
            "agent.attached": self._attached,
            "agent.detached": self._detached,
            "agent.refused": self._was_refused,
            "agent.isolated": lambda _event: self._soon(),
            "agent.resumed": lambda _event: self._soon(),
            "agent.draining": lambda _event: self._soon(),
            "agent.deleted": self._deleted,
        }

    def start(self, raised: Iterable[Alert]) -> None:
        """Read who there is, and take over what is known of the alerts that are raised; once, before the first look."""
        page = self._agents("")
        while page:
            self._known.update(agent for agent, was_here in page if was_here)
            page = self._agents(page[-1][0])
        self._offline = {agent: Offline(agent, self._started_at, at_least=True) for agent in self._known}
        for one in raised:
            id = one.subject.partition("/")[2]
            if one.rule == "main-red" and id:
                self._main.failed(id, self._started_at, "")
            if one.rule == "agent-refused" and id:
                self._refused[id] = one.message.partition(": ")[2]
            if one.rule == "agent-offline" and id in self._known:
                self._offline[id] = Offline(id, one.since, at_least=True)
        self._ctx.bus.listen(self._committed)

    def work(self, now: float) -> Work | None:
        """As of now; None when the store cannot be read."""
        try:
            queued, oldest_at = self._ctx.store.read(_queue)
            self._ctx.store.read(self._read)
        except errors.Problem as problem:
            log.warning("alerts.blind", problem=problem.message)
            return None
        sums, growth = self._rate.sums(now), self._trail.look(now, queued)
        online, absent = self._look_at_agents(now), self._absent()
        return Work(
            paused=self._ctx.gate.paused,
            queued=queued,
            growth=growth,
            oldest_s=None if oldest_at is None else max(0.0, now - oldest_at),
            stuck=self._stuck(now),
            ended=sums.ended,
            failed=sums.failed,
            window_full=now - self._started_at >= RATE_WINDOW_S,
            agents=online + len(absent),
            online=online,
            offline=absent,
            isolated=[seat.agent for seat in self._fleet if seat.isolated(now)],
            red=[Red(repo, why) for repo, why in self._main.red(now)],
            refused=tuple(self._refused.items()),
        )

    # Agents

    def _look_at_agents(self, now: float) -> int:
        """Note who is offline as of this look; how many are online."""
        online = 0
        for seat in self._fleet:
            if seat.online:
                online += 1
                self._known.add(seat.agent)
                self._offline.pop(seat.agent, None)
            elif seat.agent in self._known:
                self._offline.setdefault(seat.agent, Offline(seat.agent, now))
        return online

    def _absent(self) -> Sequence[Offline]:
        """Who is offline and not drained: a drained one is to be away."""
        found = []
        for one in self._offline.values():
            seat = self._fleet.get(one.agent)
            if seat is not None and not seat.draining:
                found.append(one)
        return found

    def _agents(self, after: str) -> list[tuple[str, bool]]:
        page = self._ctx.store.read(lambda reader: reader.agents.page(after=after, limit=AGENTS_PAGE))
        return [(agent.id, agent.last_seen_at is not None) for agent in page]

    def _stuck(self, now: float) -> Sequence[str]:
        for task, at in list(self._taken_back.items()):
            if 0 <= now - at < TAKEN_BACK_S:
                break
            del self._taken_back[task]
        still = [
            holding.task
            for session in self._sessions
            for holding, told in session.told.items()
            if told.stuck and holding.task in session.seat.holdings
        ]
        return [*still, *(task for task in self._taken_back if task not in still)]

    # What a commit tells

    def _committed(self, events: Sequence[Event]) -> None:
        duties = self._duties
        for event in events:
            duty = duties.get(event.type)
            if duty is not None:
                duty(event)

    def _ended(self, event: Event) -> None:
        """An attempt was completed; a task that succeeds by the merge of its change ends no attempt."""
        if "agent" not in event.fields:
            return
        self._rate.add(event.at, failed=False)
        if self._taken_back:
            self._taken_back.pop(event.subject.partition("/")[2], None)
        if self._main:
            self._note(event)

    def _failed(self, event: Event) -> None:
        self._rate.add(event.at, failed=True)
        if event.fields.get("reason") == "BASE_RED" or self._main:
            self._note(event)

    def _released(self, event: Event) -> None:
        reason = event.fields.get("reason")
        if reason not in _LOST:
            return
        self._rate.add(event.at, failed=True)
        if reason == "STUCK":
            task = event.subject.partition("/")[2]
            self._taken_back.pop(task, None)
            self._taken_back[task] = event.at
            if len(self._taken_back) > TAKEN_BACK_MAX:
                del self._taken_back[next(iter(self._taken_back))]
            self._soon()

    def _repo_changed(self, event: Event) -> None:
        self._main.well(event.subject.partition("/")[2])
        self._soon()

    def _attached(self, event: Event) -> None:
        agent = event.subject.partition("/")[2]
        self._known.add(agent)
        self._offline.pop(agent, None)
        self._refused.pop(agent, None)
        self._soon()

    def _was_refused(self, event: Event) -> None:
        agent = event.subject.partition("/")[2]
        seat = self._fleet.get(agent)
        if seat is None or not seat.online:  # else another sidecar of this name works
            self._refused[agent] = event.fields.get("message", "")
            self._soon()

    def _detached(self, event: Event) -> None:
        agent = event.subject.partition("/")[2]
        # It may be back already, for this is written down a while after it: then the next look forgets it.
        self._offline[agent] = Offline(agent, event.at, event.fields.get("how", ""))
        self._soon()

    def _deleted(self, event: Event) -> None:
        agent = event.subject.partition("/")[2]
        self._known.discard(agent)
        self._offline.pop(agent, None)
        self._refused.pop(agent, None)
        self._soon()

    # What tells of a default branch

    def _note(self, event: Event) -> None:
        """Have its records read at the next look, which is soon: few events tell of a default branch."""
        self._to_read.append(event)
        self._soon()

    def _read(self, reader: Reader) -> None:
        """The records of what happened since the last look, in order."""
        while self._to_read:
            event = self._to_read.popleft()
            id = event.subject.partition("/")[2]
            match event.type:
                case "change.merged" | "change.returned":
                    self._change(reader, event, id)
                case "goal.succeeded" | "goal.failed":
                    self._goal(reader, event, id)
                case _:
                    self._attempt(reader, event, id)

    def _change(self, reader: Reader, event: Event, id: str) -> None:
        change = reader.changes.get(id)
        if change is None:
            return
        if event.type == "change.merged":
            self._main.well(change.repo)
        elif change.failure is not None and change.failure.reason == "CHECK_FAILED":
            self._main.returned(change.repo, change.task, event.at, change.failure.message or change.failure.reason)

    def _goal(self, reader: Reader, event: Event, id: str) -> None:
        """Its assertions were checked on the merged default branch: those that are checks of the repo tell of it."""
        goal = reader.goals.get(id)
        repo = reader.repos.get(goal.repo) if goal is not None else None
        if goal is None or repo is None:
            return
        receipts = [one.receipt for one in goal.assertions if one.receipt is not None]
        self._main.held(repo.id, _passed(receipts))
        bad = _red(receipts, _commands(repo))
        if bad and event.type == "goal.failed":
            why = f"checks of the repo fail on its merged default branch: {_names(bad)} (goals/{id})"
            self._main.failed(repo.id, event.at, why, (one.command_sha256 for one in bad))

    def _attempt(self, reader: Reader, event: Event, id: str) -> None:
        """Its run of the checks on the base tells of the default branch as it was when it was fetched."""
        task = reader.task(id)
        repo = reader.repos.get(task.repo) if task is not None and task.repo else None
        if task is None or repo is None or task.kind is not Kind.WORK:
            return
        attempt = reader.attempt(id, int(event.fields.get("generation", "0")))
        if attempt is None:
            return
        receipts = attempt.result.receipts if attempt.result is not None else attempt.receipts
        on_base = [one for one in receipts if one.phase is Phase.BASE]
        self._main.held(repo.id, _passed(on_base))
        if event.fields.get("reason") != "BASE_RED":
            return
        bad = _red(on_base, _commands(repo) or _must_hold(reader, task))
        if bad:
            why = f"checks that must hold on its default branch do not: {_names(bad)} (tasks/{id})"
            self._main.failed(repo.id, event.at, why, (one.command_sha256 for one in bad))


def _queue(reader: Reader) -> tuple[int, float | None]:
    """How many tasks are queued, and since when the oldest of them."""
    queued = sum(count for (state, _), count in reader.counts().items() if state is State.QUEUED)
    if not queued:
        return 0, None
    heads = (head for known in reader.classes()[:CLASSES_MAX] for head in reader.ready_heads(known.id))
    return queued, min((head.queued_at for head in heads), default=None)


def _commands(repo: Repo) -> frozenset[str]:
    return frozenset(proof.command_hash(check.run) for check in repo.checks)


def _must_hold(reader: Reader, task: Task) -> frozenset[str]:
    """Commands of a task that must hold on the base."""
    spec = reader.spec(task.id)
    checks = spec.checks if spec is not None else ()
    return frozenset(proof.command_hash(one.run) for one in checks if one.expect_on_base is Expectation.PASS)


def _passed(receipts: Iterable[Receipt]) -> list[str]:
    return [one.command_sha256 for one in receipts if one.verdict is Verdict.PASS]


def _red(receipts: Iterable[Receipt], commands: frozenset[str]) -> list[Receipt]:
    return [one for one in receipts if one.verdict is not Verdict.PASS and one.command_sha256 in commands]


def _names(receipts: Iterable[Receipt]) -> str:
    return ", ".join(f"{one.check} ({one.verdict.name.lower()})" for one in receipts)
