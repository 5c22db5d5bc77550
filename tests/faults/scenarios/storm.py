"""Every sidecar loses its stream at once and comes back: soon, spread out, and without others having to wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from agentcom.v1 import task_pb2, task_service_pb2
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules
from tests.support.fleet import spec

CROWD = "tests.faults.crowd"
BACK_S_MAX = 10.0
SUBMIT_P99_S_MAX = 0.5
#: Full jitter from one second puts four fifths of them into eight tenths of it.
SPREAD_S_MIN = 0.4
CPU_SHARE_MAX = 0.8
#: A steady stream of submits, not a load.
SUBMIT_PAUSE_S = 0.01
NOBODY = task_pb2.Requirement(capabilities=["nobody"])
PACE = {"engine_lease_s": 30.0, "engine_heartbeat_s": 10.0, "engine_sweep_s": 30.0}


async def drop_all(lab: Lab) -> str:
    """Drop them, a few times, while others file tasks."""
    await lab.start_hub(**PACE)
    assert lab.hub is not None
    backs, spreads, waits, shares = [], [], list[float](), []
    count = lab.size["sidecars"]
    alone = await _submits(lab, 1.0)
    async with _crowd(lab, count) as crowd:
        for _ in range(lab.size["drops"]):
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                filing = group.create_task(_submits(lab, lab.patience_s, over))
                told = await _drop(lab, crowd)
                over.set()
            waits += filing.result()
            backs.append(told["welcomed"][-1])
            spreads.append(told["dialled"][int(0.9 * count)] - told["dialled"][int(0.1 * count)])
            began, used_s = time.monotonic(), _cpu_s(lab.hub.pid)
            await asyncio.sleep(lab.size["watch_s"])
            shares.append((_cpu_s(lab.hub.pid) - used_s) / (time.monotonic() - began))
    await lab.judge(Rules())
    p99_s, alone_s = (sorted(some)[int(len(some) * 0.99)] for some in (waits, alone))
    bound_s = max(SUBMIT_P99_S_MAX, 3 * alone_s)
    assert max(backs) <= BACK_S_MAX, f"all were back after {max(backs):.1f} s, the bound is {BACK_S_MAX:.0f} s"
    assert min(spreads) >= SPREAD_S_MIN, f"four fifths of them dialled within {min(spreads):.2f} s: no jitter to see"
    assert p99_s <= bound_s, f"submits took {p99_s:.2f} s at p99 meanwhile, and {alone_s:.2f} s before"
    assert max(shares) <= CPU_SHARE_MAX, f"the hub used {max(shares):.0%} of a core when all were back"
    return (
        f"{count} back in {max(backs):.1f} s, spread over {min(spreads):.2f} s; submits p99 {p99_s * 1000:.0f} ms "
        f"({alone_s * 1000:.0f} before); then {max(shares):.0%} of a core"
    )


@contextlib.asynccontextmanager
async def _crowd(lab: Lab, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [*lab._command(CROWD), lab.address, str(count), str(lab.rng.getrandbits(32))]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 22)
    try:
        assert await _line(lab, process) == "attached"
        yield process
    finally:
        process.kill()
        await process.wait()


async def _drop(lab: Lab, crowd: asyncio.subprocess.Process) -> dict[str, list[float]]:
    assert crowd.stdin is not None
    crowd.stdin.write(b"drop\n")
    found: dict[str, list[float]] = json.loads(await _line(lab, crowd))
    return found


async def _line(lab: Lab, crowd: asyncio.subprocess.Process) -> str:
    assert crowd.stdout is not None
    async with asyncio.timeout(lab.patience_s + BACK_S_MAX):
        return (await crowd.stdout.readline()).decode().strip()


async def _submits(lab: Lab, seconds: float, over: asyncio.Event | None = None) -> list[float]:
    """File one task after the other; how long each took."""
    began, waits = time.monotonic(), list[float]()
    while time.monotonic() - began < seconds and not (over is not None and over.is_set()):
        asked = time.monotonic()
        await lab.tasks.CreateTask(task_service_pb2.CreateTaskRequest(spec=spec("meanwhile", requirement=NOBODY)))
        waits.append(time.monotonic() - asked)
        await asyncio.sleep(SUBMIT_PAUSE_S)
    return waits


def _cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


SCENARIOS = (
    Scenario(
        name="reconnect-storm",
        passes="all back in 10 s, jitter visible, submits < 500 ms at p99 meanwhile, hub < 80 % of a core after",
        run=drop_all,
        quick={"sidecars": 120, "drops": 1, "watch_s": 0.5},
        long={"sidecars": 1_000, "drops": 3, "watch_s": 5.0},
        seeds=2,
        twins=(Twin(node=CROWD, guards=("jitter_off",), finds="no jitter to see"),),
    ),
)
