"""The other side of a sidecar, both ways: a hub whose every word the test says, and hands whose work the test ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import duration_pb2

from agentcom.v1 import agent_service_pb2, agent_service_pb2_grpc, attach_pb2, task_pb2
from kit import channel, errors, ids, interceptors, principal, serving, status
from sidecar.child.control import Control
from sidecar.core.assignment import Assignment, Done, Failure, Holding, NotDone, Outcome
from sidecar.core.selftest import Finding, SelfTest

#: No test waits longer for a word; it is a bound for failures, never a pace.
PATIENCE_S = 10.0

GOOD = SelfTest.of((Finding(probe="git", passed=True, message="git 2"),), ended_at=1.0)
BAD = SelfTest.of((Finding(probe="disk", passed=False, message="3 bytes free, free some"),), ended_at=2.0)


def holding(number: int, generation: int = 1) -> Holding:
    """The holding of the test's task number so and so."""
    return Holding(task=ids.encode(number), generation=generation)


def proto(held: Holding) -> task_pb2.Holding:
    return task_pb2.Holding(task=f"tasks/{held.task}", generation=held.generation)


def seconds(value: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=int(value), nanos=round(value % 1 * 1e9))


class Line:
    """One Attach stream as the hub sees it. Sequence numbers are the test's business only where it says so."""

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[attach_pb2.AttachRequest | None] = asyncio.Queue()
        self._outgoing: asyncio.Queue[attach_pb2.AttachResponse | errors.Problem | None] = asyncio.Queue()
        self.seq = 0
        self.reading = asyncio.Event()
        self.reading.set()

    async def next(self, *kinds: str) -> attach_pb2.AttachRequest:
        """The next message of one of these kinds (any but bare acks and heartbeats when none is named)."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self._incoming.get()
                assert message is not None, f"the stream ended before {kinds or 'anything'} came"
                kind = message.WhichOneof("body")
                if kind in kinds or (not kinds and kind not in (None, "heartbeat")):
                    return message

    async def report(self) -> attach_pb2.Report:
        return (await self.next("report")).report

    async def ack_of(self, seq: int) -> attach_pb2.AttachRequest:
        """The first message that acks `seq`."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self._incoming.get()
                assert message is not None, f"the stream ended before ack {seq} came"
                if message.ack >= seq:
                    return message

    async def end(self) -> list[str | None]:
        """Wait for the end of the stream; returns the kinds of what still came."""
        kinds: list[str | None] = []
        async with asyncio.timeout(PATIENCE_S):
            while (message := await self._incoming.get()) is not None:
                kinds.append(message.WhichOneof("body"))
        return kinds

    def send(self, **fields: Any) -> None:
        self._outgoing.put_nowait(attach_pb2.AttachResponse(**fields))

    def sequenced(self, **fields: Any) -> int:
        self.seq += 1
        self.send(seq=self.seq, **fields)
        return self.seq

    def welcome(
        self, session: str = "s1", *, resumed: bool = False, holdings: list[Holding] | None = None, received: int = 0,
        heartbeat_s: float = 60.0, lease_s: float = 120.0,
    ) -> None:  # fmt: skip
        self.send(
            welcome=attach_pb2.Welcome(
                session=session,
                resumed=resumed,
                heartbeat_interval=seconds(heartbeat_s),
                lease_duration=seconds(lease_s),
                holdings=[proto(item) for item in holdings or []],
                received_seq=received,
            )
        )

    def assign(self, held: Holding, **spec: Any) -> int:
        return self.sequenced(assign=assign(held, **spec))

    def revoke(self, held: Holding, reason: str = "FENCED") -> int:
        return self.sequenced(revoke=attach_pb2.Revoke(holding=proto(held), reason=reason))

    def desired(self, *held: Holding, tail: tuple[Holding, ...] = (), next_s: float = 60.0, ack: int = 0) -> None:
        self.send(
            ack=ack,
            desired=attach_pb2.Desired(
                next_heartbeat=seconds(next_s),
                holdings=[proto(item) for item in held],
                tail=[proto(item) for item in tail],
            ),
        )

    def goaway(self, reason: str, *, delay_s: float = 0.0, final: bool = False) -> None:
        self.send(goaway=attach_pb2.Goaway(reason=reason, retry_delay=seconds(delay_s), final=final))

    def close(self) -> None:
        self._outgoing.put_nowait(None)

    def fail(self, problem: errors.Problem) -> None:
        self._outgoing.put_nowait(problem)

    async def serve(self, requests: AsyncIterator[attach_pb2.AttachRequest], context: Any) -> None:
        reader = asyncio.create_task(self._read(requests))
        try:
            while (message := await self._outgoing.get()) is not None:
                if isinstance(message, errors.Problem):
                    await context.abort_with_status(status.to_status(message))
                await context.write(message)
        finally:
            reader.cancel()
            self._incoming.put_nowait(None)

    async def _read(self, requests: AsyncIterator[attach_pb2.AttachRequest]) -> None:
        async for message in requests:
            await self.reading.wait()
            self._incoming.put_nowait(message)
        self._outgoing.put_nowait(None)


def assign(held: Holding, **spec: Any) -> attach_pb2.Assign:
    spec.setdefault("title", "write a number")
    spec.setdefault("command", "true")
    return attach_pb2.Assign(holding=proto(held), spec=task_pb2.TaskSpec(**spec))


# Its other methods answer UNIMPLEMENTED, which the type of a real servicer forbids.
_Servicer: Any = agent_service_pb2_grpc.AgentServiceServicer


class Hub(_Servicer):  # type: ignore[misc]  # its base is chosen at run time
    """A hub whose streams the test plays. Every message is checked against the contract, as the real one does."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[Line] = asyncio.Queue()
        self.metadata: list[dict[str, str]] = []
        #: Answers of EnrollAgent, in order: a response or a problem.
        self.enrolments: list[agent_service_pb2.EnrollAgentResponse | errors.Problem] = []
        self.enrolment_requests: list[agent_service_pb2.EnrollAgentRequest] = []

    async def line(self) -> Line:
        """The next stream that a sidecar opens."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._lines.get()

    async def EnrollAgent(self, request: Any, context: Any) -> Any:  # noqa: N802  # the contract's name
        self.enrolment_requests.append(request)
        answer = self.enrolments.pop(0)
        if isinstance(answer, errors.Problem):
            raise answer
        return answer

    async def Attach(self, requests: Any, context: Any) -> None:  # noqa: N802  # the contract's name
        self.metadata.append(dict(context.invocation_metadata()))
        line = Line()
        self._lines.put_nowait(line)
        await line.serve(requests, context)


@contextlib.asynccontextmanager
async def serve(hub: Hub, target: str = "127.0.0.1:0") -> AsyncIterator[int]:
    """Serve it; gives the port."""
    gate = interceptors.Gate(lambda context, method: principal.Principal(name="test", scope="agent"))
    server = serving.Server(services=["agentcom.v1.AgentService"], interceptors=[gate])
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(hub, server.grpc)
    port = await server.start(target)
    try:
        yield port
    finally:
        await server.grpc.stop(0)


class Hands:
    """Does nothing until the test says how it ended; stops at once when told to."""

    def __init__(self, self_test: SelfTest = GOOD) -> None:
        self.verdict = self_test
        self._begun: asyncio.Queue[tuple[Assignment, Control]] = asyncio.Queue()
        self._outcomes: dict[Holding, asyncio.Future[Outcome]] = {}
        self.recovered: list[Holding] = []
        self.running: list[Holding] = []
        self.history: list[str] = []

    async def begun(self) -> tuple[Assignment, Control]:
        """The next attempt that was begun."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._begun.get()

    def finish(self, held: Holding, outcome: Outcome | None = None) -> None:
        self._outcomes[held].set_result(outcome or Done(summary=f"did {held}"))

    async def run(self, assignment: Assignment, control: Control) -> Outcome:
        held = assignment.holding
        self._outcomes[held] = asyncio.get_running_loop().create_future()
        self.running.append(held)
        self.history.append(f"begin {held}")
        self._begun.put_nowait((assignment, control))
        stop = asyncio.create_task(control.stop.wait())
        ends: list[asyncio.Future[Any]] = [stop, self._outcomes[held]]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return self._outcomes[held].result() if self._outcomes[held].done() else stopped(held, control.stop.reason)
        finally:
            stop.cancel()
            self.running.remove(held)
            self.history.append(f"end {held}")

    async def recover(self, assignment: Assignment) -> Outcome:
        self.recovered.append(assignment.holding)
        return stopped(assignment.holding, "SIDECAR_RESTARTED")

    async def self_test(self) -> SelfTest:
        return self.verdict


def stopped(held: Holding, reason: str) -> NotDone:
    return NotDone(
        failure=Failure(reason=reason, message="stopped", attribution="agent"),
        wip_ref=f"refs/agentcom/wip/{held.task}/{held.generation}",
        stopped=True,
    )


def unavailable() -> errors.Problem:
    return errors.Unavailable("the hub restarts")


def connect(port: int) -> grpc.aio.Channel:
    return channel.open_channel(channel.Address("127.0.0.1", port))
