"""Messages of the streams doubled, late, reordered, lost: idempotent answers, one use of a slot, one terminal state."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import Any

import grpc

from agentcom.v1 import agent_pb2, attach_pb2, task_pb2
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules, Verb
from tests.support import scripted
from tests.support.fleet import SUCCEEDED, spec
from tests.support.middle import Later, Verdict, between, kind, pass_all

#: Of a hundred messages with a number so many are doubled (or trebled), delayed past their successors, lost.
DOUBLED, LATE, LOST = 25, 3, 2
LATE_S_MAX = 0.2
SLOTS = 4
DONE = attach_pb2.Completed(result=task_pb2.Result(summary="done"))
BOB = task_pb2.Requirement(capabilities=["bob"])


class Tamper:
    """One direction's rule; it counts what it did."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.done: dict[str, int] = {"doubled": 0, "late": 0, "lost": 0}

    def __call__(self, message: Any) -> Verdict:
        if kind(message) in ("hello", "welcome"):
            return None
        roll = self._rng.randrange(100)
        if roll < DOUBLED:
            self.done["doubled"] += 1
            return [message] * self._rng.randint(2, 3)
        if roll < DOUBLED + LATE:
            self.done["late"] += 1
            return Later(self._rng.uniform(0.0, LATE_S_MAX))
        if roll < DOUBLED + LATE + LOST:
            self.done["lost"] += 1
            return []
        return None


async def tamper(lab: Lab) -> str:
    """Real sidecars behind a man in the middle who does all of it, and an agent that says everything twice or late."""
    await lab.start_hub(engine_lease_s=3.0, engine_ack_timeout_s=1.5)
    up, down = Tamper(lab.rng), Tamper(lab.rng)
    async with between(lab.address) as middle:
        for agent in ("ada", "grace"):
            await lab.start_sidecar(agent, address=middle.address, slots=SLOTS)
        for agent in ("ada", "grace"):
            await lab.until_agent(agent, agent_pb2.Agent.STATE_IDLE)
        middle.up, middle.down = up, down
        names = await lab.submit(*[spec(f"task {number}", "sleep 0.02") for number in range(lab.size["tasks"])])
        await lab.until_tasks(names)
        middle.up = middle.down = pass_all
        streams = len(middle.lines)
    twice = await _say_everything_twice(lab)
    said = "accepted twice, completed thrice, failed after it, spoken on a replaced stream"
    found = await lab.judge(Rules(all_end=True, logs_complete=False))
    _one_use_of_a_slot(found.events, {"ada": SLOTS, "grace": SLOTS, "bob": 1})
    begun = Counter((op.task, op.generation) for op in found.ops if op.verb is Verb.WORK_BEGUN)
    again = [holding for holding, count in begun.items() if count > 1]
    assert not again, f"{again} were begun again at the same generation"
    fenced = Counter(event.subject for event in found.events if event.type == "task.fenced")
    for name in twice:
        told = f"{name} was fenced {fenced[name]} times: only the failure after the completion contradicts it"
        assert fenced[name] == 1, told
    blamed = [task.id for task in (found.tasks or {}).values() if task.killed_agents or task.attempts_used]
    assert not blamed, f"{blamed} are charged for a bad wire"
    both = {what: up.done[what] + down.done[what] for what in up.done}
    told = ", ".join(f"{count} {what}" for what, count in both.items())
    return f"{told} in {streams} streams; {said}; each of {len(names)} tasks ended once"


async def _say_everything_twice(lab: Lab) -> list[str]:
    """Accept twice, complete three times, fail after it, and speak up on a stream that another has replaced."""
    names: list[str] = []
    async with scripted.dial(lab.address) as opened, scripted.dial(lab.address) as second:
        await scripted.enrol(opened, "bob")
        async with scripted.attached(opened, "bob", scripted.offer(1, "bob")) as bob:
            for number in range(lab.size["said"]):
                names += await lab.submit(spec(f"said {number}", requirement=BOB))
                holding = (await bob.assigned(number + 1))[-1]
                assert holding.task == names[-1], "one slot, one task at a time"
                for _ in range(2):
                    await bob.report(holding, accepted=attach_pb2.Accepted())
                for _ in range(3):
                    await bob.report(holding, completed=DONE)
                failure = task_pb2.Failure(reason="LATE", message="late", attribution=task_pb2.ATTRIBUTION_TASK)
                seq = await bob.report(holding, failed=attach_pb2.Failed(failure=failure))
                await bob.stored(seq)
                task = await lab.task(names[-1])
                assert task.state == SUCCEEDED and len(task.attempts) == 1, task
            (late,) = await lab.submit(spec("late", requirement=BOB))
            old = (await bob.assigned(lab.size["said"] + 1))[-1]
            await bob.stored(await bob.report(old, accepted=attach_pb2.Accepted()))
            # Another process of the same name comes, without the work, while the first one tells its end.
            async with asyncio.TaskGroup() as group:
                group.create_task(_late(lab.rng.uniform(0.0, 0.01), bob, old))
                async with scripted.attached(second, "bob", scripted.offer(1, "bob")) as again:
                    while (await lab.task(late)).state != SUCCEEDED:
                        (holding,) = await again.assigned()
                        assert holding.generation == old.generation + 1
                        await again.stored(await again.report(holding, completed=DONE))
    return names


async def _late(delay_s: float, bob: scripted.Scripted, holding: task_pb2.Holding) -> None:
    await asyncio.sleep(delay_s)
    with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # its stream has ended before it said it
        await bob.report(holding, completed=DONE)


def _one_use_of_a_slot(events: Any, slots: dict[str, int]) -> None:
    """No agent ever holds more than it has slots."""
    held: dict[str, set[str]] = {}
    for event in events:
        if not event.subject.startswith("tasks/"):
            continue
        if event.type == "task.assigned":
            mine = held.setdefault(event.fields["agent"], set())
            mine.add(event.subject)
            agent = event.fields["agent"]
            assert len(mine) <= slots[agent], f"{agent} holds {len(mine)} at event {event.position}"
        elif event.type not in ("task.accepted", "task.fenced", "task.refunded", "task.stuck", "task.created"):
            for mine in held.values():
                mine.discard(event.subject)


SCENARIOS = (
    Scenario(
        name="disorder",
        passes="idempotent answers, one use of a slot, one terminal state",
        run=tamper,
        quick={"tasks": 60, "said": 5},
        long={"tasks": 1_000, "said": 100},
        twins=(Twin(node="hub", guards=("repeats_unknown",), finds="was fenced 3 times"),),
    ),
)
