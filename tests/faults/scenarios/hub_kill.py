"""kill -9 of the hub at random points under load: what was acked is there, and nothing is accepted twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from typing import Any

import grpc

from agentcom.v1 import task_pb2
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Verb
from tests.support.fleet import spec

CALLERS = 8
SERVING_S_MAX = 5.0
#: All callers together file so many tasks a second.
SUBMITS_PER_S = 200
#: Names that one watch takes.
WATCHED_MAX = 1000
#: One task in so many is for somebody; the others wait, so that the fleet is no slower than the callers.
REAL_ONE_IN = 8


class Load:
    """Callers that file tasks until the hub does not answer any more."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.enough = asyncio.Semaphore(0)
        #: Set: no pauses any more, so that the kill finds all callers in the middle of something.
        self.hurry = asyncio.Event()
        self.unsure: list[tuple[str, bool]] = []
        self.real: list[str] = []

    async def file(self, request_id: str, is_real: bool, **options: Any) -> None:
        """One task; `is_real`: somebody can do it."""
        nobody = task_pb2.Requirement(capabilities=[] if is_real else ["nobody"])
        name = await self._lab.file(request_id, spec(requirement=nobody), **options)
        if is_real:
            self.real.append(name)

    async def call(self, client: str) -> None:
        """One caller."""
        while True:
            request_id, is_real = self._lab.request_id(), self._lab.rng.randrange(REAL_ONE_IN) == 0
            try:
                await self.file(request_id, is_real, client=client)
            except grpc.aio.AioRpcError:
                self.unsure.append((request_id, is_real))
                return
            self.enough.release()
            pause_s = self._lab.rng.uniform(0.0, 2 * CALLERS / SUBMITS_PER_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self.hurry.wait()


async def kill_the_hub(lab: Lab) -> str:
    """Kill it again and again while callers file tasks and sidecars do them."""
    await lab.start_hub()
    await lab.start_sidecars("ada", "grace", slots=8)
    serving_s, stored, load = list[float](), 0, Load(lab)
    for _ in range(lab.size["kills"]):
        load.unsure.clear()
        load.enough = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(load.call(f"client/{number}"))
            for _ in range(lab.rng.randint(1, lab.size["submits"])):
                await load.enough.acquire()
            load.hurry.set()
            # Somewhere in a commit, or between two: an fsync takes some milliseconds here.
            await asyncio.sleep(lab.rng.uniform(0.0, 0.02))
            await lab.kill_hub()
        load.hurry.clear()
        began, killed_at = time.monotonic(), time.time()
        await lab.restart_hub()
        serving_s.append(time.monotonic() - began)
        for request_id, is_real in load.unsure:  # again: it makes one task, whether the first came through or not
            await load.file(request_id, is_real, wait_for_ready=True)
        stored += await _made_before(lab, load.unsure, killed_at)
    for start in range(0, len(load.real), WATCHED_MAX):
        await lab.until_tasks(load.real[start : start + WATCHED_MAX])
    history = await lab.judge()
    worst_s, bound_s = max(serving_s), SERVING_S_MAX * _load_a_core()
    assert worst_s <= bound_s, f"serving again after {worst_s:.1f} s, the bound is {bound_s:.0f} s"
    acked = sum(op.verb is Verb.SUBMIT_ACKED for op in lab.ops)
    unsure = sum(op.verb is Verb.SUBMIT_UNKNOWN for op in lab.ops)
    return (
        f"{lab.size['kills']} kills, {acked} acked, 0 lost; of {unsure} without an answer {stored} were stored; "
        f"{len(load.real)} done, 0 twice; {len(history.events)} events; serving again in "
        f"{statistics.median(serving_s):.1f} s, {worst_s:.1f} s at most"
    )


def _load_a_core() -> float:
    """What others make of this machine: a start is nothing but processor time, and the bound is for a free core."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


async def _made_before(lab: Lab, unsure: list[tuple[str, bool]], killed_at: float) -> int:
    """How many of the requests that got no answer had made their task before the kill: it hit behind their commit."""
    names = {op.request: f"tasks/{op.task}" for op in lab.ops if op.verb is Verb.SUBMIT_ACKED}
    made = [await lab.task(names[request_id]) for request_id, _ in unsure]
    return sum(task.create_time.ToNanoseconds() / 1e9 < killed_at for task in made)


SCENARIOS = (
    Scenario(
        name="hub-kill",
        passes="0 acked lost, 0 accepted twice, serving again in 5 s",
        run=kill_the_hub,
        quick={"kills": 3, "submits": 40},
        long={"kills": 200, "submits": 400},
        seeds=1,
        twins=(
            Twin(node="hub", guards=("ack_before_commit",), finds="acked to .* and lost|is not in the log"),
            Twin(node="hub", guards=("request_ids_off",), finds="made 2 tasks", seeds=3),
        ),
    ),
)
