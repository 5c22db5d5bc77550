"""Streams that live in one direction only, or whose ends stand still: no work goes into a dead stream, and no busy
agent is robbed.

The man in the middle answers keepalive pings for both sides, so nothing but the protocol can find out.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence

from agentcom.v1 import agent_pb2, task_pb2
from hub.core.event import Event
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules
from tests.support.fleet import spec
from tests.support.middle import between, drop, pass_all
from tests.support.processes import LOOK_EVERY_S, until
from tests.support.proxy import Proxy, proxied

HEARTBEAT_S = 0.5
ACK_S = 1.5
#: To look, to confirm, and to write it down.
LATE_S = 0.8
#: How long the middle box is patient: sixty seconds in the world, scaled down.
IDLE_S = 0.5
ADA = task_pb2.Requirement(capabilities=["ada"])


async def swallow_what_goes_down(lab: Lab) -> str:
    """Heartbeats go up, nothing comes down: the assignment comes back in time, and no second one follows it."""
    await lab.start_hub(engine_lease_s=lab.size["lease_s"], engine_heartbeat_s=HEARTBEAT_S, engine_ack_timeout_s=ACK_S)
    async with between(lab.address) as middle:
        await lab.start_sidecar("ada", address=middle.address, capabilities="ada")
        await lab.until_agent("ada", agent_pb2.Agent.STATE_IDLE)
        middle.down = drop("")
        (name,) = await lab.submit(spec("into the dead", requirement=ADA))
        began = time.time()
        (back,) = await lab.until_events("task.released", subject=name)
        returned_s = back.create_time.ToNanoseconds() / 1e9 - began
        await lab.start_sidecars("grace", capabilities="ada")  # another one that can do it: now it is not lost, either
        await lab.until_tasks([name])
        # As long as it shows no sign that it hears, it gets nothing, however often it comes back.
        names = await lab.submit(*[spec(f"more {number}") for number in range(lab.size["more"])])
        await lab.until_tasks(names)
        middle.down = pass_all
        await lab.until_agent("ada", agent_pb2.Agent.STATE_IDLE)
        # It is as good as new.
        middle.cut()
        await lab.sidecars["grace"].stop()
        (last,) = await lab.submit(spec("for ada again", requirement=ADA))
        await lab.until_tasks([last])
    found = await lab.judge(Rules(all_end=True))
    into = [
        event
        for event in found.events
        if event.type == "task.assigned" and event.fields["agent"] == "ada" and event.subject != last
    ]
    assert len(into) == 1, f"{len(into)} assignments went into the dead stream, the last at {into[-1].position}"
    assert returned_s <= ACK_S + LATE_S, f"it came back after {returned_s:.1f} s, the bound is {ACK_S:.1f} s"
    assert not any(task.killed_agents or task.attempts_used for task in (found.tasks or {}).values())
    return f"came back after {returned_s:.2f} s (bound {ACK_S:g} s), nothing more went in, works again when healed"


async def swallow_heartbeats(lab: Lab) -> str:
    """Heartbeats are lost for several leases while reports flow: the long task beside them is not taken away."""
    lease_s = lab.size["lease_s"]
    await lab.start_hub(engine_lease_s=lease_s, engine_heartbeat_s=HEARTBEAT_S)
    async with between(lab.address) as middle:
        await lab.start_sidecar("ada", address=middle.address, slots=2)
        await lab.until_agent("ada", agent_pb2.Agent.STATE_IDLE)
        gate = lab.root / "gate"
        (long,) = await lab.submit(spec("long", f"while ! test -e {gate}; do sleep 0.05; done"))
        await lab.until_tasks([long], task_pb2.Task.STATE_RUNNING)
        middle.up = drop("heartbeat")
        began, names = time.monotonic(), []
        while time.monotonic() - began < 2.5 * lease_s:
            names += await lab.submit(spec("short", "sleep 0.1"))
            await lab.until_tasks(names[-1:])
        dropped = sum(message.HasField("heartbeat") for line in middle.lines for message in line.ups)
        gate.touch()
        await lab.until_tasks([long])
        middle.up = pass_all
    await lab.judge(Rules(all_end=True, works_once=True))
    return f"{dropped} heartbeats lost, {len(names)} reports came meanwhile, the long task ran once"


async def stand_still(lab: Lab) -> str:
    """The hub stands still for longer than a lease, then a sidecar for less: nobody is blamed, nothing is redone."""
    lease_s = lab.size["lease_s"]
    agents = [f"agent-{number}" for number in range(lab.size["agents"])]
    await lab.start_hub(engine_lease_s=lease_s, engine_heartbeat_s=HEARTBEAT_S, engine_sweep_s=10.0)
    await lab.start_sidecars(*agents, slots=2)
    assert lab.hub is not None
    gate = lab.root / "gate"
    command = f"touch {lab.root}/$AGENTCOM_TASK.$AGENTCOM_GENERATION; while ! test -e {gate}; do sleep 0.05; done"
    names = await lab.submit(*[spec(f"long {number}", command) for number in range(len(agents))])
    await lab.until_tasks(names, task_pb2.Task.STATE_RUNNING)
    # For less than a lease: the work goes on, at both ends.
    for pause_s in (0.6 * lease_s, 0.6 * lease_s):
        lab.hub.signal(signal.SIGSTOP)
        await asyncio.sleep(pause_s)
        lab.hub.signal(signal.SIGCONT)
        await _heard(lab, agents)
    lab.freeze(agents[0])
    await asyncio.sleep(0.6 * lease_s)
    lab.thaw(agents[0])
    await _heard(lab, agents)
    await lab.until_tasks(names, task_pb2.Task.STATE_RUNNING)
    generations = {(await lab.task(name)).attempts[-1].generation for name in names}
    assert generations == {1}, "a pause shorter than a lease cost work"
    # For longer: the sidecars stop by themselves, as they must; but none of them has died, and no task is to blame.
    lab.hub.signal(signal.SIGSTOP)
    await asyncio.sleep(1.4 * lease_s)
    lab.hub.signal(signal.SIGCONT)
    gate.touch()
    await lab.until_tasks(names)
    found = await lab.judge(Rules(all_end=True))
    robbed = [event for event in found.events if event.fields.get("reason") == "LEASE_EXPIRED"]
    assert not robbed, f"{len(robbed)} holdings were taken from agents because the hub itself stood still"
    blamed = [task.id for task in (found.tasks or {}).values() if task.killed_agents or task.attempts_used]
    assert not blamed, f"{blamed} are blamed for a pause of the hub"
    return f"{len(names)} tasks of {len(agents)} agents: none robbed by pauses of 0.6 and 1.4 leases, none blamed"


async def _heard(lab: Lab, agents: Sequence[str]) -> None:
    """Return when the hub has heard from each of them again, so that their leases are as good as new."""
    now = time.time()
    for agent in agents:
        while (await lab.agent(agent)).last_seen_time.ToNanoseconds() / 1e9 < now:  # noqa: ASYNC110  # it is asked for
            await asyncio.sleep(LOOK_EVERY_S)


async def cut_what_is_idle(lab: Lab) -> str:
    """A middle box forgets connections that are idle, loudly or silently: nothing is running and undelivered."""
    # Heartbeats slower than the box is patient: the box wins, as it does with a hub that is set so.
    await lab.start_hub(engine_lease_s=6.0, engine_heartbeat_s=3.0, engine_ack_timeout_s=ACK_S)
    async with proxied(lab.address) as proxy:
        await lab.start_sidecar("ada", address=proxy.address)
        await lab.start_sidecars("grace")
        rounds = [True] * lab.size["loud"] + [False] * lab.size["silent"]
        for number, loud in enumerate(rounds):
            proxy.idle_s = None
            await lab.until_agent("ada", agent_pb2.Agent.STATE_IDLE)
            before, proxy.idle_resets, proxy.idle_s = proxy.idle_count, loud, IDLE_S
            await until(_forgotten(proxy, before, loud), "the box has forgotten the connections", lab.patience_s)
            await asyncio.sleep(lab.rng.uniform(0.0, 0.1))
            # One for each of the two: into a connection that is not there any more.
            await lab.until_tasks(await lab.submit(*[spec(f"quiet {number} {name}") for name in "ab"]))
    found = await lab.judge(Rules(all_end=True))
    late_s = _undelivered_s(found.events)
    bound_s = ACK_S + LATE_S
    told = f"an assignment was neither acked nor returned for {late_s:.1f} s, the bound is {bound_s:.1f} s"
    assert late_s <= bound_s, told
    return f"{len(rounds)} connections forgotten; longest time without ack or return {late_s:.1f} s (bound {ACK_S:g} s)"


def _forgotten(proxy: Proxy, before: int, loud: bool) -> Callable[[], bool]:
    return lambda: proxy.idle_count > before if loud else proxy.forgets_all


def _undelivered_s(events: Sequence[Event]) -> float:
    """The longest time between an assignment and the next event of its task."""
    longest, assigned = 0.0, dict[str, float]()
    for event in events:
        if event.subject in assigned:
            longest = max(longest, event.at - assigned.pop(event.subject))
        if event.type == "task.assigned":
            assigned[event.subject] = event.at
    return longest


SCENARIOS = (
    Scenario(
        name="down-swallowed",
        passes="what is not acked comes back within the ack timeout (10 s by default); no work into a dead stream",
        run=swallow_what_goes_down,
        quick={"lease_s": 4.0, "more": 6},
        long={"lease_s": 12.0, "more": 40},
        twins=(
            Twin(node="hub", guards=("acks_unwatched",), finds="0 of 1 task.released|came back after"),
            Twin(
                node="hub", guards=("doubt_off",), finds="went into the dead stream", size={"lease_s": 3.0, "more": 80}
            ),
        ),
    ),
    Scenario(
        name="heartbeats-swallowed",
        passes="a busy agent whose reports come is not robbed",
        run=swallow_heartbeats,
        quick={"lease_s": 1.5},
        long={"lease_s": 6.0},
        twins=(Twin(node="hub", guards=("only_heartbeats_count",), finds="was begun 2 times"),),
    ),
    Scenario(
        name="stand-still",
        passes="a hub or sidecar that stands still costs no busy agent its work, and blames nobody",
        run=stand_still,
        quick={"lease_s": 1.5, "agents": 3},
        long={"lease_s": 6.0, "agents": 8},
        twins=(Twin(node="hub", guards=("suspects_are_robbed",), finds="taken from agents because the hub itself"),),
    ),
    Scenario(
        name="idle-cut",
        passes="nothing is running and undelivered; an assignment is acked or returned within the ack timeout",
        run=cut_what_is_idle,
        quick={"loud": 1, "silent": 1},
        long={"loud": 5, "silent": 5},
        twins=(Twin(node="hub", guards=("acks_unwatched",), finds="neither acked nor returned", size={"loud": 0}),),
    ),
)
