"""A watch whose reader takes nothing in: it costs the hub nothing that grows, and ends with a reason."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentcom.v1 import hub_service_pb2, task_service_pb2
from kit import errors, interceptors, status
from tests.support import hub as hubs

READER_TIMEOUT_S = 0.3
#: More than the wire and both ends of gRPC take in for a reader that does not read.
TASKS, INSTRUCTIONS_BYTES = 200, 60_000


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when a call is refused."""
    found, real = asyncio.Event(), interceptors.refuse

    async def refuse(context: Any, method: str, error: BaseException) -> None:
        found.set()
        await real(context, method, error)

    monkeypatch.setattr(interceptors, "refuse", refuse)
    return found


async def test_a_watch_that_is_not_read_ends_with_resource_exhausted(tmp_path: Path, refused: asyncio.Event) -> None:
    async with hubs.running(tmp_path, server__reader_timeout_s=READER_TIMEOUT_S) as caller:
        for number in range(TASKS):
            await caller.task(f"task {number}", instructions="x" * INSTRUCTIONS_BYTES)
        watch = caller.tasks.WatchTasks(task_service_pb2.WatchTasksRequest(position=-1))
        await watch.read()
        await asyncio.wait_for(refused.wait(), 10.0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _to_its_end(watch)
        problem = status.from_rpc_error(caught.value)
        assert isinstance(problem, errors.Exhausted)
        assert problem.reason == "SLOW_READER"


async def test_a_watch_that_has_nothing_to_tell_is_not_slow(tmp_path: Path, refused: asyncio.Event) -> None:
    async with hubs.running(tmp_path, server__reader_timeout_s=READER_TIMEOUT_S) as caller:
        watch = caller.hubs.WatchEvents(hub_service_pb2.WatchEventsRequest())
        await watch.read()
        with pytest.raises(TimeoutError):  # for twice as long as a write may take
            await asyncio.wait_for(refused.wait(), 0.6)
        await caller.task("news")
        assert (await watch.read()).event.type == "task.created"


async def _to_its_end(watch: Any) -> None:
    while True:
        await watch.read()
