"""The server's side of a connection: options that were measured, health, reflection, and an end in the right order.

The end: NOT_SERVING, then `drain` (say Goaway, end the streams), then stop. A stream that is still open makes
`stop(grace)` last the whole grace and reaches the peer as UNAVAILABLE; a drained one ends at once, and well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from kit import descriptors, errors, logs, wire

log = logs.get(__name__)

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # else a second hub binds the same port in silence and takes half of the connections
    ("grpc.keepalive_time_ms", int(wire.KEEPALIVE_S * 1000)),
    ("grpc.http2.ping_timeout_ms", int(wire.PING_TIMEOUT_S * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", int(wire.PING_INTERVAL_MIN_S * 1000)),
    # A little more than is taken: what lies between is refused by the gate, which says why and counts who does it.
    ("grpc.max_receive_message_length", wire.MESSAGE_BYTES_MAX + wire.MESSAGE_BYTES_MAX // 4),
    ("grpc.max_send_message_length", wire.MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", wire.METADATA_BYTES_MAX),
    ("grpc.max_concurrent_streams", wire.STREAMS_MAX),
    ("grpc.server.max_pending_requests", wire.CALLS_WAITING_SOFT_MAX),
    ("grpc.server.max_pending_requests_hard_limit", wire.CALLS_WAITING_MAX),
    ("grpc.server_handshake_timeout_ms", int(wire.HANDSHAKE_TIMEOUT_S * 1000)),
    ("grpc.max_connection_idle_ms", int(wire.CONNECTION_IDLE_S * 1000)),
)

Drain = Callable[[], Awaitable[None]]


class Server:
    """A grpc.aio server with health and reflection. Add servicers to `grpc`, then start; it is NOT_SERVING at first.

    `services` are the full names of the services that will be added, e.g. `agentcom.v1.TaskService`.
    """

    def __init__(self, *, services: Sequence[str], interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
        # maximum_concurrent_rpcs stays unset: it counts open streams, and a hub lives on open streams.
        room = ("grpc.max_allowed_incoming_connections", descriptors.connections_max())
        self.grpc = grpc.aio.server(interceptors=list(interceptors), options=(*OPTIONS, room))
        # Generated code registers each method twice: by name, and one by one for a path inside grpc that makes the
        # accept loop of grpc.aio wait for one future per method at every call (20 us for our 60 methods). By name is
        # enough.
        self.grpc.add_registered_method_handlers = _only_by_name  # type: ignore[method-assign, assignment]
        self._services = ("", *services)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.grpc)

    async def start(self, target: str, *, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen on `host:port` and return the port (0 lets the system choose). Raises Unavailable when it cannot."""
        try:
            if credentials is None:
                port = self.grpc.add_insecure_port(target)
            else:
                port = self.grpc.add_secure_port(target, credentials)
        except RuntimeError as error:
            raise errors.Unavailable(
                f"cannot listen on {target}: the address is in use or does not belong to this machine",
                reason="BIND_FAILED",
                metadata={"address": target},
            ) from error
        await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self.grpc.start()
        return port

    async def set_serving(self, serving: bool, *, but: Collection[str] = ()) -> None:
        """Tell health checks whether work is taken; the services in `but` serve in any case."""
        response = health_pb2.HealthCheckResponse
        await self._set(response.SERVING if serving else response.NOT_SERVING)
        for name in but:
            await self._health.set(name, response.SERVING)

    async def stop(self, *, grace_s: float, drain: Drain | None = None) -> None:
        """End in order; what is still open after `grace_s` (which bounds the drain, too) is cut."""
        await self._health.enter_graceful_shutdown()
        if drain is not None:
            try:
                async with asyncio.timeout(grace_s):
                    await drain()
            except TimeoutError:
                log.warning("server.drain_timed_out", grace_s=grace_s)
        await self.grpc.stop(grace_s)

    async def _set(self, status: int) -> None:
        for name in self._services:
            await self._health.set(name, status)


def _only_by_name(_service: str, _handlers: object) -> None:
    """Takes the place of a registration that is not wanted."""
