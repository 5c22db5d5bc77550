"""`python -m tests.faults.crowd ADDRESS COUNT SEED`: many idle sidecars in one process, which drop all at once.

Each is one stream on a connection of its own, at the level of the protocol, and comes back as real ones do: after a
full-jitter backoff from one second. It says `attached` when all are welcomed; at each line of its standard input all
drop at once, and when all are back it tells when each has dialled and when it was welcomed, in seconds from the drop.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

import grpc
import uvloop

from agentcom.v1 import agent_service_pb2_grpc, attach_pb2
from kit import backoff, channel
from tests.bench import hub_side

RECONNECT_BASE_S, RECONNECT_CAP_S = 1.0, 8.0
DIAL_S_MAX = 20.0


class Sidecar:
    """One of them."""

    def __init__(self, target: channel.Address, hello: attach_pb2.Hello, rng: random.Random) -> None:
        self._target = target
        self._hello = hello
        self._rng = rng
        self._call: Any = None
        self.welcomed = asyncio.Event()
        self.dialled_at = self.welcomed_at = 0.0

    async def run(self) -> None:
        """Be attached, and come back, for ever."""
        attempt = 0
        while True:
            self.dialled_at = time.monotonic()
            async with channel.open_channel(self._target) as wire:
                self._call = agent_service_pb2_grpc.AgentServiceStub(wire).Attach()
                try:
                    await self._stay(self._call)
                except asyncio.CancelledError:
                    if not self._call.cancelled():  # else it was dropped
                        raise
                except (grpc.aio.AioRpcError, TimeoutError):
                    pass
            attempt = 0 if self.welcomed_at > self.dialled_at else attempt + 1
            self.welcomed.clear()
            await asyncio.sleep(backoff.full_jitter(attempt, RECONNECT_BASE_S, RECONNECT_CAP_S, self._rng))

    async def _stay(self, call: Any) -> None:
        await call.write(attach_pb2.AttachRequest(hello=self._hello))
        async with asyncio.timeout(DIAL_S_MAX) as first:
            async for message in call:
                if message.HasField("welcome"):
                    first.reschedule(None)
                    self.welcomed_at = time.monotonic()
                    self.welcomed.set()

    def drop(self) -> None:
        """Lose the stream, without a word."""
        self.welcomed.clear()
        self._call.cancel()


async def stay(address: str, count: int, seed: int) -> None:
    """All of it."""
    target = channel.parse_address(address)
    hellos = [hub_side.hello(f"crowd-{number}", slots=1, capabilities=["crowd"]) for number in range(count)]
    async with channel.open_channel(target) as opened:
        await hub_side.enrol(opened, [hello.agent.removeprefix("agents/") for hello in hellos])
    rng = random.Random(seed)
    crowd = [Sidecar(target, hello, rng) for hello in hellos]
    async with asyncio.TaskGroup() as group:
        for sidecar in crowd:
            group.create_task(sidecar.run())
        for sidecar in crowd:
            await sidecar.welcomed.wait()
        print("attached", flush=True)
        while await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
            began = time.monotonic()
            for sidecar in crowd:
                sidecar.drop()
            for sidecar in crowd:
                await sidecar.welcomed.wait()
            dialled = sorted(sidecar.dialled_at - began for sidecar in crowd)
            welcomed = sorted(sidecar.welcomed_at - began for sidecar in crowd)
            print(json.dumps({"dialled": dialled, "welcomed": welcomed}), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Stay until killed."""
    address, count, seed = sys.argv[1:] if arguments is None else arguments
    uvloop.run(stay(address, int(count), int(seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
