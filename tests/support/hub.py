"""A real hub in this process on a port of its own, and what a caller needs to talk to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentcom.v1 import (
    agent_service_pb2_grpc,
    goal_service_pb2_grpc,
    hub_service_pb2,
    hub_service_pb2_grpc,
    notify_service_pb2_grpc,
    registry_service_pb2_grpc,
    task_service_pb2,
    task_service_pb2_grpc,
)
from hub import app, config
from kit import channel, errors, status

#: No call of a test waits longer; it is a bound for failures, never a pace.
PATIENCE_S = 20.0


class Caller:
    """Stubs of every service; with a token each call shows it."""

    def __init__(self, hub: app.Hub, token: str = "") -> None:
        self.hub = hub
        self.address = channel.parse_address(hub.address)
        self.channel = channel.open_channel(self.address)
        self.metadata = channel.token_metadata(token, self.address)
        self.tasks = self._bound(task_service_pb2_grpc.TaskServiceStub)
        self.agents = self._bound(agent_service_pb2_grpc.AgentServiceStub)
        self.goals = self._bound(goal_service_pb2_grpc.GoalServiceStub)
        self.registry = self._bound(registry_service_pb2_grpc.RegistryServiceStub)
        self.hubs = self._bound(hub_service_pb2_grpc.HubServiceStub)
        self.notify = self._bound(notify_service_pb2_grpc.NotifyServiceStub)

    def _bound(self, stub: Any) -> Any:
        return _Bound(stub(self.channel), self.metadata)

    async def task(self, title: str = "a task", *, command: str = "true", request_id: str = "", **spec: Any) -> Any:
        """File a task; it is given as the hub tells it."""
        request = task_service_pb2.CreateTaskRequest(request_id=request_id)
        request.spec.title, request.spec.command = title, command
        request.spec.MergeFrom(type(request.spec)(**spec))
        return (await self.tasks.CreateTask(request)).task

    async def position(self) -> int:
        """Position of the newest event: what a refusal must leave alone."""
        hub = (await self.hubs.GetHub(hub_service_pb2.GetHubRequest())).hub
        return int(hub.event_position)


class _Bound:
    """A stub whose calls carry metadata and a deadline."""

    def __init__(self, stub: Any, metadata: Any) -> None:
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._stub, method)
        return lambda request=None, **options: call(
            *([] if request is None else [request]), **{"timeout": PATIENCE_S, "metadata": self._metadata, **options}
        )


def configuration(folder: Path, **overrides: object) -> config.Config:
    """A configuration on port 0 with a store in memory, unless said otherwise (dotted keys with `__`)."""
    chosen: dict[str, object] = {"server.listen": "127.0.0.1:0", "data": folder / "hub", "store.kind": "memory"}
    chosen |= {key.replace("__", "."): value for key, value in overrides.items()}
    return config.load(None, {}, chosen)


@contextlib.asynccontextmanager
async def running(folder: Path, *, parts: dict[str, Any] | None = None, **overrides: object) -> AsyncIterator[Caller]:
    """A hub that serves, and a caller without a token. `parts` goes to `app.Hub` (clock, rng, store)."""
    async with app.serving_hub(app.Hub(configuration(folder, **overrides), **(parts or {}))) as hub:
        caller = Caller(hub)
        try:
            yield caller
        finally:
            await caller.channel.close()


@contextlib.asynccontextmanager
async def as_token(hub: app.Hub, token: str) -> AsyncIterator[Caller]:
    """A caller that shows a token."""
    caller = Caller(hub, token)
    try:
        yield caller
    finally:
        await caller.channel.close()


async def refused(call: Any) -> errors.Problem:
    """The problem that a call is refused with; a stream is read until it says so."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _outcome(call)
    return status.from_rpc_error(caught.value)


async def _outcome(call: Any) -> None:
    if hasattr(call, "__aiter__"):
        async for _ in call:
            pass
    else:
        await call


def fields(problem: errors.Problem) -> list[str]:
    """The fields that a refusal names."""
    assert isinstance(problem, errors.Invalid), problem
    return [violation.field for violation in problem.violations]
