"""One command's connection to the hub: where it is, who we are, calls with a deadline, pages, streams that resume."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import grpc

from agentcom.v1 import agent_service_pb2_grpc as agent_grpc
from agentcom.v1 import goal_service_pb2_grpc as goal_grpc
from agentcom.v1 import hub_service_pb2
from agentcom.v1 import hub_service_pb2_grpc as hub_grpc
from agentcom.v1 import notify_service_pb2_grpc as notify_grpc
from agentcom.v1 import registry_service_pb2_grpc as registry_grpc
from agentcom.v1 import task_service_pb2_grpc as task_grpc
from cli import output
from kit import backoff, channel, errors, status, version

# A call that may be repeated (a read, or a write with a request id) is tried this often while the hub is unreachable,
# so that the blink of a restart is not seen.
TRY_COUNT_MAX = 3
TRY_BASE_S = 0.1
TRY_CAP_S = 1.0
# A watch whose connection is lost comes back in this rhythm and gives up after RESUME_S_MAX without a word.
RESUME_BASE_S = 0.2
RESUME_CAP_S = 5.0
RESUME_S_MAX = 300.0
# The hub says something at least every 15 s on every watch; four times that is a dead line.
SILENCE_S_MAX = 60.0
# No stream lives for ever: it is opened again at its position, which also moves it to a hub that was replaced.
STREAM_S_MAX = 3600.0
# What a list command fetches at once, and at most unless it is told otherwise.
PAGE_SIZE = 500
LIST_COUNT = 100

Q = TypeVar("Q")
Q_contra = TypeVar("Q_contra", contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Unary(Protocol[Q_contra, R_co]):
    """A method with one answer."""

    def __call__(
        self, request: Q_contra, /, *, timeout: float | None = None, metadata: tuple[tuple[str, str], ...] | None = None
    ) -> Awaitable[R_co]: ...


class Stream(Protocol[R_co]):
    """A running call with many answers."""

    def __aiter__(self) -> AsyncIterator[R_co]: ...
    def cancel(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM of `Options.tls` was read, in full, for a sidecar that is told the same."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What every command may be told."""

    address: str
    token: str | None
    format: output.Format
    timeout_s: float
    plaintext: bool = False
    tls: channel.Tls | None = None
    files: TlsFiles = TlsFiles()


class Session:
    """An open connection, for one command."""

    def __init__(self, options: Options, wire: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self.options = options
        self.output = output.Output(options.format)
        self.metadata = metadata
        self.tasks = task_grpc.TaskServiceStub(wire)
        self.agents = agent_grpc.AgentServiceStub(wire)
        self.goals = goal_grpc.GoalServiceStub(wire)
        self.registry = registry_grpc.RegistryServiceStub(wire)
        self.hub = hub_grpc.HubServiceStub(wire)
        self.notify = notify_grpc.NotifyServiceStub(wire)
        # Only for jitter between tries: nothing depends on it.
        self._rng = random.Random()

    async def call(self, method: Unary[Q, R], request: Q, *, again: bool = True, at_least_s: float = 0.0) -> R:
        """Call once, or up to three times when it may be repeated (`again`) and the hub cannot be reached.

        `at_least_s`: for a method that takes as long as the hub's store is large.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + max(self.options.timeout_s, at_least_s)
        for attempt in range(TRY_COUNT_MAX):
            try:
                return await method(request, timeout=max(0.001, end - loop.time()), metadata=self.metadata)
            except grpc.aio.AioRpcError as error:
                delay = backoff.full_jitter(attempt, TRY_BASE_S, TRY_CAP_S, self._rng)
                last = attempt + 1 == TRY_COUNT_MAX or loop.time() + delay > end
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    raise await self._unknown(request) from error
                if not again or last or error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise self._problem(error) from error
            await asyncio.sleep(delay)
        raise AssertionError("unreachable")

    async def pages(
        self, fetch: Callable[[int, str], Awaitable[tuple[Sequence[R], str]]], limit: int = LIST_COUNT
    ) -> list[R]:
        """Up to `limit` things of a paged list; `fetch(page_size, page_token)` gives one page and the next token."""
        found: list[R] = []
        token = ""
        while len(found) < limit:
            items, token = await fetch(min(PAGE_SIZE, limit - len(found)), token)
            found.extend(items)
            if not token:
                break
        return found[:limit]

    async def position(self) -> int:
        """Where the event log ends now, as a place to start a watch: nothing after this call is missed."""
        reply = await self.call(self.hub.GetHub, hub_service_pb2.GetHubRequest())
        return reply.hub.event_position or -1

    async def follow(
        self, watch: Callable[..., Stream[R]], ask: Callable[[int], object], position: int
    ) -> AsyncGenerator[R, None]:
        """The messages of a watch from `position` on, across lost connections and restarts of the hub.

        `ask(position)` makes the request. Never ends by itself; raises the problem when the hub refuses, or when
        nothing was heard for RESUME_S_MAX. Call it after a call that the hub answered, and close it (`aclosing`).
        """
        loop = asyncio.get_running_loop()
        failures, heard_at = 0, loop.time()
        while True:
            later_s = 0.0
            try:
                async with aclosing(self.listen(watch, ask(position))) as stream:
                    async for message in stream:
                        failures, heard_at = 0, loop.time()
                        position = getattr(message, "position", 0) or position
                        yield message
            except (errors.Unavailable, errors.Exhausted) as problem:
                no_use = isinstance(problem, errors.Exhausted) and problem.retry_delay_s is None
                if no_use or loop.time() - heard_at > RESUME_S_MAX:
                    raise
                later_s = problem.retry_delay_s or 0.0
            delay = later_s + backoff.full_jitter(failures, RESUME_BASE_S, RESUME_CAP_S, self._rng)
            failures += 1
            await asyncio.sleep(delay)

    async def listen(
        self, watch: Callable[..., Stream[R]], request: object, silence_s: float | None = SILENCE_S_MAX
    ) -> AsyncGenerator[R, None]:
        """The messages of one stream; raises a problem when it breaks or is silent for too long (None: as it likes)."""
        call = watch(request, timeout=STREAM_S_MAX, metadata=self.metadata)
        messages = call.__aiter__()
        try:
            while True:
                try:
                    async with asyncio.timeout(silence_s):
                        message = await anext(messages)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise errors.Unavailable(f"the hub said nothing for {silence_s:.0f} s") from error
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                        raise await self._unknown(request) from error
                    raise self._problem(error) from error
                yield message
        finally:
            call.cancel()

    async def _unknown(self, request: object) -> errors.Problem:
        """The hub does not know a method; it says itself how old it is, in words that each version knows."""
        hub = ""
        try:
            ask = hub_service_pb2.GetHubRequest()
            hub = (await self.hub.GetHub(ask, timeout=self.options.timeout_s, metadata=self.metadata)).hub.version
        except grpc.aio.AioRpcError:
            pass  # then without its version
        method = type(request).__name__.removesuffix("Request")
        text = version.unknown_method(hub, method, version.Node("cli", version.VERSION))
        return errors.IllegalState(text, state=f"version {hub or 'unknown'}", reason="METHOD_UNKNOWN")

    def _problem(self, error: grpc.aio.AioRpcError) -> errors.Problem:
        problem = status.from_rpc_error(error)
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.Unavailable(f"the hub at {self.options.address} did not answer in time", reason="TIMEOUT")
        if isinstance(problem, errors.Unavailable) and problem.reason == "UNAVAILABLE":
            return errors.Unavailable(
                f"the hub at {self.options.address} cannot be reached: {problem.message}",
                retry_delay_s=problem.retry_delay_s,
            )
        return problem


async def run(options: Options, work: Callable[[Session], Awaitable[R]]) -> R:
    """Open a connection, do the work, close it."""
    address = channel.parse_address(options.address, field="--hub")
    proof = channel.token_metadata(options.token, address, plaintext=options.plaintext)
    metadata = (*version.metadata("cli"), *proof)
    wire = channel.open_channel(address, options.tls)
    try:
        return await work(Session(options, wire, metadata))
    finally:
        await wire.close()


def request_id(given: str | None) -> str:
    """The caller's own id, or a new one, so that a create that is tried again files nothing twice."""
    return given or str(uuid.uuid4())
