"""A hub with something of everything in it, in a loop of its own, whose every stored byte can be compared.

The loop runs only while a call is under way, so that a test which is not a coroutine (Hypothesis's are not) can make
one call after the other. The clock stands still: nothing falls due, and what changes is changed by a caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import itertools
import random
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import structlog
from google.protobuf import message_factory

from agentcom.v1 import (
    agent_service_pb2,
    goal_service_pb2,
    hub_service_pb2,
    registry_service_pb2,
    task_pb2,
    task_service_pb2,
)
from hub import app
from hub.store.care import audit
from kit import clock, logs
from tests.hostile.messages import Names
from tests.support import hub as hubs

T = TypeVar("T")

METHODS: Final = {f"/{service.full_name}/{one.name}": one for service in app.SERVICES for one in service.methods}
"""Every method of the contract by its path."""

UNARY: Final = tuple(path for path, one in METHODS.items() if not one.server_streaming)
WATCHES: Final = tuple(path for path, one in METHODS.items() if one.server_streaming and not one.client_streaming)
ATTACH: Final = "/agentcom.v1.AgentService/Attach"

WATCH_LOOK_S: Final = 0.05
"""A watch that was not refused by then is taken to be accepted: what refuses does so without waiting for anything."""

AGENTS: Final = ("anna", "ben", "carl", "dora")
REPOS: Final = ("main", "other", "third")


class World:
    """A hub, what there is in it, and a way to call it with bytes."""

    def __init__(self, runner: asyncio.Runner, caller: hubs.Caller, names: Names, said: io.StringIO) -> None:
        self._runner = runner
        self._said = said
        self.caller = caller
        self.names = names

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Let the loop run until this is done."""
        return self._runner.run(coroutine)

    def state(self) -> bytes:
        """The hash of all that is stored."""
        return state(self.caller.hub)

    def ailment(self) -> str:
        """What is wrong with the hub after all that was done to it; empty: nothing."""
        hub = self.caller.hub
        self.run(self.caller.position())
        reads: Any = hub.store.read
        found = list(audit.Audit(reads).run().problems)
        for name, health in hub.supervisor.health().items():
            if health.failure_count:
                found.append(f"the loop {name} failed {health.failure_count} times: {health.last_error}")
        found += [
            f"it said: {line}" for line in self._said.getvalue().splitlines() if "must be an async def" not in line
        ]  # TEMP
        return "\n".join(found)


@contextlib.contextmanager
def made(folder: Path, **overrides: object) -> Iterator[World]:
    """A world for the length of a block."""
    said = io.StringIO()
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        logs.configure(level="error", form="json", stream=said)
        stack.callback(structlog.reset_defaults)
        parts = {"clock": clock.ManualClock(), "rng": random.Random(0)}
        hub = hubs.running(folder, parts=parts, **overrides)
        caller = runner.run(hub.__aenter__())
        stack.callback(lambda: runner.run(hub.__aexit__(None, None, None)))
        names = runner.run(_fill(caller))
        yield World(runner, caller, names, said)


def state(hub: app.Hub) -> bytes:
    """The hash of all that a hub has stored."""
    digest = hashlib.blake2b()

    def read(reader: Any) -> None:
        for key, value in reader.kv.items(b"\0", b"\xff" * 16, 10_000_000):
            digest.update(b"%d:%d:" % (len(key), len(value)) + key + value)

    hub.store.read(read)
    return digest.digest()


async def call(channel: Any, path: str, body: bytes, **options: Any) -> tuple[grpc.RpcError | None, bytes]:
    """Send these bytes to a method that takes one request: the refusal, and the first answer."""
    options = {"timeout": hubs.PATIENCE_S, **options}
    try:
        if not METHODS[path].server_streaming:
            return None, await channel.unary_unary(path)(body, **options)
        watch = channel.unary_stream(path)(body, **options)
        try:
            async with asyncio.timeout(WATCH_LOOK_S):
                async for first in watch:
                    return None, first
        except TimeoutError:
            pass
        finally:
            watch.cancel()
    except grpc.aio.AioRpcError as error:
        return error, b""
    return None, b""


async def converse(channel: Any, bodies: list[bytes], path: str = ATTACH) -> grpc.RpcError | None:
    """Send these on one stream and no more; how it ended, None: well. What the hub says is read and left alone."""
    stream = channel.stream_stream(path)(iter_of(bodies), timeout=hubs.PATIENCE_S)
    try:
        async for _ in stream:
            pass
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def iter_of(bodies: list[bytes]) -> Any:
    """These, one by one."""
    for body in bodies:
        yield body


async def _fill(caller: hubs.Caller) -> Names:
    """Repos, agents, tokens, goals and tasks in most of their states."""
    names = Names()
    for repo in REPOS:
        request = registry_service_pb2.CreateRepoRequest(repo_id=repo)
        request.repo.url = f"https://example.com/{repo}.git"
        await caller.registry.CreateRepo(request)
    for agent in AGENTS:
        await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id=agent, display_name=agent))
    names.ids |= {"repos": list(REPOS), "agents": list(AGENTS)}
    token_request: Any = hub_service_pb2.CreateTokenRequest
    tokens = [await caller.hubs.CreateToken(token_request(scope=scope)) for scope in (2, 3, 5)]
    names.ids["tokens"] = [one.token.name.partition("/")[2] for one in tokens]
    names.ids["goals"] = [(await caller.goals.CreateGoal(_goal(n))).goal.name.partition("/")[2] for n in range(3)]
    names.ids["tasks"] = [name.partition("/")[2] for name in await _tasks(caller)]
    changes = await caller.goals.ListChanges(goal_service_pb2.ListChangesRequest())
    names.ids["changes"] = [change.name.partition("/")[2] for change in changes.changes]
    names.tokens = [token async for token in _page_tokens(caller)]
    return names


async def _tasks(caller: hubs.Caller) -> list[str]:
    filed = [
        await caller.task(f"task {n}", labels={"os": "linux"}, repo="repos/main" if n % 2 else "") for n in range(8)
    ]
    listed = await caller.tasks.ListTasks(task_service_pb2.ListTasksRequest(page_size=100))
    found = [task.name for task in listed.tasks]  # those of the goals among them
    await caller.task("behind", depends_on=[filed[0].name])
    failed = task_service_pb2.ReportTaskRequest(failure=task_pb2.Failure(reason="BROKE", message="it broke"))
    done = task_service_pb2.ReportTaskRequest(result=task_pb2.Result(summary="done", head_sha="a" * 40, branch="b"))
    done.result.artifacts.add(id="diff", content=b"diff")
    for task, agent, outcome in zip(filed[1:5], itertools.cycle(AGENTS), (failed, done, done, None), strict=False):
        claim = task_service_pb2.ClaimTaskRequest(name=task.name, agent=f"agents/{agent}")
        held = await caller.tasks.ClaimTask(claim)
        if outcome is not None:
            outcome.holding.CopyFrom(held.holding)
            await caller.tasks.ReportTask(outcome)
    await caller.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=filed[5].name))
    return found


def _goal(number: int) -> goal_service_pb2.CreateGoalRequest:
    request = goal_service_pb2.CreateGoalRequest()
    goal = request.goal
    goal.title, goal.repo = f"goal {number}", "repos/main"
    if number:
        goal.assertions.add(id="A1", text="it holds").check.run = "make check"
        one = goal.plan.tasks.add(id="T1", fulfills=["A1"])
        one.spec.title, one.spec.command = "do it", "make it"
        one.spec.checks.add(run="make check")
    return request


async def _page_tokens(caller: hubs.Caller) -> Any:
    """A page token of each list."""
    for path, method in METHODS.items():
        if not method.name.startswith("List") or "page_size" not in method.input_type.fields_by_name:
            continue
        request = message_factory.GetMessageClass(method.input_type)(page_size=1)
        error, body = await call(caller.channel, path, request.SerializeToString())
        if error is None:
            answer: Any = message_factory.GetMessageClass(method.output_type).FromString(body)
            yield answer.next_page_token
