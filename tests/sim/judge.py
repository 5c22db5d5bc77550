"""The judgement: the oracle over all logs, memory against store, nothing left over, nothing that spins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hub.core.task import FINAL, State, Task
from hub.store.base import Reader
from tests.oracle import check, reading
from tests.oracle.record import History, Rules, Verb
from tests.sim.disk import open_reader
from tests.sim.places import place_of

if TYPE_CHECKING:
    from tests.sim.hub_side import HubProcess
    from tests.sim.world import World

IDLE_S = 600.0
"""How long an idle world is watched at the end, at scale 1."""

STEPS_PER_BEAT = 200
"""Callbacks that a heartbeat and its answer may cost, everything counted: network, both loops, timers."""


def memory(hub: HubProcess) -> Iterator[str]:
    """What the hub's memory says that its store does not. For a moment at which it was told of every commit."""
    fleet = hub.dispatcher.fleet
    read = hub.store.read
    agents = read(lambda reader: reader.agents.page(limit=1000))
    for agent in agents:
        held = read(_held(agent.id))
        stored = {task.id: (task.generation, task.state is State.RUNNING, task.claimed) for task in held}
        seat = fleet.get(agent.id)
        known = {id: (one.generation, one.accepted, one.claimed) for id, one in seat.holdings.items()} if seat else {}
        if stored != known:
            yield f"the seat of {agent.id} has {known}, stored is {stored}"
        if seat is not None and (seat.draining, seat.isolated_until) != (agent.draining, agent.isolated_until):
            yield f"the seat of {agent.id} is not drained or isolated as stored"
    for session in hub.sessions:
        ended = set(session.told) - set(session.holds())
        if ended and session.seat is fleet.get(session.agent):
            yield f"the session of {session.agent} keeps {ended}, which it does not hold"
    paused = read(lambda reader: reader.meta("paused")) == b"1"
    # The gate closes before a pause is written and opens after a resume is told: closed while the store says open is on
    # its way (also one that has failed and whose caller does not know yet). The other way round never is.
    if paused and not hub.ctx.gate.paused and hub.at_rest:
        yield "the gate is open, stored is paused"
    ready = {one.id for one in read(lambda reader: reader.classes()) if read(_heads(one.id))}
    lost = ready - hub.dispatcher.waiting._ranks.keys()
    if lost:
        yield f"tasks of the classes {sorted(lost)} wait, and the hint of what waits does not know"


def silent(hub: HubProcess) -> dict[str, str]:
    """Holdings of agents that were silent for longer than a lease and two sweeps, by agent."""
    found: dict[str, str] = {}
    ctx, sessions = hub.ctx, hub.sessions
    now = ctx.clock.monotonic()
    allowed_s = ctx.settings.lease_s + 2 * ctx.settings.sweep_s + 60.0
    for seat in hub.dispatcher.fleet:
        session = sessions.get(seat.agent)
        heard_at = max(hub.served_at, session.heard_at if session is not None else 0.0, sessions.silence._patient_from)
        held = [task for task, one in seat.holdings.items() if not one.claimed]
        if held and now - heard_at > allowed_s and hub.disk_is_good() and not ctx.gate.degraded:
            found[seat.agent] = f"{seat.agent} was silent for {now - heard_at:.0f} s and still has {held}"
    return found


def _held(agent: str) -> Callable[[Reader], list[Task]]:
    return lambda reader: reader.held_by(agent)


def _heads(class_id: int) -> Callable[[Reader], object]:
    return lambda reader: reader.ready_heads(class_id)


def unfinished(world: World) -> list[str]:
    """What is still to be done: tasks that have not ended, holdings that are not settled."""
    disk = world.hub_machine.disk
    assert disk is not None
    reader = open_reader(disk)
    found = []
    for (state, _), count in reader.counts().items():
        if count and state not in FINAL:
            found.append(f"{count} {state.name}")
    for name, sidecar in world.sidecars.items():
        if sidecar.dead or len(sidecar.session.holdings.slots) or not sidecar.session._desk.ledger.empty:
            found.append(f"{name} is not done")
    if world.hub is None or not world.hub.serving:
        found.append("no hub serves")
    else:
        for name in world.machines:
            seat = world.hub.dispatcher.fleet.get(name)
            if seat is None or not seat.online or seat.blocked or seat.leaving:
                found.append(f"{name} is not available")
    return found


def left_over(world: World) -> Iterator[str]:
    """What must be gone, or be as stored, when all is done."""
    hub = world.hub
    assert hub is not None
    if hub.ctx.bus.position != hub.store.read(lambda reader: reader.position()):
        yield "the bus has not told every event"
        return
    yield from memory(hub)
    for seat in hub.dispatcher.fleet:
        if seat.reserved:
            yield f"{seat.reserved} slots of {seat.agent} are still reserved"
        if not seat.online or seat.blocked or seat.leaving:
            yield f"{seat.agent} is not available: online {seat.online}, blocked {seat.blocked}, leaving {seat.leaving}"
        session = hub.sessions.get(seat.agent)
        if session is None or session.stream is None:
            yield f"{seat.agent} has no live session"
        elif session.told or len(session.outbox):
            yield f"the session of {seat.agent} keeps {session.told} and {len(session.outbox)} unacked messages"
    if hub.sessions.live_count != len(world.machines):
        yield f"{hub.sessions.live_count} streams are counted live, there are {len(world.machines)}"
    if hub.sessions.watched:
        yield f"{hub.sessions.watched} are still watched"
    if hub.dispatcher.waiting._ranks:
        yield f"the hint still knows the classes {sorted(hub.dispatcher.waiting._ranks)}, and nothing waits"
    stored = hub.store.read(lambda reader: reader.meta("paused")) == b"1"
    if hub.ctx.gate.paused != stored or hub.ctx.gate.draining:
        yield f"the gate is paused {hub.ctx.gate.paused}, draining {hub.ctx.gate.draining}, stored is {stored}"
    expected = 3 + len(hub.supervisor.health()) + 4 * len(world.machines)
    if len(hub.tasks) > expected:
        names = sorted(task.get_name() for task in hub.tasks)
        yield f"the hub has {len(hub.tasks)} tasks, at most {expected} were expected: {names}"
    for name, sidecar in world.sidecars.items():
        if sidecar.journal.live:
            yield f"the journal of {name} still has {list(sidecar.journal.live)}"
        if len(sidecar.tasks) > 14:
            names = sorted(task.get_name() for task in sidecar.tasks)
            yield f"{name} has {len(sidecar.tasks)} tasks: {names}"


def undead(world: World) -> list[str]:
    """Processes that were killed, which here is a cancel of all of their tasks, and go on."""
    return [
        f"{process.name} has {len(process.tasks)} tasks long after its death: {[place_of(t) for t in process.tasks]}"
        for process in world.processes
        if process.dead and process.tasks
    ]


def history(world: World) -> list[str]:
    """What the oracle says."""
    disk = world.hub_machine.disk
    assert disk is not None
    reader: Reader = open_reader(disk)
    disk.remember()
    events = disk.history
    kept = reading.events_of(reader)
    if kept != events[len(events) - len(kept) :]:
        return ["the log on the disk is not what was committed"]
    ids = {event.subject.removeprefix("tasks/") for event in events if event.type == "task.created"}
    tasks = {id: found for id in sorted(ids) if (found := reader.task(id)) is not None}
    told = History(
        events=events,
        ops=world.log.ops,
        tasks=tasks,
        attempts={id: list(reader.attempts(id)) for id in tasks},
        requests={id: spec.title for id in tasks if (spec := reader.spec(id)) and spec.title.startswith("request-")},
    )
    # Merge and verify tasks carry titles of the hub's own. Clocks are wrong in many runs: overlap is judged elsewhere.
    rules = Rules(stop_s=_stop_s(world), all_end=True, works_once=world.mix.hub_only)
    return [*map(str, check.violations(told, rules)), *_forgotten(told), *_robbed(world, told)]


def _robbed(world: World, told: History) -> Iterator[str]:
    """Attempts that were taken back for showing no progress, where hands always show some."""
    if any(world.mix.strength[fault] for fault in ("hands.hang", "hands.stubborn")):
        return
    for id, attempts in told.attempts.items():
        for one in attempts:
            if one.failure is not None and one.failure.reason == "STUCK":
                yield f"stuck: tasks/{id} generation {one.generation} was taken back from {one.agent}, and got on well"


def _stop_s(world: World) -> float | None:
    """How long old work may go on beside newer: until two heartbeats were answered, and the wire is known to be dead.

    None where clocks are wrong, hands are slow to stop, or steps come late: then there is no such time.
    """
    disturbing = ("hub.clock", "hands.stubborn", "hub.freeze", "sidecar.freeze", "hub.slow", "commit.slow")
    if any(world.mix.strength[fault] for fault in (*disturbing, "sidecar.full", "journal.fail", "message.slow")):
        return None
    return 3 * 10.0 * world.mix.scale + 40.0


def _forgotten(told: History) -> Iterator[str]:
    """Of each finished work whose ack its sidecar had, the log knows what the hub made of it, by this agent's name."""
    known = {
        (event.subject, event.fields.get("generation"), event.actor)
        for event in told.events
        if event.actor.startswith("agents/")
    }
    for op in told.ops:
        if op.verb is Verb.REPORT_ACKED and op.detail == "done":
            subject, actor = f"tasks/{op.task}", op.node.replace("sidecar/", "agents/")
            if (subject, str(op.generation), actor) not in known:
                yield f"report: {subject} generation {op.generation} was done and acked to {actor}, and nobody knows"
