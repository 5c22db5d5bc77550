"""The Attach stream: one reader, one writer and one pump of reports for each; what they say to the engine is in values.

How a stream ends:

- goodbye: the pump applies what came before it, gives the holdings back, and lets the writer finish with the last ack;
- the end of the requests without goodbye: what was read is still applied, then the session waits to be resumed;
- a goaway of the hub (shutdown, superseded, deleted): the writer writes it last, and the stream ends with OK;
- a cut (`Stream.cut`: the sidecar does not read, or was silent for a lease) or a breach of the protocol: a typed
  status.

The reader never waits for the store, but for a full queue of reports, which is how a sidecar is slowed down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc

from agentcom.v1 import attach_pb2
from hub.core import attach
from hub.core.task import Attribution, Failure
from hub.engine.live.session import Sequenced, Stream
from hub.engine.live.sessions import Sessions
from hub.engine.live.tail import Tails
from hub.engine.live.worker import Worker
from hub.rpc import caller, translate, translate_attach
from kit import errors, interceptors, logs, validation

log = logs.get(__name__)

Call = grpc.aio.ServicerContext[Any, Any]
Requests = AsyncIterator[attach_pb2.AttachRequest]

HELLO_TIMEOUT_S: Final = 10.0
"""A peer that opens a stream and says nothing holds a stream and two tasks; it is sent away after this."""


class Attach:
    """Serves the streams of sidecars."""

    def __init__(self, sessions: Sessions, worker: Worker, tails: Tails, *, version: str = "") -> None:
        self._version = version
        #: Hears of each message that breaks the rules and does not end its stream.
        self.blame: Callable[[errors.Problem], object] = lambda problem: None
        self._sessions = sessions
        self._worker = worker
        self._tails = tails

    async def serve(self, requests: Requests, context: Call) -> None:
        """One stream, from hello to its end."""
        messages = aiter(requests)
        first = await _first(messages)
        hello = translate_attach.read_hello(first.hello)
        caller.speaks_for(hello.agent)
        stream = await self._sessions.open(hello, first.ack)
        how = "lost"
        try:
            # By itself, because a first write that is cut off half-way would leave grpc.aio unsure whether they are
            # sent, and unable to end the stream with a status.
            await context.send_initial_metadata(())
            with logs.bound(agent=hello.agent, session=stream.session.id):
                async with asyncio.TaskGroup() as group:
                    pump = group.create_task(self._worker.pump(stream), name=f"attach.pump.{hello.agent}")
                    reader = group.create_task(self._read(stream, messages), name=f"attach.read.{hello.agent}")
                    guard = group.create_task(_guard(stream), name=f"attach.guard.{hello.agent}")
                    how = await _write(stream, context, self._version)
                    for task in (pump, reader, guard):
                        task.cancel()
        except* errors.Problem as group_of_problems:
            problem = interceptors.unwrapped(group_of_problems)
            how = problem.reason if isinstance(problem, errors.Problem) else "refused"
            raise problem from None
        finally:
            self._sessions.close(stream, how)

    async def _read(self, stream: Stream, messages: Requests) -> None:
        """Take in what the sidecar says until it says no more."""
        while True:
            try:
                message = await anext(messages, None)
            except errors.Invalid as problem:
                await self._mend(stream, problem)
                continue
            if message is None:
                break
            self._sessions.heard(stream.session, message.ack)
            await self._take(stream, message)
        await stream.reports.put(None)

    async def _mend(self, stream: Stream, problem: errors.Invalid) -> None:
        """A message breaks the rules: of a batch only those that do are excused, the others are taken."""
        message = problem.subject
        if not isinstance(message, attach_pb2.AttachRequest) or message.WhichOneof("body") != "batch":
            await _excuse(stream, problem)
            self.blame(problem)
            return
        for one in message.batch.messages:
            try:
                validation.check(one, "Attach")
            except errors.Invalid as own:
                own.subject = one
                await _excuse(stream, own)
                self.blame(own)
            else:
                await self._take_inner(stream, one)

    async def _take_inner(self, stream: Stream, message: attach_pb2.AttachRequest) -> None:
        if message.WhichOneof("body") == "batch":
            raise errors.Invalid.of("batch", "holds a batch", reason="PROTOCOL")
        self._sessions.heard(stream.session, message.ack)
        await self._take(stream, message)

    async def _take(self, stream: Stream, message: attach_pb2.AttachRequest) -> None:
        body = message.WhichOneof("body")
        if (body in ("report", "goodbye")) != (message.seq > 0):
            raise errors.Invalid.of("seq", f"{message.seq} does not go with {body or 'an ack'}", reason="PROTOCOL")
        match body:
            case "heartbeat":
                await self._sessions.heartbeat(stream.session, translate_attach.read_heartbeat(message.heartbeat))
            case "report":
                report = translate_attach.read_report(message.report)
                await stream.session.receive(stream, Sequenced(message.seq, report))
            case "batch":
                for one in message.batch.messages:
                    await self._take_inner(stream, one)
            case "log":
                chunk = translate_attach.read_log(message.log)
                if chunk.holding in stream.session.holds():
                    self._tails.push(chunk)
            case "goodbye":
                goodbye = attach.Goodbye(message.goodbye.reason)
                await stream.session.receive(stream, Sequenced(message.seq, goodbye))
                await stream.reports.put(None)
            case "hello":
                raise errors.Invalid.of("hello", "comes first and only first", reason="PROTOCOL")
            case _:
                pass  # only an ack


async def _first(messages: Requests) -> attach_pb2.AttachRequest:
    """The hello. Raises Invalid for anything else."""
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            first = await anext(messages, None)
    except TimeoutError:
        raise errors.Invalid.of("hello", f"did not come in {HELLO_TIMEOUT_S:g} s", reason="PROTOCOL") from None
    if first is None or first.WhichOneof("body") != "hello":
        raise errors.Invalid.of("hello", "must be the first message", reason="PROTOCOL")
    return first


async def _write(stream: Stream, context: Call, version: str) -> str:
    """Write what there is to say until the stream ends; how it ended."""
    batched = attach.BATCH in stream.session.hello.features
    while outs := await stream.next():
        stream.writing_since = stream.session.monotonic()
        for message in translate_attach.responses(outs, version, batched=batched):
            await context.write(message)
        stream.writing_since = None
        if isinstance(last := outs[-1].body, attach.Goaway):
            return last.reason.lower()
    return "goodbye" if stream.left else "lost"


async def _guard(stream: Stream) -> None:
    """Cut the stream, whatever its writer waits for."""
    await stream.cut.wait()
    assert stream.problem is not None
    raise stream.problem


async def _excuse(stream: Stream, problem: errors.Invalid) -> None:
    """A message breaks the rules. A report becomes a failure of its holding, so that it does not come back for ever;
    anything else ends the stream.
    """
    message = problem.subject
    if not isinstance(message, attach_pb2.AttachRequest) or not message.seq or message.report.holding.generation < 1:
        raise problem
    held = translate.read_holding(message.report.holding)
    log.warning("report.invalid", task=held.task, generation=held.generation, message=problem.message)
    text = f"the report breaks the contract: {problem.message}"
    failure = Failure(reason="REPORT_INVALID", message=text[:1024], attribution=Attribution.AGENT)
    report = attach.Report(held, attach.Failed(failure=failure))
    await stream.session.receive(stream, Sequenced(message.seq, report))
