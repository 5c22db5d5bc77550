"""A man in the middle who understands gRPC: it drops, doubles, delays and reorders the *messages* of Attach streams.

Every call is forwarded, with its metadata and its status. It ends gRPC on both sides, so keepalive pings are answered
by it and not by the other end: what it swallows, only the application can miss. That is what a proxy of layer 7 does.

A rule looks at one message and says what becomes of it: `Pass`, by default; a list of messages (empty: it is lost; two:
it is doubled); or `Later`. Rules see the messages one by one: the optional batches are negotiated away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from agentcom.v1 import attach_pb2
from kit import channel, serving

Up = attach_pb2.AttachRequest
Down = attach_pb2.AttachResponse

ATTACH = "/agentcom.v1.AgentService/Attach"
#: Messages of a stream that are remembered, so that a test can say them again.
SEEN_MAX = 10_000


@dataclass(frozen=True)
class Later:
    """Pass it on after so long; what comes behind it goes ahead."""

    delay_s: float


#: None: pass it on as it is.
Verdict = Sequence[Any] | Later | None
Rule = Callable[[Any], Verdict]


def kind(message: Up | Down) -> str:
    """What a message is: "report.completed", "heartbeat", "assign", ...; "ack" for a bare one."""
    if isinstance(message, Up) and message.HasField("report"):
        return f"report.{message.report.WhichOneof('outcome')}"
    return message.WhichOneof("body") or "ack"


def drop(*kinds: str) -> Rule:
    """Lose messages of these kinds (by their beginning)."""
    return lambda message: [] if kind(message).startswith(kinds) else None


def pass_all(_message: Up | Down) -> None:
    """The rule of a middle that is only there."""


class Line:
    """One Attach stream, seen from the middle."""

    def __init__(self, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        self.ups: deque[Up] = deque(maxlen=SEEN_MAX)
        self.downs: deque[Down] = deque(maxlen=SEEN_MAX)
        self.to_hub: asyncio.Queue[Up | None] = asyncio.Queue()
        self.to_sidecar: asyncio.Queue[Down | None] = asyncio.Queue()
        #: The status that ended it, once it has ended.
        self.code: grpc.StatusCode | None = None
        self.cut = asyncio.Event()

    def say_up(self, message: Up) -> None:
        """Say something to the hub in the sidecar's name."""
        self.to_hub.put_nowait(message)

    def say_down(self, message: Down) -> None:
        """Say something to the sidecar in the hub's name."""
        self.to_sidecar.put_nowait(message)


class Middle:
    """Between sidecars and their hub; `address` is where the sidecars are sent."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self.up: Rule = pass_all
        self.down: Rule = pass_all
        #: Every stream so far, oldest first.
        self.lines: list[Line] = []
        self._channel: grpc.aio.Channel | None = None

    @property
    def line(self) -> Line:
        """The newest stream."""
        return self.lines[-1]

    def cut(self) -> None:
        """End every stream."""
        for line in self.lines:
            line.cut.set()

    def handler(self, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        """Any method is forwarded as a stream of bytes: on the wire there is no difference."""

        async def serve(requests: AsyncIterator[Any], context: Any) -> None:  # grpc.aio looks for a coroutine function
            await (self._attach if method == ATTACH else self._forward)(method, requests, context)

        return grpc.stream_stream_rpc_method_handler(
            serve,
            request_deserializer=Up.FromString if method == ATTACH else None,
            response_serializer=Down.SerializeToString if method == ATTACH else None,
        )

    async def connect(self) -> None:
        """Dial the hub; a call waits for it."""
        self._channel = channel.open_channel(channel.parse_address(self.target))

    async def close(self) -> None:
        """Hang up."""
        if self._channel is not None:
            await self._channel.close()

    def _call(self, method: str, context: Any, *, parsed: bool) -> tuple[Any, dict[str, str]]:
        assert self._channel is not None
        metadata = [(key, value) for key, value in context.invocation_metadata() if not key.startswith("user-agent")]
        call = self._channel.stream_stream(
            method,
            request_serializer=Up.SerializeToString if parsed else None,
            response_deserializer=Down.FromString if parsed else None,
        )(metadata=metadata, wait_for_ready=False)
        return call, dict(metadata)

    async def _forward(self, method: str, requests: AsyncIterator[bytes], context: Any) -> None:
        call, _ = self._call(method, context, parsed=False)
        try:
            async for request in requests:
                await call.write(request)
            await call.done_writing()
            async for response in call:
                await context.write(response)
            await _same_status(call, context)
        finally:
            call.cancel()

    async def _attach(self, method: str, requests: AsyncIterator[Up], context: Any) -> None:
        call, metadata = self._call(method, context, parsed=True)
        line = Line(metadata)
        self.lines.append(line)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._take_up(line, requests, group)),
                    group.create_task(self._take_down(line, call, group)),
                    group.create_task(_write_up(line, call)),
                ]
                down = group.create_task(_write_down(line, context))
                cut = group.create_task(line.cut.wait())
                await asyncio.wait([down, cut], return_when=asyncio.FIRST_COMPLETED)
                for task in (*tasks, down, cut):
                    task.cancel()
            if context.cancelled():  # the sidecar has gone: there is nobody to tell
                return
            if line.cut.is_set():
                line.code = grpc.StatusCode.UNAVAILABLE
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the middle has cut the stream")
            line.code = await call.code()
            await _same_status(call, context)
        finally:
            call.cancel()

    async def _take_up(self, line: Line, requests: AsyncIterator[Up], group: asyncio.TaskGroup) -> None:
        async for message in requests:
            if message.HasField("hello"):
                _alone(message.hello.features)
            line.ups.append(message)
            _decide(self.up, message, line.to_hub, group)
        line.to_hub.put_nowait(None)

    async def _take_down(self, line: Line, call: Any, group: asyncio.TaskGroup) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for message in call:
                if message.HasField("welcome"):
                    _alone(message.welcome.features)
                line.downs.append(message)
                _decide(self.down, message, line.to_sidecar, group)
        line.to_sidecar.put_nowait(None)


def _alone(features: Any) -> None:
    """No batches: a rule wants to see each message."""
    kept = [feature for feature in features if feature != "batch"]
    del features[:]
    features.extend(kept)


def _decide(rule: Rule, message: Any, queue: asyncio.Queue[Any], group: asyncio.TaskGroup) -> None:
    verdict = rule(message)
    if isinstance(verdict, Later):
        group.create_task(_late(verdict.delay_s, message, queue))
        return
    for one in [message] if verdict is None else verdict:
        queue.put_nowait(one)


async def _late(delay_s: float, message: Any, queue: asyncio.Queue[Any]) -> None:
    await asyncio.sleep(delay_s)
    queue.put_nowait(message)


async def _write_up(line: Line, call: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while (message := await line.to_hub.get()) is not None:
            await call.write(message)
        await call.done_writing()


async def _write_down(line: Line, context: Any) -> None:
    while (message := await line.to_sidecar.get()) is not None:
        await context.write(message)


async def _same_status(call: Any, context: Any) -> None:
    """End as the call behind it ended."""
    code = await call.code()
    trailing = [(key, value) for key, value in (await call.trailing_metadata() or ())]
    if code is grpc.StatusCode.OK:
        context.set_trailing_metadata(tuple(trailing))
        return
    await context.abort(code, await call.details() or "", trailing_metadata=tuple(trailing))


class _Any(grpc.GenericRpcHandler):
    def __init__(self, middle: Middle) -> None:
        self._middle = middle

    def service(self, handler_call_details: Any) -> Any:
        return self._middle.handler(handler_call_details.method)


@contextlib.asynccontextmanager
async def between(target: str) -> AsyncIterator[Middle]:
    """A middle on a port of its own."""
    made = Middle(target)
    server = grpc.aio.server(options=serving.OPTIONS)
    server.add_generic_rpc_handlers((_Any(made),))
    made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await made.connect()
    await server.start()
    try:
        yield made
    finally:
        await made.close()
        await server.stop(0)
