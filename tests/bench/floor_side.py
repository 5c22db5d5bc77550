"""The floor under load: the counterpart of `hub_side` in raw bytes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from kit import channel
from tests.bench import floor, load, payload
from tests.bench.process import Process

INDEX = floor.NUMBER
RESULT = b"r" * 100  # about the size of the hub's smallest report
SLOTS = load.SLOTS


def process(folder: Path) -> Process:
    """The floor, not started yet."""
    folder.mkdir(parents=True)
    return Process("the floor", ["-m", "tests.bench.floor", str(folder)], folder, folder / "port")


class FloorSide:
    """The callers' half."""

    def __init__(self, opened: grpc.aio.Channel) -> None:
        self.marks = load.Marks(0)
        self._one: Any = opened.unary_unary(f"/{floor.SERVICE}/Submit")
        self._many: Any = opened.unary_unary(f"/{floor.SERVICE}/SubmitMany")

    def prepare(self, count: int, batch: int) -> Sequence[Any]:
        tasks = [INDEX.pack(index) + b"x" * (payload.TASK_BYTES - INDEX.size) for index in range(count)]
        if batch == 1:
            return [(self._one, task) for task in tasks]
        with_length = [floor.LENGTH.pack(len(task)) + task for task in tasks]
        return [(self._many, b"".join(with_length[at : at + batch])) for at in range(0, count, batch)]

    async def submit(self, request: Any) -> None:
        call, body = request
        await call(body)


class _Sidecar:
    """One stream, whose tasks are done as they come."""

    def __init__(self, side: FloorSide, link: load.Link) -> None:
        self._side, self._link = side, link
        self._seq = 0
        self._unacked: deque[tuple[int, int]] = deque()

    async def read(self) -> None:
        self._link.say(floor.UP.pack(floor.HELLO, SLOTS, 0))
        async for message in self._link.call:
            kind, acked, number = floor.DOWN.unpack_from(message)
            while self._unacked and self._unacked[0][0] <= acked:
                self._side.marks.store(self._unacked.popleft()[1])
            if kind == floor.ASSIGN:
                (index,) = INDEX.unpack_from(message, floor.DOWN.size)
                self._side.marks.arrived[index] = time.perf_counter()
                self._seq += 1
                self._unacked.append((self._seq, index))
                self._link.say(floor.UP.pack(floor.REPORT, self._seq, number) + RESULT)


@asynccontextmanager
async def attached(address: str, sidecars: int = load.SIDECARS) -> AsyncIterator[FloorSide]:
    """The floor with its sidecars attached, each on a connection of its own."""
    target = channel.parse_address(address)
    channels = [channel.open_channel(target) for _ in range(sidecars + 1)]
    side = FloorSide(channels[0])
    async with asyncio.TaskGroup() as group:
        tasks, calls = [], []
        for opened in channels[1:]:
            call: Any = opened.stream_stream(f"/{floor.SERVICE}/Attach")()
            link = load.Link(call)
            calls.append(call)
            tasks += [group.create_task(link.write()), group.create_task(_Sidecar(side, link).read())]
        try:
            yield side
        finally:
            for task in tasks:
                task.cancel()
            for call in calls:
                call.cancel()
    for opened in channels:
        await opened.close()
