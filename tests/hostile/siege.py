"""A hub in a process of its own under attack: what a well-behaved client notices, and what the attack leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from agentcom.v1 import hub_service_pb2, hub_service_pb2_grpc
from kit import channel
from tests.support import processes

ASK_EVERY_S: Final = 0.05
PATIENCE_S: Final = 20.0
"""Of the well-behaved client. A hub that lets it wait for longer does not serve it."""
SETTLE_S: Final = 40.0
"""What an attack has left behind (its sockets above all) is gone by then."""


class Size(NamedTuple):
    """What a process uses."""

    descriptors: int
    resident_mib: float
    threads: int


def size(pid: int) -> Size:
    """What a process uses now."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    open_now = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Size(open_now, int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"]))


class Client:
    """Asks again and again, as a person's command line does, and remembers how long it took."""

    def __init__(self, target: str, tls: channel.Tls | None = None) -> None:
        self._address = channel.parse_address(f"grpc{'s' if tls else ''}://{target}")
        self._tls = tls
        self.latencies_s: list[float] = []
        self.fresh_s: list[float] = []

    async def ask(self, wire: Any) -> None:
        """Once."""
        began = time.monotonic()
        await hub_service_pb2_grpc.HubServiceStub(wire).GetHub(
            hub_service_pb2.GetHubRequest(), timeout=PATIENCE_S, wait_for_ready=True
        )
        self.latencies_s.append(time.monotonic() - began)

    async def knock(self) -> None:
        """Once, on a connection of its own."""
        began = time.monotonic()
        async with channel.open_channel(self._address, self._tls) as wire:
            await self.ask(wire)
        self.fresh_s.append(time.monotonic() - began)

    async def keep_asking(self, enough: asyncio.Event) -> None:
        """On a connection that stays, and now and then on a new one."""
        async with channel.open_channel(self._address, self._tls) as wire:
            while not enough.is_set():
                for _ in range(10):
                    await self.ask(wire)
                    await asyncio.sleep(ASK_EVERY_S)
                await self.knock()


@contextlib.asynccontextmanager
async def watched(pid: int, client: Client) -> AsyncIterator[Size]:
    """While the block runs a client is served; afterwards a new one is, and the hub's descriptors are back."""
    await client.knock()
    before = size(pid)
    async with asyncio.TaskGroup() as group:
        enough = asyncio.Event()
        group.create_task(client.keep_asking(enough))
        try:
            yield before
        finally:
            enough.set()
    await client.knock()
    most = before.descriptors + 3  # the client's own last connections may not be reaped yet

    def settled() -> bool:
        return size(pid).descriptors <= most

    await processes.until(settled, f"{size(pid).descriptors} descriptors are {most} again", SETTLE_S)
