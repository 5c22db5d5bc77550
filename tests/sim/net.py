"""The network: calls over wires, in order on each way, late, bounded, and broken in the ways in which networks break.

A wire is one connection of one client to the hub. Each call on it has a way up and a way down. A wire can be reset
(both ends learn of it), ended by a middle box, or fall silent in one direction or both: then what is sent is held, as
TCP would send it again and again, and either arrives when the wire heals or is lost when somebody gives up: the
keepalive of gRPC does after some seconds, unless a middle box answers in the place of the peer.

Messages are bytes on the wire: nothing is shared between the two sides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from kit import wire as wires
from tests.sim.process import Process

if TYPE_CHECKING:
    from tests.sim.server import Server
    from tests.sim.world import World

KEEPALIVE_S = wires.KEEPALIVE_S + wires.PING_TIMEOUT_S
"""A silent peer is given up after this."""


class End(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""
    trailing: tuple[tuple[str, str | bytes], ...] = ()


GONE = End(grpc.StatusCode.UNAVAILABLE, "the connection is gone")
REFUSED = End(grpc.StatusCode.UNAVAILABLE, "connection refused")


class Way:
    """One direction of one call."""

    def __init__(self, wire: Wire, up: bool) -> None:
        self._wire = wire
        self._up = up
        self._last_at = 0.0
        self._held: list[Any] = []
        #: Timers of one moment come in any order; what flies lands in the order in which it began.
        self._flight: deque[Any] = deque()
        self._arrived: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._flying = 0
        self.peak = 0
        self.on_end: Callable[[End], None] | None = None

    def send(self, item: Any) -> None:
        """Put something on the way."""
        self._flying += 1
        self.peak = max(self.peak, self._flying)
        if self._wire.silent(self._up) and not self._flight:
            self._held.append(item)
        else:  # behind what is on its way already: it is held, too, when it lands
            self._flight.append(item)
            self._fly()

    def heal(self) -> None:
        """What was held is sent again, before what was sent later and flies."""
        held, self._held = self._held, []
        self._flight.extendleft(reversed(held))
        for _ in held:
            self._fly()

    async def room(self) -> None:
        """Wait while too much is unread."""
        while self._flying >= self._wire.net.world.mix.window:
            future = asyncio.get_running_loop().create_future()
            self._writers.append(future)
            await future

    async def get(self) -> Any:
        """The next thing that arrives."""
        while not self._arrived:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        self._flying -= 1
        self._wake_writers()
        return self._arrived.popleft()

    def cut(self, end: End) -> None:
        """Nothing more comes but the end."""
        if self._wire.net.dice.random() < 0.5:
            self._flying -= len(self._arrived)
            self._arrived.clear()
        self._arrive(end)
        self._flying += 1

    def _fly(self) -> None:
        net = self._wire.net
        at = max(self._last_at, net.world.loop.time() + net.latency_s())
        self._last_at = at
        net.world.loop.call_at(at, self._land, context=Context())

    def _land(self) -> None:
        item = self._flight.popleft()
        if self._wire.broken:
            return
        if self._wire.silent(self._up):
            self._held.append(item)
            return
        self._arrive(item)

    def _arrive(self, item: Any) -> None:
        if isinstance(item, End) and self.on_end is not None:
            self.on_end(item)
        self._arrived.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writers(self) -> None:
        while self._writers:
            future = self._writers.popleft()
            if not future.done():
                future.set_result(None)
                break

    def release(self) -> None:
        """The call is over: nobody waits for room any more."""
        self._flying = 0
        while self._writers:
            future = self._writers.popleft()
            if not future.done():
                future.set_result(None)


class Wire:
    """One connection of a client's process to the hub's."""

    def __init__(self, net: Net, client: Process, server: Server) -> None:
        self.net = net
        self.client = client
        self.server = server
        self.broken = False
        self._silent = {True: False, False: False}
        self._heal_at = 0.0
        self.calls: list[Call] = []

    def silent(self, up: bool) -> bool:
        """Does nothing come through in this direction?"""
        return self._silent[up]

    def fall_silent(self, ways: tuple[bool, ...], for_s: float, *, keepalive: bool) -> None:
        """Nothing comes through for some time; with `keepalive` both ends give up before, when it is long."""
        for up in ways:
            self._silent[up] = True
        loop = self.net.world.loop
        if keepalive and for_s > KEEPALIVE_S:
            loop.call_later(KEEPALIVE_S, self.reset, "keepalive", context=Context())
        loop.call_later(for_s, self.heal, context=Context())

    def heal(self) -> None:
        """It works again: what was held arrives, or TCP has given up meanwhile."""
        if self.broken or not any(self._silent.values()):
            return
        self._silent = {True: False, False: False}
        if self.net.dice.random() < 0.3:
            self.reset("given up")
            return
        for call in self.calls:
            call.up.heal()
            call.down.heal()

    def reset(self, why: str) -> None:
        """Both ends learn that it is gone."""
        if self.broken:
            return
        self.broken = True
        self.net.wires.pop(self, None)
        self.net.world.trace.note(self.client.name, "wire.reset", why)
        for call in list(self.calls):
            call.lost()

    def close(self) -> None:
        """The client closes it: the hub learns of it when that comes through."""
        if not self.broken:
            for call in list(self.calls):
                call.cancel()
            self.net.wires.pop(self, None)


class Call:
    """One call, with both of its ends: `server` takes it up when it arrives there."""

    def __init__(self, wire: Wire, method: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self.wire = wire
        self.method = method
        self.metadata = metadata
        self.up = Way(wire, up=True)
        self.down = Way(wire, up=False)
        self.ended: End | None = None
        self.task: asyncio.Task[Any] | None = None
        #: More than one message goes one of the ways; known when a handler has it.
        self.is_stream = False
        self._stopped = False
        self.down.on_end = self._down_end
        self.up.on_end = self._up_end
        wire.calls.append(self)

    def _down_end(self, end: End) -> None:
        """The client learns how it ended."""
        self.ended = self.ended or end
        self.up.release()
        self._forget()

    def _up_end(self, end: End) -> None:
        """The server learns that the client has gone: grpc.aio cancels the handler."""
        self.stop_handler()

    def stop_handler(self) -> None:
        self._stopped = True
        self.down.release()
        if self.task is not None:
            self.task.cancel()

    @property
    def stopped(self) -> bool:
        """Did the client go before the handler was done?"""
        return self._stopped

    def lost(self) -> None:
        """The connection is gone: both ends are told."""
        if self.ended is None:
            self.down.cut(GONE)
        self.up.cut(GONE)
        self.stop_handler()

    def end_by_middle_box(self) -> None:
        """Whoever stands between them ends it: in good form for the client, as a cancel for the server."""
        self.down.send(End(grpc.StatusCode.OK))
        self.stop_handler()

    def cancel(self) -> None:
        """The client ends it."""
        if self.ended is None:
            self.ended = End(grpc.StatusCode.CANCELLED, "the client cancelled")
            self.up.send(self.ended)
            self.up.release()

    def finish(self, end: End) -> None:
        """The server ends it."""
        self.down.send(end)

    def _forget(self) -> None:
        if self in self.wire.calls:
            self.wire.calls.remove(self)


class Net:
    """All wires, and where the hub is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = world.dice("net")
        self.wires: dict[Wire, None] = {}
        #: None: no process listens.
        self.server: Server | None = None
        #: Client processes that are cut off, by their name.
        self.partitioned: dict[str, float] = {}

    def latency_s(self) -> float:
        """How long a message takes."""
        latency_s = self.world.mix.latency_s * (0.5 + self.dice.random())
        if self.dice.random() < self.world.chance("message.slow"):
            self.world.tally.faults["message.slow"] += 1
            latency_s += self.dice.choice((0.2, 1.0, 3.0))
        return latency_s

    def dial(self, client: Process) -> Wire | None:
        """A connection; None: it is refused."""
        if self.server is None:
            return None
        wire = Wire(self, client, self.server)
        self.wires[wire] = None
        until = self.partitioned.get(client.name.partition("/")[0], 0.0)
        left_s = until - self.world.loop.time()
        if left_s > 0:
            wire.fall_silent((True, False), left_s, keepalive=True)
        return wire

    def of(self, name: str) -> list[Wire]:
        """The wires of a process."""
        return [wire for wire in self.wires if wire.client.name == name]

    def process_died(self, process: Process) -> None:
        """Its kernel closes its sockets; or its machine went, and the peers hear nothing."""
        for wire in list(self.wires):
            if wire.client is process or wire.server.process is process:
                if self.dice.random() < 0.8:
                    self.world.loop.call_later(self.latency_s(), wire.reset, "peer died", context=Context())
                else:
                    wire.fall_silent((True, False), KEEPALIVE_S + 1.0, keepalive=True)
