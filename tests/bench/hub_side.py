"""The hub under load: callers of TaskService, and sidecars that speak Attach and complete what they are given."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    attach_pb2,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
)
from kit import channel
from tests.bench import load, payload
from tests.bench.process import Process

LEAVE_S_MAX = 20.0
ENROL_AT_ONCE = 32  # calls under way; more only queue up in the hub
COMPLETED = attach_pb2.Completed(
    result=task_pb2.Result(summary="done: " + "nothing to change, the command went through " * 2)
)


def process(folder: Path) -> Process:
    """A hub with its default settings on a store of its own, not started yet."""
    folder.mkdir(parents=True)
    config = folder.parent / f"{folder.name}.toml"
    config.write_text(f'data = "{folder}"\n[server]\nlisten = "127.0.0.1:0"\n[log]\nform = "json"\n')
    module = "tests.bench.profiled_hub" if "BENCH_PROFILE" in os.environ else "hub"
    return Process("the hub", ["-m", module, "--config", str(config)], folder, folder / "hub.addr")


class HubSide:
    """The callers' half. `lane` and `capability` are those of every task that it submits."""

    def __init__(self, opened: grpc.aio.Channel, *, lane: payload.Lane = payload.NORMAL, capability: str = "") -> None:
        self.marks = load.Marks(0)
        self.tasks = task_service_pb2_grpc.TaskServiceStub(opened)
        self._lane, self._capability = lane, capability

    def prepare(self, count: int, batch: int) -> Sequence[Any]:
        specs = [payload.spec(index, lane=self._lane, capability=self._capability) for index in range(count)]
        if batch == 1:
            return [(self.tasks.CreateTask, task_service_pb2.CreateTaskRequest(spec=spec)) for spec in specs]
        return [
            (self.tasks.BatchCreateTasks, task_service_pb2.BatchCreateTasksRequest(specs=specs[at : at + batch]))
            for at in range(0, count, batch)
        ]

    async def submit(self, request: Any) -> None:
        call, body = request
        await call(body)


class Sidecar:
    """One agent at the level of the protocol. What it is given goes to `on_assign`, which may complete it at once."""

    def __init__(
        self, link: load.Link, hello: attach_pb2.Hello, on_assign: Callable[[Sidecar, attach_pb2.Assign], None]
    ) -> None:
        self.welcomed = asyncio.Event()
        self.holdings: dict[str, int] = {}
        self.on_stored: Callable[[Any], None] = lambda _tag: None
        """Called with the tag of each report whose ack has come."""
        self._link, self._hello, self._on_assign = link, hello, on_assign
        self._seq = self._received = 0
        self._unacked: deque[tuple[int, Any]] = deque()
        self._pace_s = 10.0
        self._left = False

    async def read(self) -> None:
        """Say hello and follow what the hub says until the stream ends."""
        self._link.say(attach_pb2.AttachRequest(hello=self._hello))
        async for arrived in self._link.call:
            for message in arrived.batch.messages if arrived.HasField("batch") else (arrived,):
                if self._take(message):
                    return

    def _take(self, message: attach_pb2.AttachResponse) -> bool:
        """Follow one message; whether it is the last."""
        while self._unacked and self._unacked[0][0] <= message.ack:
            self.on_stored(self._unacked.popleft()[1])
        self._received = max(self._received, message.seq)
        match message.WhichOneof("body"):
            case "assign" if not self._left:
                self.holdings[message.assign.holding.task] = message.assign.holding.generation
                self._on_assign(self, message.assign)
            case "welcome":
                self._pace_s = message.welcome.heartbeat_interval.ToTimedelta().total_seconds()
                self.welcomed.set()
            case "desired":
                self._pace_s = message.desired.next_heartbeat.ToTimedelta().total_seconds() or self._pace_s
            case "revoke" if not self._left:
                raise RuntimeError(f"{message.revoke.holding.task} was taken back: {message.revoke.reason}")
            case "goaway":
                return True
        return False

    async def beat(self) -> None:
        """Heartbeats at the pace that the hub sets."""
        await self.welcomed.wait()
        while True:
            await asyncio.sleep(self._pace_s)
            holdings = [task_pb2.Holding(task=task, generation=number) for task, number in self.holdings.items()]
            progress = [agent_pb2.Progress(phase="execute") for _ in holdings]
            for one in progress:
                one.last_output_time.GetCurrentTime()  # what shows no progress for minutes is taken back
            load_now = agent_pb2.Load(holdings=len(holdings), disk_free_bytes=1 << 40)
            beat = attach_pb2.Heartbeat(holdings=holdings, progress=progress, load=load_now)
            self._link.say(attach_pb2.AttachRequest(ack=self._received, heartbeat=beat))

    def complete(self, task: str, tag: Any = None) -> None:
        """Report a holding as done."""
        holding = task_pb2.Holding(task=task, generation=self.holdings.pop(task))
        self._seq += 1
        self._unacked.append((self._seq, tag))
        report = attach_pb2.Report(holding=holding, completed=COMPLETED)
        self._link.say(attach_pb2.AttachRequest(seq=self._seq, ack=self._received, report=report))

    def accept(self, task: str) -> None:
        """Report a holding as begun: what is not accepted within a minute goes back to the queue."""
        holding = task_pb2.Holding(task=task, generation=self.holdings[task])
        self._seq += 1
        report = attach_pb2.Report(holding=holding, accepted=attach_pb2.Accepted())
        self._link.say(attach_pb2.AttachRequest(seq=self._seq, ack=self._received, report=report))

    def leave(self) -> None:
        """Goodbye: what it holds goes back to the queue at once, and what still comes is let go by."""
        self._left = True
        self._seq += 1
        goodbye = attach_pb2.Goodbye(reason="the row is measured")
        self._link.say(attach_pb2.AttachRequest(seq=self._seq, ack=self._received, goodbye=goodbye))


def hello(agent: str, *, slots: int = load.SLOTS, capabilities: Sequence[str] = ()) -> attach_pb2.Hello:
    """What a healthy sidecar says first."""
    offer = agent_pb2.Offer(
        capabilities=sorted(capabilities),
        executors=["shell"],
        tiers=[task_pb2.TIER_TRIVIAL],
        kinds=[task_pb2.TASK_KIND_WORK],
        slots=slots,
    )
    test = agent_pb2.SelfTest(passed=True)
    test.end_time.GetCurrentTime()
    return attach_pb2.Hello(
        agent=f"agents/{agent}", offer=offer, version="bench", host="bench", self_test=test, features=["batch"]
    )


def _joined(messages: list[attach_pb2.AttachRequest]) -> attach_pb2.AttachRequest:
    batch = attach_pb2.AttachRequestBatch(messages=messages)
    return attach_pb2.AttachRequest(ack=messages[-1].ack, batch=batch)


async def enrol(opened: grpc.aio.Channel, agents: Sequence[str]) -> None:
    """Make the agents, where they are not there yet."""
    stub = agent_service_pb2_grpc.AgentServiceStub(opened)
    names = iter(agents)

    async def some() -> None:
        for name in names:
            try:
                await stub.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id=name))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                    raise

    async with asyncio.TaskGroup() as group:
        for _ in range(min(ENROL_AT_ONCE, len(agents))):
            group.create_task(some())


@asynccontextmanager
async def fleet(
    address: str,
    hellos: Sequence[attach_pb2.Hello],
    on_assign: Callable[[Sidecar, attach_pb2.Assign], None],
    ready: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[list[Sidecar]]:
    """Sidecars that are attached and welcomed, each on a connection of its own; they say goodbye at the end.

    `ready` is awaited between the preparations and the first Attach.
    """
    target = channel.parse_address(address)
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(channel.open_channel(target)) for _ in hellos]
        await enrol(channels[0], [said.agent.removeprefix("agents/") for said in hellos])
        if ready is not None:
            await ready()
        async with asyncio.TaskGroup() as group:
            sidecars, writers, readers = [], [], []
            for opened, said in zip(channels, hellos, strict=True):
                call: Any = agent_service_pb2_grpc.AgentServiceStub(opened).Attach(wait_for_ready=True)
                stack.callback(call.cancel)
                link = load.Link(call, _joined)
                sidecar = Sidecar(link, said, on_assign)
                sidecars.append(sidecar)
                writers += [group.create_task(link.write()), group.create_task(sidecar.beat())]
                readers.append(group.create_task(sidecar.read()))
            for sidecar in sidecars:
                await sidecar.welcomed.wait()
            try:
                yield sidecars
            finally:
                for sidecar in sidecars:
                    sidecar.leave()
                await asyncio.wait(readers, timeout=LEAVE_S_MAX)
                for task in (*writers, *readers):
                    task.cancel()


@asynccontextmanager
async def attached(
    address: str,
    *,
    sidecars: int = load.SIDECARS,
    lane: payload.Lane = payload.NORMAL,
    capability: str = "",
    name: str = "bench",
) -> AsyncIterator[HubSide]:
    """The hub with sidecars that complete at once and note when."""
    async with channel.open_channel(channel.parse_address(address)) as opened:
        side = HubSide(opened, lane=lane, capability=capability)

        def on_assign(sidecar: Sidecar, assign: attach_pb2.Assign) -> None:
            index = payload.index_of(assign.spec.title)
            side.marks.arrived[index] = time.perf_counter()
            sidecar.complete(assign.holding.task, index)

        capabilities = [capability] if capability else []
        hellos = [hello(f"{name}-{number}", capabilities=capabilities) for number in range(sidecars)]
        async with fleet(address, hellos, on_assign) as attached_sidecars:
            for sidecar in attached_sidecars:
                sidecar.on_stored = lambda index: side.marks.store(index)
            yield side
