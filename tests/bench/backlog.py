"""The rows of a full queue: what waits must not cost those that come, nor those that work.

The backlog is filed through BatchCreateTasks (1,000 to a call), once a run. One half can be served by nobody: a hundred
classes, each of which wants a capability that no agent offers. The other half is one class that the crowd serves, whose
every slot is taken. Measured at each size, in turns with an empty hub that runs beside:

- submit -> sidecar: an URGENT task of a third class, for which a sidecar is idle;
- slot -> urgent: an URGENT task of the crowd's own class is submitted, then one slot is freed: the time from that
  report to the arrival of the urgent task, which has to go before everything that waits.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any, NamedTuple

from agentcom.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from kit import channel
from tests.bench import crowd, figures, hub_side, load, pages, payload, restart
from tests.bench.figures import Row, Spread
from tests.bench.process import Process
from tests.bench.run import Run, running

SIZES = (1_000, 10_000, 100_000, 1_000_000)
BATCH = 1_000
FILLERS = 4
NOBODY_CLASSES = 100
LANES = (task_pb2.LANE_HIGH, task_pb2.LANE_NORMAL, task_pb2.LANE_LOW)
RARE = 10_000
"""One task in so many has the label that a filter looks for in vain for a long time."""

LEVEL_ROUNDS, LEVEL_ROUNDS_QUICK = 5, 2
PROBES, OVERTAKES = 400, 200
DRAIN_ROUNDS, DRAIN_COUNT = 5, 1_000
MEMORY_MB_MAX = 300
PROBE = "probe"

ROWS = ("backlog-100k", "backlog-1m", "growth", "fill", "drain", "start", "memory", "pages")


class Level(NamedTuple):
    """What was measured at one size of the backlog, and on the empty hub in turns with it."""

    waiting: int
    probe: Spread
    probe_empty: Spread
    overtake: Spread
    overtake_empty: Spread

    def as_json(self) -> dict[str, Any]:
        """For the result file."""
        return self._asdict()


class Hub(NamedTuple):
    """A hub with its clients."""

    process: Process
    probe: hub_side.HubSide
    crowd: crowd.Crowd


async def measure(run: Run) -> None:
    """All rows that need the backlog, which is built once."""
    empty, full = hub_side.process(run.folder / "hub-empty"), hub_side.process(run.folder / "hub-full")
    async with running(empty, full):
        baseline_bytes = full.resident_bytes()
        await _with_clients(run, empty, full, baseline_bytes)
        if run.wants("pages"):
            await pages.measure(run, full.address)
        await empty.stop()
        if run.wants("start", "memory"):
            await restart.measure(run, full)


async def _with_clients(run: Run, empty: Process, full: Process, baseline_bytes: int) -> None:
    urgent = task_pb2.LANE_URGENT
    async with (
        hub_side.attached(empty.address, sidecars=1, lane=urgent, capability=PROBE, name=PROBE) as empty_probe,
        hub_side.attached(full.address, sidecars=1, lane=urgent, capability=PROBE, name=PROBE) as full_probe,
        crowd.attached(empty.address) as empty_crowd,
        crowd.attached(full.address) as full_crowd,
    ):
        hubs = Hub(empty, empty_probe, empty_crowd), Hub(full, full_probe, full_crowd)
        levels, filled, fill_s = [], 0, 0.0
        for size in map(run.scaled, SIZES):
            fill_s += await _fill(full.address, filled, size)
            filled = size
            run.say(f"{size:,} tasks wait, filed in {fill_s:.1f} s")
            if run.wants("backlog-100k", "backlog-1m", "growth"):
                levels.append(await _level(run, size, *hubs))
        run.report(
            Row(
                "fill",
                f"filing {filled:,} tasks, {BATCH} a call, {FILLERS} callers",
                "-",
                f"{filled / fill_s:,.0f}/s",
                None,
            )
        )
        if run.wants("memory"):
            _memory(run, full, filled, baseline_bytes)
        _report_levels(run, levels)
        if run.wants("drain"):
            await _drain(run, filled, *hubs)


async def _fill(address: str, first: int, last: int) -> float:
    """File the tasks `first` to `last`; how many seconds the calls took."""
    async with channel.open_channel(channel.parse_address(address)) as opened:
        stub = task_service_pb2_grpc.TaskServiceStub(opened)
        starts = iter(range(first, last, BATCH))
        loop = asyncio.get_running_loop()

        async def filler() -> None:
            for start in starts:
                specs = [waiting(index) for index in range(start, min(last, start + BATCH))]
                await stub.BatchCreateTasks(task_service_pb2.BatchCreateTasksRequest(specs=specs))

        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for _ in range(FILLERS):
                group.create_task(filler())
        return loop.time() - began


def waiting(index: int) -> task_pb2.TaskSpec:
    """One task of the backlog."""
    half = index // 2
    capability = crowd.CAPABILITY if index % 2 else f"nobody-{half % NOBODY_CLASSES}"
    labels = {"shard": str(half % 10), **({"rare": "yes"} if index % RARE == RARE - 1 else {})}
    return payload.spec(index, lane=LANES[half % len(LANES)], capability=capability, **labels)


async def _level(run: Run, size: int, empty: Hub, full: Hub) -> Level:
    probes: tuple[list[Spread], list[Spread]] = ([], [])
    overtakes: tuple[list[Spread], list[Spread]] = ([], [])
    for _ in range(LEVEL_ROUNDS_QUICK if run.quick else LEVEL_ROUNDS):
        for hub, probe, overtake in zip((empty, full), probes, overtakes, strict=True):
            probe.append(await load.trickle(hub.probe, count=run.scaled(PROBES, least=200)))
            overtake.append(await hub.crowd.overtake(run.scaled(OVERTAKES, least=100)))
    level = Level(
        size,
        figures.middle(probes[1]),
        figures.middle(probes[0]),
        figures.middle(overtakes[1]),
        figures.middle(overtakes[0]),
    )
    run.say(
        f"{size:,} waiting: submit {level.probe} (empty {level.probe_empty}); "
        f"slot {level.overtake} (empty {level.overtake_empty})"
    )
    return level


def _report_levels(run: Run, levels: list[Level]) -> None:
    for name, level in zip(("backlog-100k", "backlog-1m"), levels[-2:], strict=len(levels) >= 2):
        p50, p99 = level.probe.p50 / level.probe_empty.p50, level.probe.p99 / level.probe_empty.p99
        slot50, slot99 = level.overtake.p50 / level.overtake_empty.p50, level.overtake.p99 / level.overtake_empty.p99
        run.report(
            Row(
                name,
                f"the same with {level.waiting:,} waiting (half not servable)",
                "p50 and p99 <= 1.5 x empty",
                f"{level.probe}: x {p50:.2f}, x {p99:.2f}; "
                f"a freed slot takes the urgent one: {level.overtake}: x {slot50:.2f}, x {slot99:.2f}",
                max(p50, p99, slot50, slot99) <= 1.5,
                level.as_json(),
            )
        )
    if levels:
        submits = ", ".join(f"{level.probe.p50:.2f}" for level in levels)
        slots = ", ".join(f"{level.overtake.p50:.2f}" for level in levels)
        sizes = " / ".join(f"{level.waiting:,}" for level in levels)
        run.report(
            Row(
                "growth",
                f"cost of dispatch at {sizes} waiting",
                "-",
                f"p50 submit -> sidecar {submits} ms; slot -> urgent {slots} ms",
                None,
                {"levels": [level.as_json() for level in levels]},
            )
        )


def _memory(run: Run, full: Process, filled: int, baseline_bytes: int) -> None:
    resident_mb, anonymous_mb, at_start_mb = (
        size / 1e6 for size in (full.resident_bytes(), full.private_bytes(), baseline_bytes)
    )
    run.report(
        Row(
            "memory",
            f"memory for {filled:,} waiting tasks of 1 KB",
            f"<= {MEMORY_MB_MAX} MB resident beyond the mapped file",
            f"{resident_mb:.0f} MB ({anonymous_mb:.0f} MB anonymous; at its start {at_start_mb:.0f} MB)",
            resident_mb <= MEMORY_MB_MAX,
            {"resident_mb": resident_mb, "anonymous_mb": anonymous_mb, "at_start_mb": at_start_mb},
        )
    )


async def _drain(run: Run, filled: int, empty: Hub, full: Hub) -> None:
    few: list[float] = []
    many: list[float] = []
    for _ in range(DRAIN_ROUNDS):
        await empty.crowd.file(DRAIN_COUNT)
        few.append(await empty.crowd.drain(DRAIN_COUNT))
        many.append(await full.crowd.drain(DRAIN_COUNT))
    ratio = statistics.median(many) / statistics.median(few)
    run.report(
        Row(
            "drain",
            f"drain rate with {filled:,} tasks waiting",
            ">= 0.8 x the rate with 1,000",
            f"{statistics.median(many):,.0f}/s against {statistics.median(few):,.0f}/s: x {ratio:.2f}",
            ratio >= 0.8,
            {"many_per_s": many, "few_per_s": few, "ratio": ratio},
        )
    )
