"""A sidecar at the level of messages that says exactly what a test wants said, twice, late and out of turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from agentcom.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc, attach_pb2, task_pb2
from kit import channel

PATIENCE_S = 20.0


def offer(slots: int = 1, *capabilities: str) -> agent_pb2.Offer:
    """What serves the plain task of the tests."""
    return agent_pb2.Offer(
        capabilities=sorted(capabilities),
        executors=["shell"],
        tiers=[task_pb2.TIER_TRIVIAL],
        kinds=[task_pb2.TASK_KIND_WORK],
        slots=slots,
    )


class Scripted:
    """One stream of one agent."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.seq = 0
        self.heard: list[attach_pb2.AttachResponse] = []
        self.acked = 0
        #: The status that it ended with; None: it has not ended.
        self.error: grpc.aio.AioRpcError | None = None
        self.reads = asyncio.Event()
        self.reads.set()
        self._news = asyncio.Event()

    async def read(self) -> None:
        """Take in what the hub says, while `reads` is set, until the end."""
        try:
            while True:
                await self.reads.wait()
                message = await self.call.read()
                if message is grpc.aio.EOF:
                    return
                for one in message.batch.messages if message.HasField("batch") else (message,):
                    self.heard.append(one)
                    self.acked = max(self.acked, one.ack)
                self._tell()
        except grpc.aio.AioRpcError as error:
            self.error = error
        except asyncio.CancelledError:
            if not self.call.cancelled():
                raise
        finally:
            self._tell()

    async def until(self, true: Any, what: str) -> Any:
        """What `true()` gives, when it is something."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (found := true()):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"after {PATIENCE_S:g} s still not so: {what}; heard {self.heard[-3:]}") from None
        return found

    async def assigned(self, count: int = 1) -> list[task_pb2.Holding]:
        """The first `count` assignments of this stream."""
        await self.until(lambda: len(self.holdings()) >= count, f"{count} assignments")
        return self.holdings()[:count]

    def holdings(self) -> list[task_pb2.Holding]:
        """Of every assignment on this stream."""
        return [message.assign.holding for message in self.heard if message.HasField("assign")]

    def taken(self) -> int:
        """The highest number heard: what is to be acked."""
        return max([message.seq for message in self.heard], default=0)

    async def say(self, **body: Any) -> None:
        """Something without a number."""
        await self.call.write(attach_pb2.AttachRequest(ack=self.taken(), **body))

    async def report(self, holding: task_pb2.Holding, **outcome: Any) -> int:
        """A report with the next number; gives the number."""
        self.seq += 1
        body = attach_pb2.Report(holding=holding, **outcome)
        await self.call.write(attach_pb2.AttachRequest(seq=self.seq, ack=self.taken(), report=body))
        return self.seq

    async def stored(self, seq: int) -> None:
        """Return when the hub says that it has stored this number."""
        await self.until(lambda: self.acked >= seq, f"the ack of {seq}")

    def _tell(self) -> None:
        self._news.set()


async def enrol(opened: grpc.aio.Channel, agent: str) -> None:
    """Make the agent, if it is not there."""
    stub: Any = agent_service_pb2_grpc.AgentServiceStub(opened)
    with contextlib.suppress(grpc.aio.AioRpcError):
        await stub.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id=agent), timeout=PATIENCE_S)


@contextlib.asynccontextmanager
async def attached(
    opened: grpc.aio.Channel, agent: str, offered: agent_pb2.Offer, **hello: Any
) -> AsyncIterator[Scripted]:
    """An open stream of the agent, welcomed."""
    stub: Any = agent_service_pb2_grpc.AgentServiceStub(opened)
    made = Scripted(stub.Attach(wait_for_ready=True))
    test = agent_pb2.SelfTest(passed=True)
    test.end_time.GetCurrentTime()
    hello.setdefault("version", "scripted")
    said = attach_pb2.Hello(agent=f"agents/{agent}", offer=offered, self_test=test, **hello)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(made.read())
        try:
            await made.call.write(attach_pb2.AttachRequest(hello=said))
            await made.until(lambda: any(m.HasField("welcome") for m in made.heard) or made.error, "a welcome")
            if made.error is not None:
                raise made.error
            yield made
        finally:
            made.call.cancel()
            made.reads.set()
            reader.cancel()


def dial(address: str) -> grpc.aio.Channel:
    """A connection of its own."""
    return channel.open_channel(channel.parse_address(address))
