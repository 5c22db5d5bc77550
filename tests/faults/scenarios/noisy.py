"""A noisy submitter against a small one: much work of little worth does not keep ten tasks waiting, nor do they keep
it waiting for ever.
"""

from __future__ import annotations

import asyncio

import grpc

from agentcom.v1 import task_pb2, task_service_pb2
from hub.core.event import Event
from hub.core.task import Lane
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import History, Rules
from tests.support.fleet import spec

SLOTS = 4
WORK = "sleep 0.1"
BATCH = 500
#: Calls at once, so that they share commits.
CANCELLERS = 32
WAIT_RATIO_MAX = 3.0
#: What the ratio is taken of at least: a wait shorter than one task's run is no wait.
ALONE_S_MIN = 0.15


async def noise(lab: Lab) -> str:
    """Ten tasks on a fleet of their own, then ten beside a flood of LOW ones."""
    await lab.start_hub(engine_age_step_s=600.0)
    await lab.start_sidecars("ada", slots=SLOTS)
    small = [spec(f"small {n}", WORK) for n in range(lab.size["small"])]
    alone = await lab.submit(*small)
    await lab.until_tasks(alone)
    flood: list[str] = []
    while len(flood) < lab.size["flood"]:
        count = min(BATCH, lab.size["flood"] - len(flood))
        flood += await lab.submit(*[spec("flood", WORK, lane=task_pb2.LANE_LOW) for _ in range(count)])
    await lab.until_events("task.succeeded", 3 * SLOTS, position=await lab.position())  # it is being worked on
    beside = await lab.submit(*small)
    await lab.until_tasks(beside)
    await _call_off(lab, flood)
    found = await lab.judge(Rules(all_end=True, inversion_s=1.0))
    alone_s, beside_s = (max(_waits_s(found, names)) for names in (alone, beside))
    ratio = beside_s / max(alone_s, ALONE_S_MIN)
    assert ratio <= WAIT_RATIO_MAX, (
        f"waited {beside_s:.2f} s beside the flood, {alone_s:.2f} s alone: {ratio:.1f} times"
    )
    return (
        f"{len(flood)} LOW against {len(beside)}: p99 wait {beside_s:.2f} s, alone {alone_s:.2f} s ({ratio:.1f} times)"
    )


async def age(lab: Lab) -> str:
    """One LOW task under a stream of NORMAL ones that never leaves a slot idle: its age brings it to its turn."""
    await lab.start_hub(engine_age_step_s=1.0)
    await lab.start_sidecars("ada", slots=SLOTS)
    done = asyncio.Event()
    stream: list[str] = []

    async def keep_busy() -> None:
        """So many NORMAL tasks wait at any time that the fleet is never without one."""
        while not done.is_set():
            counts = (await lab.stats()).tasks
            waiting = sum(one.count for one in counts if one.state == task_pb2.Task.STATE_QUEUED)
            if waiting < 10 * SLOTS:
                stream.extend(await lab.submit(*[spec("stream", WORK)] * (10 * SLOTS - waiting)))
            await asyncio.sleep(0.1)  # the pace of the submitter

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_busy())
        await lab.until_events("task.succeeded", SLOTS)
        (old,) = await lab.submit(spec("old", lane=task_pb2.LANE_LOW))
        try:
            await lab.until_tasks([old])
        finally:
            done.set()
    await _call_off(lab, stream)
    found = await lab.judge(Rules(all_end=True))
    (waited_s,) = _waits_s(found, [old])
    overtaken = _overtaken(found, old)
    assert overtaken, "it ran when nothing else waited, which shows no ageing"
    return f"a LOW task under a steady stream of NORMAL ones ran after {waited_s:.1f} s, before {overtaken} that waited"


async def _call_off(lab: Lab, names: list[str]) -> None:
    """Cancel what has not ended; what runs may end as it likes."""
    left = iter(names)

    async def cancel() -> None:
        for name in left:
            try:
                await lab.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=name))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:  # it has ended
                    raise

    async with asyncio.TaskGroup() as group:
        for _ in range(CANCELLERS):
            group.create_task(cancel())


def _waits_s(found: History, names: list[str]) -> list[float]:
    """From filing to first assignment."""
    first: dict[tuple[str, str], Event] = {}
    for event in found.events:
        first.setdefault((event.subject, event.type), event)
    return [first[name, "task.assigned"].at - first[name, "task.created"].at for name in names]


def _overtaken(found: History, name: str) -> int:
    """How many NORMAL tasks waited when this one was assigned."""
    assert found.tasks is not None
    waiting: set[str] = set()
    for event in found.events:
        if (event.subject, event.type) == (name, "task.assigned"):
            break
        if event.type == "task.created":
            waiting.add(event.subject)
        elif event.type == "task.assigned":
            waiting.discard(event.subject)
    return sum(found.tasks[one.removeprefix("tasks/")].lane is Lane.NORMAL for one in waiting)


SCENARIOS = (
    Scenario(
        name="noisy-submitter",
        passes="p99 wait of 10 tasks at most 3 times as long as alone",
        run=noise,
        quick={"small": 10, "flood": 300},
        long={"small": 10, "flood": 100_000},
        seeds=1,
        twins=(Twin(node="hub", guards=("lanes_off",), finds="times|inversions|still so: .*small"),),
    ),
    Scenario(
        name="ageing",
        passes="a LOW task under a steady stream of NORMAL ones gets its turn",
        run=age,
        quick={},
        long={},
        seeds=3,
        twins=(Twin(node="hub", guards=("ageing_off",), finds="still so: .*old"),),
    ),
)
