"""A TCP proxy that does to a connection what a bad network does: it loses, delays, throttles, stops reading, or cuts.

Each direction has its own faults (`up` is towards the hub, `down` back to the sidecar), and they may change at any
time. What is lost is read and thrown away, so the sender's kernel believes it was delivered: that is what a middle box
that has forgotten a connection looks like from above TCP. For a kernel that gets no answer see `netns`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

PIECE_BYTES = 64 * 1024
#: Pieces on their way in one direction of one connection: beyond it the sender is pushed back.
PIECES_MAX = 256
#: How often a connection is looked at for idleness, as a share of the time it may be idle.
IDLE_LOOK_SHARE = 0.1


@dataclass(eq=False)
class Way:
    """One direction of all connections."""

    #: Read and thrown away.
    is_lost: bool = False
    delay_s: float = 0.0
    #: None: as fast as it goes.
    bytes_per_s: float | None = None
    #: What was passed on and what was thrown away.
    passed_bytes: int = 0
    lost_bytes: int = 0
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._flowing.set()

    def stop_reading(self) -> None:
        """Read no more: the sender's buffers fill up, and then it waits."""
        self._flowing.clear()

    def read_on(self) -> None:
        """The end of `stop_reading`."""
        self._flowing.set()

    async def flowing(self) -> None:
        """Return when reading is wanted."""
        await self._flowing.wait()


class Proxy:
    """Between a sidecar and its hub. `address` is where the sidecar is sent; `target` may change with a restart."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self.up = Way()
        self.down = Way()
        #: A connection over which nothing came for so long is forgotten, as by a middle box. None: never.
        self.idle_s: float | None = None
        #: How it is forgotten: with a reset to both ends, or silently, so that each believes that it still is there.
        self.idle_resets = True
        #: Connections that were made, and that were forgotten as idle.
        self.connection_count = 0
        self.idle_count = 0
        self._wires: set[asyncio.StreamWriter] = set()
        self._links: set[_Link] = set()

    @property
    def forgets_all(self) -> bool:
        """Is every connection that its ends believe in forgotten here?"""
        return all(link.is_forgotten for link in self._links)

    @property
    def loses_replies(self) -> bool:
        """Is what the hub says thrown away?"""
        return self.down.is_lost

    @loses_replies.setter
    def loses_replies(self, lost: bool) -> None:
        self.down.is_lost = lost

    @property
    def is_dark(self) -> bool:
        """Does nothing pass in either direction, and is nobody told: a cable that was pulled?"""
        return self.up.is_lost and self.down.is_lost

    @is_dark.setter
    def is_dark(self, dark: bool) -> None:
        self.up.is_lost = self.down.is_lost = dark

    def cut(self) -> None:
        """End every connection, as a proxy that restarts does."""
        for wire in list(self._wires):
            wire.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        host, _, port = self.target.rpartition(":")
        wires, link = {writer}, _Link()
        self._wires.add(writer)
        self._links.add(link)
        self.connection_count += 1
        try:
            with contextlib.suppress(OSError):
                there, onward = await asyncio.open_connection(host, int(port))
                wires.add(onward)
                self._wires.add(onward)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(link, self.up, reader, onward))
                    group.create_task(self._pass(link, self.down, there, writer))
                    watch = group.create_task(self._watch_idle(link, wires))
                    await link.over.wait()
                    watch.cancel()
        finally:
            self._wires -= wires
            self._links.discard(link)
            for wire in wires:
                wire.transport.abort()

    async def _pass(self, link: _Link, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_MAX)
        loop = asyncio.get_running_loop()

        async def write() -> None:
            while True:
                due, piece = await pieces.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if way.bytes_per_s is not None:
                    await asyncio.sleep(len(piece) / way.bytes_per_s)
                if way.is_lost or link.is_forgotten:
                    way.lost_bytes += len(piece)
                    continue
                sink.write(piece)
                with contextlib.suppress(OSError):
                    await sink.drain()
                way.passed_bytes += len(piece)

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            with contextlib.suppress(OSError):
                await way.flowing()
                while piece := await source.read(PIECE_BYTES if way.bytes_per_s is None else 1024):
                    link.heard_at = loop.time()
                    await pieces.put((loop.time() + way.delay_s, piece))
                    await way.flowing()
            while not pieces.empty() and not sink.is_closing():  # noqa: ASYNC110  # what was said before the end goes on
                await asyncio.sleep(0.001)
            writing.cancel()
        sink.transport.abort()
        link.over.set()

    async def _watch_idle(self, link: _Link, wires: set[asyncio.StreamWriter]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(IDLE_LOOK_SHARE * (self.idle_s or 1.0))
            if self.idle_s is None or link.is_forgotten or loop.time() - link.heard_at < self.idle_s:
                continue
            self.idle_count += 1
            link.is_forgotten = True
            if self.idle_resets:
                for wire in wires:
                    wire.transport.abort()


class _Link:
    """What is known of one connection."""

    def __init__(self) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        self.is_forgotten = False
        self.over = asyncio.Event()


@contextlib.asynccontextmanager
async def proxied(target: str, host: str = "127.0.0.1") -> AsyncIterator[Proxy]:
    """A proxy on a port of its own."""
    made = Proxy(target)
    server = await asyncio.start_server(made.serve, host, 0)
    made.address = f"{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        made.cut()
        for way in (made.up, made.down):
            way.read_on()
        await server.wait_closed()
