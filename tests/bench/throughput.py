"""The rows of throughput and of the idle hub: the floor and the hub in turns (A B A B), medians, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tests.bench import figures, floor_side, hub_side, load
from tests.bench.figures import Row
from tests.bench.run import Run, running

ROWS = ("single", "batch", "latency")
ROUNDS = 3
WARM_UP = 1_000
SINGLE_COUNT, BATCH_COUNT, BATCH = 6_000, 20_000, 100
TRICKLE_COUNT = 1_000


async def measure(run: Run) -> None:
    """All rows of this file."""
    floor, hub = floor_side.process(run.folder / "floor"), hub_side.process(run.folder / "hub")
    async with (
        running(floor, hub),
        floor_side.attached(floor.address) as floor_load,
        hub_side.attached(hub.address) as hub_load,
    ):
        sides: list[load.Side] = [floor_load, hub_load]
        for side in sides:
            await load.run(side, count=WARM_UP)
        if run.wants("single"):
            await _single(run, sides)
        if run.wants("batch"):
            await _batch(run, sides)
        if run.wants("latency"):
            await _latency(run, sides)


async def _in_turns(sides: Sequence[load.Side], count: int, batch: int) -> list[list[load.Run]]:
    """The runs of the floor, and the runs of the hub."""
    found: list[list[load.Run]] = [[] for _ in sides]
    for _ in range(ROUNDS):
        for runs, side in zip(found, sides, strict=True):
            runs.append(await load.run(side, count=count, batch=batch))
    return found


async def _single(run: Run, sides: Sequence[load.Side]) -> None:
    floor, hub = await _in_turns(sides, run.scaled(SINGLE_COUNT, least=2_000), 1)
    what = f"submit -> result stored, one task a call, {load.CALLERS} callers, {load.SIDECARS} sidecars"
    run.report(_rate_row("single", what, floor, hub, ratio_min=0.75, per_s_min=2_000))


async def _batch(run: Run, sides: Sequence[load.Side]) -> None:
    floor, hub = await _in_turns(sides, run.scaled(BATCH_COUNT, least=8_000), BATCH)
    run.report(_rate_row("batch", f"the same, batches of {BATCH}", floor, hub, ratio_min=0.7, per_s_min=3_500))


def _rate_row(
    name: str, what: str, floor: list[load.Run], hub: list[load.Run], *, ratio_min: float, per_s_min: float
) -> Row:
    floor_per_s = statistics.median(r.per_s for r in floor)
    hub_per_s = statistics.median(r.per_s for r in hub)
    ratio = hub_per_s / floor_per_s
    wait = figures.middle([r.wait for r in hub])
    return Row(
        name,
        what,
        f">= {ratio_min} of the floor, >= {per_s_min:,.0f}/s",
        f"{hub_per_s:,.0f}/s, floor {floor_per_s:,.0f}/s, ratio {ratio:.2f}",
        ratio >= ratio_min and hub_per_s >= per_s_min,
        {
            "hub_per_s": [round(r.per_s) for r in hub],
            "floor_per_s": [round(r.per_s) for r in floor],
            "ratio": round(ratio, 3),
            "hub_submit_to_stored_ms": wait,
            "floor_submit_to_stored_ms": figures.middle([r.wait for r in floor]),
        },
    )


async def _latency(run: Run, sides: Sequence[load.Side]) -> None:
    spreads: list[list[figures.Spread]] = [[] for _ in sides]
    for _ in range(ROUNDS):
        for found, side in zip(spreads, sides, strict=True):
            found.append(await load.trickle(side, count=run.scaled(TRICKLE_COUNT, least=300)))
    floor, hub = map(figures.middle, spreads)
    run.report(
        Row(
            "latency",
            "submit -> the sidecar has it, idle hub",
            "p50 <= 2 ms, p99 <= 6 ms",
            f"{hub} (floor {floor.p50:.2f}, {floor.p99:.2f})",
            hub.p50 <= 2.0 and hub.p99 <= 6.0,
            {"hub_ms": hub, "floor_ms": floor},
        )
    )
