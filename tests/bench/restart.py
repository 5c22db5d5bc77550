"""The rows of a hub that starts on a full store: how soon it serves, and what it holds in memory then."""

from __future__ import annotations

import statistics
import time

from agentcom.v1 import task_service_pb2, task_service_pb2_grpc
from kit import channel
from tests.bench import payload
from tests.bench.figures import Row
from tests.bench.process import Process
from tests.bench.run import Run

STARTS = 3
START_S_MAX = 5.0
ANSWER_S_MAX = 60.0


async def measure(run: Run, full: Process) -> None:
    """Stop it and start it again, a few times; it serves when a submit is answered, which is then on disk."""
    found = []
    for _ in range(STARTS):
        await full.stop()
        began = time.perf_counter()
        await full.start()
        async with channel.open_channel(channel.parse_address(full.address)) as opened:
            stub = task_service_pb2_grpc.TaskServiceStub(opened)
            request = task_service_pb2.CreateTaskRequest(spec=payload.spec(0, capability="nobody-0"))
            await stub.CreateTask(request, wait_for_ready=True, timeout=ANSWER_S_MAX)
        found.append(time.perf_counter() - began)
    seconds = statistics.median(found)
    resident_mb = full.resident_bytes() / 1e6
    run.report(
        Row(
            "start",
            f"start of a hub with {run.scaled(1_000_000):,} stored tasks",
            f"serving in <= {START_S_MAX:.0f} s",
            f"{seconds:.2f} s from exec to the first submit stored; {resident_mb:.0f} MB resident then",
            max(found) <= START_S_MAX,
            {"seconds": found, "resident_mb": resident_mb},
        )
    )
