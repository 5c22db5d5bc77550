"""The bare floor: what the wire and the disk allow, with no features at all.

A grpc.aio server with raw bytes on both sides: submit -> one put -> group commit -> reply, and to each sidecar a stream
of assign (after the commit) and report -> one put -> group commit -> ack. No index, no events, no validation, nothing
parsed beyond a fixed header. It runs as a process of its own, as the hub does: `python -m tests.bench.floor FOLDER`.
"""

from __future__ import annotations

import argparse
import asyncio
import queue
import signal
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import lmdb
import uvloop

from kit import serving

SERVICE = "agentcom.bench.Floor"

# Up the stream: hello (number = slots) and report (number = seq; the task's number and the result follow).
UP = struct.Struct("<BQQ")
HELLO, REPORT = 1, 2
# Down the stream: an ack of reports, and with ASSIGN a task's number and its payload behind it.
DOWN = struct.Struct("<BQQ")
ACK, ASSIGN = 1, 2
# The length before each payload of a batch.
LENGTH = struct.Struct("<I")
NUMBER = struct.Struct(">Q")

MAP_BYTES = 16 << 30  # address space: a run writes some 300 MB
BATCH_COUNT_MAX = 512  # as the hub's writer
SWITCH_S = 0.0005  # two threads share the interpreter; the default of 5 ms makes each commit wait for the loop

Put = tuple[bytes, bytes]
Call = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(slots=True, eq=False)
class Sidecar:
    """One stream: what waits to be sent on it."""

    free: int
    acked: int = 0
    assigns: deque[tuple[int, bytes]] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Writer:
    """The group commit: functions of one transaction are whatever arrived during the last fsync."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._env = lmdb.open(str(folder), map_size=MAP_BYTES, sync=True)
        self._loop = loop
        self._queue: queue.SimpleQueue[tuple[list[Put], Callable[[], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, puts: list[Put], then: Callable[[], None]) -> None:
        """Write, and call `then` on the loop when it is durable."""
        self._queue.put((puts, then))

    def close(self) -> None:
        """Write what waits, and close."""
        self._queue.put(None)
        self._thread.join()
        self._env.close()

    def _run(self) -> None:
        going = True
        while going:
            jobs = [self._queue.get()]
            try:
                while len(jobs) < BATCH_COUNT_MAX:
                    jobs.append(self._queue.get_nowait())
            except queue.Empty:
                pass
            if None in jobs:
                jobs, going = jobs[: jobs.index(None)], False
            with self._env.begin(write=True) as txn:
                for job in jobs:
                    assert job is not None
                    for key, value in job[0]:
                        txn.put(key, value)
            self._loop.call_soon_threadsafe(self._done, jobs)

    @staticmethod
    def _done(jobs: list[tuple[list[Put], Callable[[], None]] | None]) -> None:
        for job in jobs:
            assert job is not None
            job[1]()


class Floor:
    """The two methods."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._last = 0
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._sidecars: deque[Sidecar] = deque()

    async def submit(self, request: bytes, _context: Any) -> bytes:
        """One task."""
        self._last += 1
        number = self._last
        await self._durable([(b"t" + NUMBER.pack(number), request)])
        self._place(number, request)
        return NUMBER.pack(number)

    async def submit_many(self, request: bytes, _context: Any) -> bytes:
        """Tasks with a length before each, in one transaction."""
        first, at, tasks = self._last + 1, 0, []
        while at < len(request):
            (length,) = LENGTH.unpack_from(request, at)
            at += LENGTH.size
            self._last += 1
            tasks.append((self._last, request[at : at + length]))
            at += length
        await self._durable([(b"t" + NUMBER.pack(number), payload) for number, payload in tasks])
        for number, payload in tasks:
            self._place(number, payload)
        return NUMBER.pack(first)

    async def attach(self, _requests: Any, context: Any) -> None:
        """The stream of one sidecar."""
        kind, slots, _ = UP.unpack_from(await context.read())
        assert kind == HELLO
        sidecar = Sidecar(slots)
        self._sidecars.append(sidecar)
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._send(sidecar, context), name="send")
            while (message := await context.read()) is not grpc.aio.EOF:
                self._report(sidecar, message)
            sender.cancel()
            self._sidecars.remove(sidecar)

    def _report(self, sidecar: Sidecar, message: bytes) -> None:
        _, seq, number = UP.unpack_from(message)

        def stored() -> None:
            sidecar.acked = seq
            sidecar.free += 1
            if self._waiting:
                self._give(sidecar, self._waiting.popleft())
            sidecar.wake.set()

        self._writer.put([(b"r" + NUMBER.pack(number), message[UP.size :])], stored)

    async def _send(self, sidecar: Sidecar, context: Any) -> None:
        """The only writer of the stream; acks ride on assignments where there are any."""
        told = 0
        while True:
            await sidecar.wake.wait()
            sidecar.wake.clear()
            while sidecar.assigns:
                number, payload = sidecar.assigns.popleft()
                told = sidecar.acked
                await context.write(DOWN.pack(ASSIGN, told, number) + payload)
            if told != sidecar.acked:
                told = sidecar.acked
                await context.write(DOWN.pack(ACK, told, 0))

    def _place(self, number: int, payload: bytes) -> None:
        for _ in range(len(self._sidecars)):
            sidecar = self._sidecars[0]
            self._sidecars.rotate(-1)
            if sidecar.free:
                return self._give(sidecar, (number, payload))
        return self._waiting.append((number, payload))

    @staticmethod
    def _give(sidecar: Sidecar, task: tuple[int, bytes]) -> None:
        sidecar.free -= 1
        sidecar.assigns.append(task)
        sidecar.wake.set()

    async def _durable(self, puts: list[Put]) -> None:
        stored = asyncio.Event()
        self._writer.put(puts, stored.set)
        await stored.wait()


async def serve(folder: Path) -> None:
    """Serve until SIGTERM; the port is told in the file `port`."""
    loop = asyncio.get_running_loop()
    writer = Writer(folder, loop)
    floor = Floor(writer)
    server = grpc.aio.server(options=serving.OPTIONS)
    handlers: dict[str, Any] = {
        "Submit": grpc.unary_unary_rpc_method_handler(floor.submit),
        "SubmitMany": grpc.unary_unary_rpc_method_handler(floor.submit_many),
        "Attach": grpc.stream_stream_rpc_method_handler(floor.attach),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    part = folder / "port.part"
    part.write_text(f"127.0.0.1:{port}")
    part.rename(folder / "port")
    await ended.wait()
    await server.stop(0)
    writer.close()


def main() -> None:
    """`python -m tests.bench.floor FOLDER`."""
    parser = argparse.ArgumentParser(prog="floor")
    parser.add_argument("folder", type=Path)
    sys.setswitchinterval(SWITCH_S)
    uvloop.run(serve(parser.parse_args().folder))


if __name__ == "__main__":
    main()
