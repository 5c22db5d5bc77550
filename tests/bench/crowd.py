"""The busy half of the fleet: sidecars that hold what they are given until they are told to go on.

While they hold, every slot that could serve the waiting tasks is taken: so a queue of servable tasks stays full.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentcom.v1 import attach_pb2, task_pb2, task_service_pb2, task_service_pb2_grpc
from kit import channel
from tests.bench import figures, hub_side, load, payload

CAPABILITY = "crowd"
NAME = "crowd"
HELD = load.SIDECARS * load.SLOTS
WAIT_S_MAX = 60.0
FIRST_OVERTAKER = 900_000_000
"""Numbers of the tasks that overtake, far above those of the backlog."""


class Crowd:
    """Sidecars with a budget: so many tasks they complete at once; then they hold what they get."""

    def __init__(self, tasks: task_service_pb2_grpc.TaskServiceAsyncStub) -> None:
        self.tasks = tasks
        self._held: deque[tuple[hub_side.Sidecar, str]] = deque()
        self._full = asyncio.Event()
        self._budget = 0
        self._unstored = 0
        self._counted = asyncio.Event()
        self._arrivals: dict[int, asyncio.Future[float]] = {}
        self._overtaker = FIRST_OVERTAKER

    def on_assign(self, sidecar: hub_side.Sidecar, assign: attach_pb2.Assign) -> None:
        """Here is work."""
        arrival = self._arrivals.pop(payload.index_of(assign.spec.title), None)
        if arrival is not None:
            arrival.set_result(time.perf_counter())
        self._held.append((sidecar, assign.holding.task))
        if self._budget:
            self._complete_one()
            return
        sidecar.accept(assign.holding.task)
        if len(self._held) == HELD:
            self._full.set()

    def on_stored(self, _tag: object) -> None:
        """A report is on disk."""
        self._unstored -= 1
        if not self._unstored:
            self._counted.set()

    async def full(self) -> None:
        """Returns when every slot holds a task."""
        async with asyncio.timeout(WAIT_S_MAX):
            await self._full.wait()

    async def drain(self, count: int) -> float:
        """Complete `count` tasks, each as soon as it is there; their rate a second up to the last one stored."""
        await self.full()
        self._counted.clear()
        self._budget = count
        with load.no_gc():
            began = time.perf_counter()
            while self._held:
                self._complete_one()
            async with asyncio.timeout(WAIT_S_MAX):
                await self._counted.wait()
            return count / (time.perf_counter() - began)

    async def overtake(self, count: int) -> figures.Spread:
        """With all slots taken, submit an URGENT task, then free one slot: the time from the report to the arrival.

        The urgent task is of the same class as the servable half of the backlog, and must go before all of it.
        """
        waits = []
        for _ in range(count):
            await self.full()
            self._overtaker += 1
            arrival = self._arrivals[self._overtaker] = asyncio.get_running_loop().create_future()
            spec = payload.spec(self._overtaker, lane=task_pb2.LANE_URGENT, capability=CAPABILITY)
            await self.tasks.CreateTask(task_service_pb2.CreateTaskRequest(spec=spec))
            self._budget = 1
            began = time.perf_counter()
            self._complete_one()
            async with asyncio.timeout(WAIT_S_MAX):
                waits.append(await arrival - began)
        return figures.spread(waits)

    def _complete_one(self) -> None:
        self._full.clear()
        self._budget -= 1
        self._unstored += 1
        sidecar, task = self._held.popleft()
        sidecar.complete(task)

    async def file(self, count: int) -> None:
        """File tasks that the crowd can serve."""
        for at in range(0, count, 1000):
            specs = [payload.spec(0, capability=CAPABILITY) for _ in range(min(1000, count - at))]
            await self.tasks.BatchCreateTasks(task_service_pb2.BatchCreateTasksRequest(specs=specs))


@asynccontextmanager
async def attached(address: str) -> AsyncIterator[Crowd]:
    """A crowd whose every slot holds a task."""
    async with channel.open_channel(channel.parse_address(address)) as opened:
        crowd = Crowd(task_service_pb2_grpc.TaskServiceStub(opened))
        hellos = [hub_side.hello(f"{NAME}-{number}", capabilities=[CAPABILITY]) for number in range(load.SIDECARS)]
        async with hub_side.fleet(address, hellos, crowd.on_assign) as sidecars:
            for sidecar in sidecars:
                sidecar.on_stored = crowd.on_stored
            await crowd.file(HELD)
            await crowd.full()
            yield crowd
