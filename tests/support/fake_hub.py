"""A hub that says what a test told it to: every method of the contract, scripted, on a real socket.

It is a synchronous server in threads of its own, because the command line runs an event loop of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf import message as protobuf
from google.protobuf import message_factory

from agentcom.v1 import (
    agent_service_pb2,
    goal_service_pb2,
    hub_service_pb2,
    registry_service_pb2,
    task_service_pb2,
)
from kit import errors, status

SERVICES = [
    service
    for module in (agent_service_pb2, goal_service_pb2, hub_service_pb2, registry_service_pb2, task_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
]
#: A message, a problem, or for a watch an iterable of both; called with the request when it is callable.
Answer = Any


class FakeHub:
    """Answers as scripted and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, Any]] = []
        self.deadlines_s: list[float | None] = []
        #: Set by a test that wants a watch to end only when it says so.
        self.release = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        for service in SERVICES:
            handlers = {method.name: self._handler(service.name, method) for method in service.methods}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self.release.set()
        self._server.stop(None).wait()

    def asked(self, method: str) -> list[Any]:
        """The requests of one method."""
        return [request for name, request in self.requests if name == method]

    def _handler(self, service: str, method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        name = f"{service}/{method.name}"
        request_type = message_factory.GetMessageClass(method.input_type)

        def next_answer(request: protobuf.Message, context: grpc.ServicerContext) -> Answer:
            self.requests.append((name, request))
            self.metadata.append(dict(context.invocation_metadata()))
            self.deadlines_s.append(context.time_remaining())
            answer = self.answers.get(name, errors.NotFound(f"no answer is scripted for {name}"))
            if isinstance(answer, list):  # one entry a call
                answer = answer.pop(0)
            return answer(request) if callable(answer) else answer

        def unary(request: protobuf.Message, context: grpc.ServicerContext) -> Any:
            return self._say(next_answer(request, context), context)

        def stream(request: protobuf.Message, context: grpc.ServicerContext) -> Iterator[Any]:
            answer = next_answer(request, context)
            for item in [answer] if isinstance(answer, errors.Problem) else answer:
                yield self._say(item, context)

        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(stream)
        make: Callable[..., Any] = (
            grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        )
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            stream if method.server_streaming else unary,
            request_deserializer=request_type.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        return handler

    def _say(self, answer: Any, context: grpc.ServicerContext) -> Any:
        if isinstance(answer, errors.Problem):
            context.abort_with_status(status.to_status(answer))
        return answer
