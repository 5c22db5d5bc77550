"""Why a task does not run, and what would unblock it: read from its state, the gates and the seats, decided by
`core.match`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hub.core import lane, match
from hub.core.agent import Agent
from hub.core.goal import HELD_BACK
from hub.core.task import HELD, Requirement, State, Task
from hub.engine.live.context import Context
from hub.engine.live.dispatch import Dispatcher
from hub.engine.script import queue
from hub.store.base import Reader

AGENTS_MAX: Final = 100
"""Agents told of, as the proto promises."""

SCAN_MAX: Final = 2_000
"""Agents looked at for that: some ten milliseconds."""

AHEAD_MAX: Final = 1_000
"""Tasks counted in each lane; beyond it the answer is -1."""

WAITS_FOR_MAX: Final = 128
"""As many as a contract may name."""


class Obstacle(NamedTuple):
    """Why one agent does not have it."""

    agent: str
    reason: str
    message: str


class Explanation(NamedTuple):
    """The answer."""

    state: State
    summary: str
    unblock: list[str]
    obstacles: list[Obstacle]
    ahead_count: int
    waits_for: list[str]


class Explainer:
    """Explains tasks."""

    def __init__(self, ctx: Context, dispatcher: Dispatcher) -> None:
        self._ctx = ctx
        self._dispatcher = dispatcher

    def explain(self, task_id: str) -> Explanation:
        """Why this task does not run. Raises NotFound."""
        return self._ctx.store.read(lambda reader: self._explain(reader, queue.found(reader, task_id)))

    def _explain(self, reader: Reader, task: Task) -> Explanation:
        now = self._ctx.clock.now()
        match task.state:
            case State.PENDING:
                waits = _waits_for(reader, task)
                names = ", ".join(f"tasks/{id}" for id in waits[:3])
                return _plain(task, f"it waits for {len(waits)} tasks to succeed: {names}", waits_for=waits)
            case State.SCHEDULED | State.PARKED:
                return self._delayed(task, now)
            case State.QUEUED:
                return self._queued(reader, task, now)
            case State.ASSIGNED:
                return _plain(task, f"it was offered to agents/{task.agent}, which has not accepted it yet")
            case State.RUNNING:
                return _plain(task, f"it runs: agents/{task.agent} works on it at generation {task.generation}")
            case State.MERGING:
                return _plain(task, f"its work is done, its change changes/{task.change} waits to be merged")
            case _:
                summary = f"it is {task.state.name.lower()}" + (f": {task.reason}" if task.reason else "")
                again = [] if task.state is State.SUCCEEDED else ["retry it: it gets fresh attempts"]
                return _plain(task, summary, again)

    def _delayed(self, task: Task, now: float) -> Explanation:
        why = task.reason or ("it waits for its time" if task.state is State.SCHEDULED else "it is parked")
        if task.reason == HELD_BACK:
            return _plain(task, f"it is parked: {why}", [f"resume goals/{task.goal}"])
        if task.wake_at is None:
            return _plain(task, f"it is {task.state.name.lower()}: {why}", ["retry it when the cause is mended"])
        summary = f"it is {task.state.name.lower()}: {why}; looked at again in {max(0.0, task.wake_at - now):.0f} s"
        return _plain(task, summary, ["wait, or retry it now"])

    def _queued(self, reader: Reader, task: Task, now: float) -> Explanation:
        known = reader.task_class(task.class_id)
        assert known is not None, task.id
        ahead = _ahead(reader, task, self._ctx.settings.age_step_s)
        found, fitting = self._obstacles(reader, task, known.requirement, now)
        gate = self._ctx.gate
        if gate.paused:
            summary, unblock = "the hub is paused and assigns nothing", ["resume the hub"]
        elif gate.draining:
            summary, unblock = "the hub is draining and assigns nothing", ["resume the hub, or wait for its restart"]
        elif task.repo and self._dispatcher.waiting.paused(task.repo):
            summary, unblock = f"repos/{task.repo} is paused", [f"resume repos/{task.repo}"]
        elif fitting:
            summary, unblock = f"agents/{fitting} can take it and is about to", []
        elif not found:
            summary, unblock = "there is no agent", ["enrol an agent and start its sidecar"]
        else:
            summary, unblock = _against(known.requirement, found, ahead)
        risen = lane.effective(task.lane, task.queued_at or now, now, self._ctx.settings.age_step_s)
        if risen is not task.lane:
            summary += f"; by waiting it has risen from lane {task.lane.name} to {risen.name}"
        return Explanation(task.state, summary, unblock, found[:AGENTS_MAX], ahead, [])

    def _obstacles(self, reader: Reader, task: Task, wanted: Requirement, now: float) -> tuple[list[Obstacle], str]:
        """What stands against each agent, the nearest to fitting first; and one against whom nothing does."""
        ranked: list[tuple[int, int, Obstacle]] = []
        for agent in reader.agents.page(limit=SCAN_MAX):
            against = self._against(agent, task, wanted, now)
            if not against:
                return [], agent.id
            first = against[0]
            order = list(match.Reason).index(first.reason)
            message = "; ".join(one.message for one in against)
            ranked.append((len(against), -order, Obstacle(agent.id, first.reason, message)))
        ranked.sort()
        return [obstacle for _, _, obstacle in ranked], ""

    def _against(self, agent: Agent, task: Task, wanted: Requirement, now: float) -> list[match.Obstacle]:
        seat = self._dispatcher.fleet.get(agent.id)
        offer = seat.profile.offer if seat is not None and seat.online else agent.offer
        found = match.obstacles(wanted, agent.id, offer)
        if seat is None or not seat.online:
            return [*found, match.Obstacle(match.Reason.OFFLINE, "it is offline")]
        if seat.blocked:
            found.append(match.Obstacle(match.Reason.UNAVAILABLE, "its self-test fails, or has not run yet"))
        elif seat.in_doubt:
            found.append(match.Obstacle(match.Reason.UNAVAILABLE, "it did not answer what it was told"))
        if seat.isolated(now) and seat.isolated_until is not None:
            for_s = seat.isolated_until - now
            found.append(
                match.Obstacle(match.Reason.ISOLATED, f"it failed too often in a row; isolated for {for_s:.0f} s")
            )
        if seat.draining or seat.leaving:
            found.append(match.Obstacle(match.Reason.DRAINING, "it is draining"))
        if agent.id in task.refused_by:
            found.append(match.Obstacle(match.Reason.FAILED_IT_BEFORE, "it refused or failed it before"))
        if seat.used >= offer.slots:
            found.append(match.Obstacle(match.Reason.NO_SLOT, f"its {offer.slots} slots are taken"))
        return found


def _against(wanted: Requirement, found: list[Obstacle], ahead: int) -> tuple[str, list[str]]:
    """The sentence for the agent that is nearest to fitting, and what would help."""
    nearest = found[0]
    if nearest.reason == match.Reason.NO_SLOT:
        before = f", {ahead} tasks of its kind are before it" if ahead > 0 else ""
        return f"every agent that fits is busy{before}", ["wait for a slot, or start another sidecar"]
    who = f"agents/{nearest.agent}"
    summary = f"no agent can take it; nearest is {who}: {nearest.message}"
    match nearest.reason:
        case match.Reason.OFFLINE:
            return summary, [f"start the sidecar of {who}"]
        case match.Reason.UNAVAILABLE:
            return summary, [f"see what the self-test of {who} found, and mend it"]
        case match.Reason.DRAINING | match.Reason.ISOLATED:
            return summary, [f"resume {who}, or wait"]
        case match.Reason.FAILED_IT_BEFORE:
            return summary, ["wait: it is offered to it again when no other agent fits"]
        case match.Reason.NO_SANDBOX:
            if all(one.reason == match.Reason.NO_SANDBOX for one in found):
                summary = f"no agent offers a sandbox, which the task demands; nearest is {who}: {nearest.message}"
            return summary, [f"install bubblewrap where {who} runs, and start its sidecar again"]
        case match.Reason.OTHER_AGENT:
            return summary, [f"start agents/{wanted.agent}, which alone may have it"]
        case _:
            needs = ", ".join(wanted.capabilities) or "nothing special"
            asks = f"kind {wanted.kind.name}, tier {wanted.tier.name}, executor {wanted.executor or 'any'}"
            return summary, [f"start a sidecar that offers {asks}, labels: {needs}"]


def _ahead(reader: Reader, task: Task, age_step_s: float) -> int:
    """Tasks of the same class that are served before it; -1: more than were counted."""
    mine = (lane.rank(task.lane, task.queued_at or task.updated_at, age_step_s), task.id)
    count = 0
    for head in reader.ready_heads(task.class_id):
        line = reader.ready(task.class_id, head.lane, limit=AHEAD_MAX)
        before = sum(
            one.task != task.id and (lane.rank(one.lane, one.queued_at, age_step_s), one.task) < mine for one in line
        )
        if before == AHEAD_MAX:
            return -1
        count += before
    return count


def _waits_for(reader: Reader, task: Task) -> list[str]:
    spec = reader.spec(task.id)
    assert spec is not None, task.id
    return [id for id in spec.depends_on[:WAITS_FOR_MAX] if not _succeeded(reader.task(id))]


def _succeeded(task: Task | None) -> bool:
    return task is not None and task.state is State.SUCCEEDED


def _plain(
    task: Task, summary: str, unblock: list[str] | None = None, waits_for: list[str] | None = None
) -> Explanation:
    if task.state not in HELD and task.state is State.PENDING and unblock is None:
        unblock = ["let those finish, or retry those that failed"]
    return Explanation(task.state, summary, unblock or [], [], 0, waits_for or [])
