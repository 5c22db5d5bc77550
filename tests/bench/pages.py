"""The row of the lists: pages of 50 out of everything that waits, for each documented filter and each order."""

from __future__ import annotations

import time
from typing import Any

from agentcom.v1 import task_service_pb2, task_service_pb2_grpc
from kit import channel
from tests.bench import crowd, figures
from tests.bench.figures import Row, Spread
from tests.bench.run import Run

PAGE_SIZE = 50
PAGES = 60
P99_MS_MAX = 50.0
UNKNOWN_ID = "0" * 20

FILTERS = (
    "",
    "state = QUEUED",
    "state = ASSIGNED",
    "state = DEAD",
    "lane = HIGH",
    "lane = URGENT",
    "kind = WORK",
    "kind = MERGE",
    f"goal = goals/{UNKNOWN_ID}",
    "repo = repos/nowhere",
    f"agent = agents/{crowd.NAME}-0",
    "agent = agents/nobody",
    "labels.bench = yes",
    "labels.shard = 3",
    "labels.rare = yes",
    "labels.absent = yes",
    "state = QUEUED AND lane = LOW AND labels.shard = 7",
)
"""Each documented field; with a value that most tasks have, and with one that few or none have."""
ORDERS = ("create_time", "create_time desc")


async def measure(run: Run, address: str) -> None:
    """Follow the pages of each filter and order; the worst p99 of all."""
    found: dict[str, Spread] = {}
    async with channel.open_channel(channel.parse_address(address)) as opened:
        stub = task_service_pb2_grpc.TaskServiceStub(opened)
        for text in FILTERS:
            for order in ORDERS:
                found[f"{text or 'all'}, {order}"] = await _follow(stub, text, order)
    slowest = max(found, key=lambda name: found[name].p99)
    worst = found[slowest]
    run.report(
        Row(
            "pages",
            f"a page of {PAGE_SIZE} out of {run.scaled(1_000_000):,}, any filter and order",
            f"p99 <= {P99_MS_MAX:.0f} ms",
            f"worst of {len(found)}: {worst} ({slowest})",
            worst.p99 <= P99_MS_MAX,
            {"filters": found},
        )
    )


async def _follow(stub: Any, text: str, order: str) -> Spread:
    """Page after page, from the beginning again at the end."""
    waits, token = [], ""
    for _ in range(PAGES):
        request = task_service_pb2.ListTasksRequest(page_size=PAGE_SIZE, page_token=token, filter=text, order_by=order)
        began = time.perf_counter()
        response = await stub.ListTasks(request)
        waits.append(time.perf_counter() - began)
        token = response.next_page_token
    return figures.spread(waits)
