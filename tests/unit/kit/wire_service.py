"""A service of four methods, one of each kind, made without a .proto of its own; its one rule: `name` is not empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from kit import channel, interceptors, principal, serving

NAME = "kit.test.EchoService"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def _message() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="kit/test/echo.proto", package="kit.test", syntax="proto3", dependency=["buf/validate/validate.proto"]
    )
    inner = file.message_type.add(name="Part")
    inner.field.add(name="name", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    inner.field[0].options.Extensions[validate_pb2.field].string.min_len = 1
    outer = file.message_type.add(name="Echo")
    outer.field.add(name="name", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    outer.field[0].options.Extensions[validate_pb2.field].string.min_len = 1
    outer.field.add(name="parts", number=2, type="TYPE_MESSAGE", label="LABEL_REPEATED", type_name=".kit.test.Part")
    service = file.service.add(name="EchoService")
    for kind in KINDS:
        service.method.add(name=kind, input_type=".kit.test.Echo", output_type=".kit.test.Echo")
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kit.test.Echo"))


Echo = _message()


def admit(_context: interceptors.Context, _method: str) -> principal.Principal:
    """Let everybody in, as an admin."""
    return principal.Principal("tokens/test", "admin")


class Wire:
    """A server with the given handler functions (by kind), and a channel to it."""

    def __init__(self, authenticate: interceptors.Authenticate = admit, **handlers: Any) -> None:
        self.server = serving.Server(services=[NAME], interceptors=[interceptors.Gate(authenticate)])
        table = {
            kind: getattr(grpc, f"{kind}_rpc_method_handler")(
                handler, request_deserializer=Echo.FromString, response_serializer=Echo.SerializeToString
            )
            for kind, handler in handlers.items()
        }
        self.server.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, table),))

    async def __aenter__(self) -> Wire:
        port = await self.server.start("127.0.0.1:0")
        self.address = channel.Address("127.0.0.1", port)
        self.channel = channel.open_channel(self.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self.server.stop(grace_s=0)

    def call(self, kind: str, request: Any = None, requests: Sequence[Any] = (), **options: Any) -> Any:
        """Begin a call of that kind, with one request or with a stream of them."""
        make = getattr(self.channel, kind)(
            f"/{NAME}/{kind}", request_serializer=Echo.SerializeToString, response_deserializer=Echo.FromString
        )
        return make(iter(requests), **options) if kind.startswith("stream") else make(request, **options)


async def outcome(call: Any, kind: str) -> list[str]:
    """Everything that a call answers; raises what it raises."""
    if kind.endswith("stream"):
        return [message.name async for message in call]
    return [(await call).name]
