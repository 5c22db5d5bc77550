"""A TCP proxy that loses what a test wants lost: it goes deaf in one direction, or cuts every connection at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

PIECE_BYTES = 64 * 1024


class Proxy:
    """Between a sidecar and its hub. `address` is where the sidecar is sent; `target` may change with a restart."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        #: What the hub says is read and thrown away.
        self.loses_replies = False
        #: Nothing passes in either direction, and nobody is told: a cable that was pulled.
        self.is_dark = False
        self._wires: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """End every connection, as a proxy that restarts does."""
        for wire in list(self._wires):
            wire.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        host, _, port = self.target.rpartition(":")
        wires = {writer}
        self._wires.add(writer)
        try:
            with contextlib.suppress(OSError):
                there, onward = await asyncio.open_connection(host, int(port))
                wires.add(onward)
                self._wires.add(onward)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(reader, onward, replies=False))
                    group.create_task(self._pass(there, writer, replies=True))
        finally:
            self._wires -= wires
            for wire in wires:
                wire.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(PIECE_BYTES):
                if self.is_dark or (replies and self.loses_replies):
                    continue
                sink.write(piece)
                await sink.drain()
        sink.transport.abort()


@contextlib.asynccontextmanager
async def proxied(target: str) -> AsyncIterator[Proxy]:
    """A proxy on a port of its own."""
    made = Proxy(target)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        made.cut()
        await server.wait_closed()
