"""One Attach stream: one reader, one writer, and between them and the session bounded places.

The reader only reads and hands on; when the session is slow the hub is pushed back. The writer asks `Outgoing` what to
write next, at the moment it can write: reports in their order first, then the heartbeat, then log, then a bare ack.
A heartbeat and a chunk of log are made only then, so a slow hub gets the newest state once and never a queue of old
ones, and every message carries the newest ack.

grpc.aio merges every end of a stream into EOF, lets one reader and one writer work at a time, and cancels the whole
call when a read is cancelled. So nobody here puts a timeout on a read, and a call is cancelled in the end whatever
happened (a forgotten one is never collected).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import grpc

from agentcom.v1 import agent_service_pb2_grpc, attach_pb2
from kit import errors, status

#: Messages read and not yet applied. More than a hub sends in one go (slots and their revokes); then the hub waits.
INBOUND_COUNT_MAX = 256

#: Messages that travel as one: what the contract allows.
BATCH_COUNT_MAX = 64

#: Bytes that travel as one; a report with all of its artefacts may be larger, and travels alone.
BATCH_BYTES_MAX = 512 * 1024

#: The optional part of the protocol that this is.
BATCH_FEATURE = "batch"

Sequenced = attach_pb2.Report | attach_pb2.Goodbye


class Ended(Exception):
    """The stream is over. `final`: do not come back by yourself."""

    def __init__(self, reason: str, message: str, *, retry_delay_s: float = 0.0, final: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_delay_s = retry_delay_s
        self.final = final
        #: What the hub's status meant; None when the stream ended in another way.
        self.problem: errors.Problem | None = None

    @classmethod
    def of(cls, problem: errors.Problem) -> Ended:
        """The end that a status means."""
        made = cls(problem.reason, problem.message, retry_delay_s=problem.retry_delay_s or 0.0)
        made.problem = problem
        return made


class Outgoing:
    """What waits to be written on one stream. Reports are bounded by the ledger that numbers them."""

    def __init__(
        self,
        *,
        ack: Callable[[], int],
        heartbeat: Callable[[], attach_pb2.Heartbeat],
        log: Callable[[], attach_pb2.LogChunk | None],
    ) -> None:
        self._ack = ack
        self._heartbeat = heartbeat
        self._log = log
        self._sequenced: deque[tuple[int, Sequenced]] = deque()
        self._heartbeat_due = False
        #: The ack that the other side has; None before `start`.
        self._acked: int | None = None
        self._batched = False
        self._wake = asyncio.Event()

    def start(self, acked: int, *, batched: bool = False) -> None:
        """The hub has answered hello: from here on messages are written. It knows the ack `acked`.

        `batched`: it takes several messages as one.
        """
        self._acked = acked
        self._batched = batched
        self._wake.set()

    def say(self, messages: Iterable[tuple[int, Sequenced]]) -> None:
        """Write sequenced messages, in this order."""
        self._sequenced.extend(messages)
        self._wake.set()

    def beat(self) -> None:
        """A heartbeat is due; due twice is due once."""
        self._heartbeat_due = True
        self._wake.set()

    def wake(self) -> None:
        """There may be log or an ack to write."""
        self._wake.set()

    async def next(self) -> attach_pb2.AttachRequest:
        """The next message; waits until there is one."""
        while (made := self._take()) is None:
            self._wake.clear()
            await self._wake.wait()
        self._acked = made.ack
        return made

    def _take(self) -> attach_pb2.AttachRequest | None:
        if self._acked is None:
            return None
        ack = self._ack()
        if self._sequenced:
            first = _numbered(*self._sequenced.popleft(), ack)
            return self._with_more(first, ack) if self._batched and self._sequenced else first
        if self._heartbeat_due:
            self._heartbeat_due = False
            return attach_pb2.AttachRequest(ack=ack, heartbeat=self._heartbeat())
        if (chunk := self._log()) is not None:
            return attach_pb2.AttachRequest(ack=ack, log=chunk)
        return attach_pb2.AttachRequest(ack=ack) if ack > self._acked else None

    def _with_more(self, first: attach_pb2.AttachRequest, ack: int) -> attach_pb2.AttachRequest:
        """`first` and what else waits, as one message that stays well below the limit of the wire."""
        made = attach_pb2.AttachRequest(ack=ack, batch=attach_pb2.AttachRequestBatch(messages=[first]))
        size = first.ByteSize()
        while self._sequenced and len(made.batch.messages) < BATCH_COUNT_MAX:
            size += self._sequenced[0][1].ByteSize()
            if size > BATCH_BYTES_MAX:
                break
            made.batch.messages.append(_numbered(*self._sequenced.popleft(), ack))
        return made if len(made.batch.messages) > 1 else first


def _numbered(seq: int, body: Sequenced, ack: int) -> attach_pb2.AttachRequest:
    if isinstance(body, attach_pb2.Report):
        return attach_pb2.AttachRequest(seq=seq, ack=ack, report=body)
    return attach_pb2.AttachRequest(seq=seq, ack=ack, goodbye=body)


class Stream:
    """One open call."""

    def __init__(
        self, stub: agent_service_pb2_grpc.AgentServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        # wait_for_ready stays off: while there is no hub the session's own backoff paces the tries.
        self._call: grpc.aio.StreamStreamCall[attach_pb2.AttachRequest, attach_pb2.AttachResponse] = stub.Attach(
            metadata=metadata
        )
        self._inbound: asyncio.Queue[attach_pb2.AttachResponse] = asyncio.Queue(INBOUND_COUNT_MAX)
        #: Messages of the last batch.
        self._taken = 0

    async def read(self, heard: Callable[[], None]) -> None:
        """Read until the end and raise Ended; `heard` is called for each message as it comes in."""
        try:
            async for message in self._call:
                heard()
                for one in message.batch.messages if message.HasField("batch") else (message,):
                    await self._inbound.put(one)
            end = Ended("END_OF_STREAM", "the hub ended the stream")
        except grpc.aio.AioRpcError as error:
            end = Ended.of(status.from_rpc_error(error))
        # The end must not overtake what was read before it (a goaway with its delay, the last acks).
        await self._inbound.join()
        raise end

    async def write(self, hello: attach_pb2.AttachRequest, outgoing: Outgoing) -> None:
        """Say hello, then whatever there is to say, until cancelled."""
        await self._write(hello)
        while True:
            await self._write(await outgoing.next())

    async def batch(self) -> list[attach_pb2.AttachResponse]:
        """Everything that came in and waits, at least one message. Asking again says that the last batch is applied."""
        for _ in range(self._taken):
            self._inbound.task_done()
        self._taken = 0
        messages = [await self._inbound.get()]
        while not self._inbound.empty():
            messages.append(self._inbound.get_nowait())
        self._taken = len(messages)
        return messages

    def close(self) -> None:
        """End the call, whatever state it is in."""
        self._call.cancel()

    async def _write(self, message: attach_pb2.AttachRequest) -> None:
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The call is over. The reader knows why and ends this task, when what came before the end is applied.
            await asyncio.Event().wait()


def cause_of(error: BaseException) -> Ended | None:
    """The end that is in a TaskGroup's error: the final one before others; None when there is something else in it."""
    if isinstance(error, Ended):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    causes = [cause_of(item) for item in error.exceptions]
    ends = [cause for cause in causes if cause is not None]
    if len(ends) < len(causes) or not ends:
        return None
    return max(ends, key=lambda end: (end.final, end.problem is not None))
