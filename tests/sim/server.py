"""The hub's end: takes calls from the network and runs the real handlers behind the real interceptor.

Handlers are registered by the generated code, as with a grpc.aio server. Each call is a task of the hub's process; when
its client goes, the handler is cancelled, as grpc.aio does.
"""

from __future__ import annotations

import asyncio
import inspect
from contextvars import Context, ContextVar
from typing import Any

import grpc

from kit import interceptors
from tests.sim.net import Call, End
from tests.sim.process import Process, never

CALL: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call that a task of the hub serves; what it starts inherits it."""


class Aborted(grpc.aio.AbortError):
    """The handler ended its call with a status."""


class SimContext:
    """What a handler may ask of its call."""

    def __init__(self, call: Call, process: Process, parse: Any, serialize: Any) -> None:
        self._call = call
        self._process = process
        self._parse = parse
        self._serialize = serialize
        self.end: End | None = None

    async def read(self) -> Any:
        if self._process.dead:
            await never()
        item = await self._call.up.get()
        if item is None or isinstance(item, End):
            return grpc.aio.EOF
        return self._parse(item)

    async def write(self, message: Any) -> None:
        if self._process.dead:
            await never()
        await self._call.down.room()
        if not self._call.stopped:
            self._call.down.send(self._serialize(message))

    async def send_initial_metadata(self, _metadata: Any) -> None:
        await asyncio.sleep(0)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._call.metadata

    def peer(self) -> str:
        return f"sim:{self._call.wire.client.name}"

    def auth_context(self) -> dict[str, Any]:
        return {}

    def peer_identities(self) -> None:
        return None

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        self.end = End(code, details, tuple(trailing_metadata))
        await asyncio.sleep(0)  # it is sent
        raise Aborted("aborted")

    async def abort_with_status(self, status: grpc.Status) -> None:
        await self.abort(status.code, status.details, status.trailing_metadata or ())


class _Details:
    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


class Server:
    """Where the generated code registers its handlers, and where calls arrive."""

    def __init__(self, process: Process, gate: interceptors.Gate) -> None:
        self.process = process
        self._gate = gate
        self._handlers: dict[str, Any] = {}
        self._wrapped: dict[str, Any] = {}
        self.open: dict[asyncio.Task[Any], Call] = {}
        self.listening = True

    def add_generic_rpc_handlers(self, _handlers: Any) -> None:
        """By name is enough."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        for name, handler in handlers.items():
            self._handlers[f"/{service}/{name}"] = handler

    async def _wrapper(self, method: str) -> Any:
        """The handler of a method with the interceptor around it."""
        if method not in self._wrapped:
            given = self._handlers[method]

            async def continuation(_details: Any) -> Any:
                return given

            self._wrapped[method] = await self._gate.intercept_service(continuation, _Details(method))  # type: ignore[arg-type]  # stands in for it
        return self._wrapped[method]

    def expect(self, call: Call) -> None:
        """A call is on its way: it arrives with its headers."""
        call.up.send(("headers", call))
        call.wire.net.world.loop.call_soon(self._await_headers, call, context=Context())

    def _await_headers(self, call: Call) -> None:
        # The headers travel like every other item, so a silent or broken wire holds them up, too.
        task = call.wire.net.world.loop.create_task(self._accept(call), context=Context())
        call.wire.net.world.keep(task)

    async def _accept(self, call: Call) -> None:
        item = await call.up.get()
        if isinstance(item, End) or call.stopped:
            return
        if self.process.dead or not self.listening:
            call.finish(End(grpc.StatusCode.UNAVAILABLE, "the hub is going away"))
            return
        call.task = self.process.spawn(self._serve(call))
        call.task.set_name(f"call{call.method.rpartition('/')[2]}")
        self.open[call.task] = call
        call.task.add_done_callback(lambda task: self.open.pop(task, None), context=Context())

    async def _serve(self, call: Call) -> None:
        handler = await self._wrapper(call.method)
        CALL.set(call)
        call.is_stream = handler.request_streaming or handler.response_streaming
        context = SimContext(call, self.process, handler.request_deserializer, handler.response_serializer)
        end = End(grpc.StatusCode.OK)
        try:
            if handler.request_streaming:
                await handler.stream_stream(None, context)
            elif handler.response_streaming:
                request = await context.read()
                responses = handler.unary_stream(request, context)
                if inspect.isawaitable(responses):  # it writes by itself
                    await responses
                else:
                    async for response in responses:
                        await context.write(response)
            else:
                request = await context.read()
                if request is grpc.aio.EOF:
                    return
                await context.write(await handler.unary_unary(request, context))
        except Aborted:
            assert context.end is not None
            end = context.end
        except asyncio.CancelledError:
            if not self.process.dead:
                call.finish(End(grpc.StatusCode.CANCELLED, "cancelled"))
            raise
        if not self.process.dead:
            self._judge(call, end)
            call.finish(end)

    def _judge(self, call: Call, end: End) -> None:
        if end.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
            world = self.process.world
            world.trace.errors.append(f"{world.loop.time():.3f} {call.method} ended {end.code.name}: {end.details}")

    def stop(self) -> None:
        """Cut what is still open."""
        self.listening = False
        for task in list(self.open):
            task.cancel()
