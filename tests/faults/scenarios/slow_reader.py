"""Readers that stop reading, on Attach and on watches: the hub's memory is bounded, nobody else waits for them, and
their streams end with RESOURCE_EXHAUSTED.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import grpc

from agentcom.v1 import attach_pb2, task_pb2, task_service_pb2, task_service_pb2_grpc
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules
from tests.support import scripted
from tests.support.fleet import spec

SLOTS = 200
#: Of a task's instructions: what is assigned to a reader that does not read is far more than any window takes in.
LOAD_BYTES = 60_000
GROWN_BYTES_MAX = 96 * 1024 * 1024
SUBMIT_P99_S_MAX = 0.25
ACK_S = 2.0
#: What is given to a reader of a watch.
READER_S = 2.0
#: To read what was on the wire.
DRAIN_S = 6.0
BOB = task_pb2.Requirement(capabilities=["bob"])


async def read_nothing(lab: Lab) -> str:
    """One sidecar and many watchers read no more, while others go on."""
    await lab.start_hub(
        engine_ack_timeout_s=ACK_S, engine_lease_s=8.0, server_reader_timeout_s=READER_S, log_level="debug"
    )
    await lab.start_sidecars("ada", slots=4)
    assert lab.hub is not None
    pid = lab.hub.pid
    alone = [await _file_one(lab) for _ in range(50)]
    before = _anonymous_bytes(pid)
    async with scripted.dial(lab.address) as opened, scripted.dial(lab.address) as watching:
        await scripted.enrol(opened, "bob")
        async with scripted.attached(opened, "bob", scripted.offer(SLOTS, "bob")) as bob:
            for _ in range(0, SLOTS, 50):
                load = spec("load", instructions="x" * LOAD_BYTES, requirement=BOB)
                await lab.submit(*[load] * 50)
                bob.reads.clear()
            watches = await _watches(watching, lab.size["watchers"])
            waits = await _meanwhile(lab, bob)
            # It reads on, and finds out why its stream has ended.
            bob.reads.set()
            await bob.until(lambda: bob.error is not None, "the stream of the slow sidecar has ended")
            assert bob.error is not None
            told = f"the slow sidecar's stream ended with {bob.error.code().name}"
            assert bob.error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, told
            grown = _anonymous_bytes(pid) - before
            codes = await _ends(watches)
    await _cancel_load(lab)
    await lab.judge(Rules(logs_complete=False))
    p99_s, alone_s = (sorted(some)[int(len(some) * 0.99)] for some in (waits, alone))
    assert set(codes) == {"RESOURCE_EXHAUSTED"}, f"watches that were not read ended with {codes}"
    assert grown <= GROWN_BYTES_MAX, f"the hub grew by {grown / 1e6:.0f} MB, the bound is {GROWN_BYTES_MAX / 1e6:.0f}"
    bound_s = max(SUBMIT_P99_S_MAX, 3 * alone_s)  # on a machine that is busy with other things, as before
    assert p99_s <= bound_s, f"others' submits took {p99_s:.3f} s at p99, and {alone_s:.3f} s before"
    return (
        f"the sidecar and {len(codes)} watches cut, the hub grew by {grown / 1e6:.0f} MB, "
        f"others' submits p99 {p99_s * 1000:.0f} ms ({alone_s * 1000:.0f} before)"
    )


async def _watches(opened: grpc.aio.Channel, count: int) -> list[Any]:
    """Watches of the whole log that are opened and read no further than their first message."""
    stub: Any = task_service_pb2_grpc.TaskServiceStub(opened)
    found = []
    for _ in range(count):
        watch = stub.WatchTasks(task_service_pb2.WatchTasksRequest(position=-1))
        await watch.read()
        found.append(watch)
    return found


async def _meanwhile(lab: Lab, bob: scripted.Scripted) -> list[float]:
    """File tasks and have them done until the hub has given up the slow sidecar and every watch; how long each took."""
    assert lab.hub is not None
    until, waits = time.monotonic() + lab.patience_s, list[float]()
    while time.monotonic() < until:
        waits.append(await _file_one(lab))
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await bob.say(heartbeat=attach_pb2.Heartbeat())  # its heartbeats live
        refused = [line for line in lab.hub.said().splitlines() if '"rpc.refused"' in line]
        watches = sum("/WatchTasks" in line and "SLOW_READER" in line for line in refused)
        sidecars = sum("/Attach" in line for line in refused)
        if watches == lab.size["watchers"] and sidecars:
            return waits
    assert sidecars, "the slow sidecar was not given up"
    raise AssertionError(f"{watches} watches were given up, of {lab.size['watchers']}")


async def _file_one(lab: Lab) -> float:
    """File a task and have it done; how long the filing took."""
    asked = time.monotonic()
    (name,) = await lab.submit(spec("meanwhile"))
    took_s = time.monotonic() - asked
    await lab.until_tasks([name])
    return took_s


async def _ends(watches: list[Any]) -> list[str]:
    """The codes with which they end when they are read on."""
    codes = []
    for watch in watches:
        try:
            async with asyncio.timeout(DRAIN_S):
                while await watch.read() is not grpc.aio.EOF:
                    pass
            codes.append("OK")
        except TimeoutError:
            return [*codes, "still open"]
        except grpc.aio.AioRpcError as error:
            codes.append(error.code().name)
        watch.cancel()
    return codes


async def _cancel_load(lab: Lab) -> None:
    page = await lab.tasks.ListTasks(task_service_pb2.ListTasksRequest(page_size=1000))
    for task in page.tasks:
        if task.spec.title == "load":
            await lab.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=task.name))


def _anonymous_bytes(pid: int) -> int:
    """The process's own memory, without what it has mapped."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel tells no RssAnon")


SCENARIOS = (
    Scenario(
        name="slow-reader",
        passes="memory bounded, others' submits < 250 ms at p99, streams end with RESOURCE_EXHAUSTED",
        run=read_nothing,
        quick={"watchers": 10},
        long={"watchers": 100},
        seeds=3,
        twins=(
            Twin(node="hub", guards=("acks_unwatched",), finds="the slow sidecar was not given up"),
            Twin(node="hub", guards=("watches_wait",), finds="watches were given up, of"),
        ),
    ),
)
