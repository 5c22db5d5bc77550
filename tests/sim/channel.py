"""The client's end: what a generated stub and the sidecar ask of a `grpc.aio` channel, over the simulated network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from tests.sim.net import REFUSED, Call, End, Net, Wire
from tests.sim.process import Process, never


def error_of(end: End) -> grpc.aio.AioRpcError:
    """The end as the client's code sees it."""
    return grpc.aio.AioRpcError(end.code, grpc.aio.Metadata(), grpc.aio.Metadata(*end.trailing), details=end.details)


class SimChannel:
    """A channel of a client process; it connects at the first call, and again when its wire is gone."""

    def __init__(self, net: Net, client: Process) -> None:
        self._net = net
        self._client = client
        self._wire: Wire | None = None

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        async def call(request: Any, *, timeout: float | None = None, metadata: Any = ()) -> Any:
            return await self._unary(
                method, request_serializer(request), response_deserializer, timeout, tuple(metadata)
            )

        return call

    def stream_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(*, metadata: Any = ()) -> StreamCall:
            return StreamCall(self.open(method, tuple(metadata)), request_serializer, response_deserializer)

        return call

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(request: Any, *, metadata: Any = ()) -> StreamCall:
            made = StreamCall(self.open(method, tuple(metadata)), request_serializer, response_deserializer)
            if made.call is not None:
                made.call.up.send(request_serializer(request))
            return made

        return call

    async def close(self) -> None:
        """End what is open."""
        await asyncio.sleep(0)
        if self._wire is not None:
            self._wire.close()

    def open(self, method: str, metadata: tuple[tuple[str, str], ...]) -> Call | None:
        """A call that is on its way to the hub; None: nobody listens there."""
        if self._wire is None or self._wire.broken:
            self._wire = self._net.dial(self._client)
        if self._wire is None:
            return None
        call = Call(self._wire, method, metadata)
        self._wire.server.expect(call)
        return call

    async def _unary(
        self,
        method: str,
        request: bytes,
        parse: Callable[[bytes], Any],
        timeout: float | None,
        metadata: tuple[tuple[str, str], ...],
    ) -> Any:
        if self._client.dead:
            await never()
        call = self.open(method, metadata)
        if call is None:
            await asyncio.sleep(self._net.latency_s())
            raise error_of(REFUSED)
        world = self._net.world
        if self._net.dice.random() < world.chance("call.twice"):  # a proxy that tries again
            world.fault("call.twice", self._client.name, method)
            again = self.open(method, metadata)
            if again is not None:
                again.up.send(request)
        if self._net.dice.random() < world.chance("call.lost"):
            world.fault("call.lost", self._client.name, method)
            assert self._wire is not None
            self._wire.fall_silent((False,), 60.0, keepalive=True)
        call.up.send(request)
        response: Any = None
        try:
            async with asyncio.timeout(timeout):
                while not isinstance(item := await call.down.get(), End):
                    response = parse(item)
        except TimeoutError:
            call.cancel()
            raise error_of(End(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed")) from None
        except asyncio.CancelledError:
            call.cancel()
            raise
        if item.code is not grpc.StatusCode.OK:
            raise error_of(item)
        return response


class StreamCall:
    """An open stream, as `grpc.aio` gives it: write, iterate, cancel."""

    def __init__(self, call: Call | None, serialize: Callable[[Any], bytes], parse: Callable[[bytes], Any]) -> None:
        self.call = call
        self._serialize = serialize
        self._parse = parse

    async def write(self, message: Any) -> None:
        call = self.call
        if call is None:
            raise error_of(REFUSED)
        if call.wire.client.dead:
            await never()
        await call.up.room()
        if call.ended is not None:
            if call.wire.net.dice.random() < 0.5:
                raise asyncio.InvalidStateError("RPC already finished.")
            raise error_of(call.ended)
        net = call.wire.net
        data = self._serialize(_breached(message, net))
        call.up.send(data)
        world = net.world
        if world.trace.verbose:
            world.trace.note(call.wire.client.name, "says", _told(message))
        if net.dice.random() < world.chance("message.twice") and _may_repeat(message):
            world.fault("message.twice", call.wire.client.name)
            call.up.send(data)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Any]:
        call = self.call
        if call is None:
            await asyncio.sleep(0.001)  # of the simulated clock: the way there and back
            raise error_of(REFUSED)
        while True:
            try:
                item = await call.down.get()
            except asyncio.CancelledError:
                call.cancel()  # as grpc.aio does when a read is cancelled
                raise
            if isinstance(item, End):
                if item.code is grpc.StatusCode.OK:
                    return
                raise error_of(item)
            message = self._parse(item)
            world = call.wire.net.world
            if world.trace.verbose:
                world.trace.note(call.wire.client.name, "hears", _told(message))
            yield message

    def cancel(self) -> bool:
        if self.call is not None:
            self.call.cancel()
        return True


def _breached(message: Any, net: Net) -> Any:
    """What a sidecar that is of another version, or ill, may say: a report that breaks the contract, a heartbeat that
    leaves out what it holds.
    """
    if getattr(message, "WhichOneof", lambda _: "")("body") not in ("report", "batch", "heartbeat"):
        return message
    chance = net.world.chance("message.breach")
    if not chance or (net.dice.random() >= chance and not message.HasField("heartbeat")):
        return message
    changed = type(message)()
    changed.CopyFrom(message)
    if changed.heartbeat.holdings and _forgets(net, chance):
        net.world.fault("message.breach", "wire", "a holding is left out")
        del changed.heartbeat.holdings[0]
        del changed.heartbeat.progress[:]
    for one in changed.batch.messages if changed.HasField("batch") else (changed,):
        if one.report.HasField("failed"):
            net.world.fault("message.breach", "wire")
            one.report.failed.failure.reason = "no reason of any kind"
    return changed


def _forgets(net: Net, chance: float) -> bool:
    """Does a sidecar leave something out for a while? One heartbeat without it would be nothing."""
    spell = int(net.world.loop.time() / (60.0 * net.world.mix.scale))
    return net.world.dice("forgets", spell).random() < chance / 3


def _may_repeat(message: Any) -> bool:
    """What no layer below could double without breaking its stream is left alone: hello."""
    return getattr(message, "hello", None) is None or not message.HasField("hello")


def _told(message: Any) -> str:
    return " ".join(str(message).split())[:300]
