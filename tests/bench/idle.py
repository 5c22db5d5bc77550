"""The rows of a large fleet: what a thousand idle sidecars cost, and what happens when all of them drop at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from tests.bench import figures, fleet, hub_side, load
from tests.bench.figures import Row
from tests.bench.process import ROOT, Process
from tests.bench.run import Run, running

ROWS = ("idle", "drop")
COUNT = 1_000
SETTLE_S = 3.0
WATCH_S = 20.0
WAIT_S_MAX = 120.0
CORE_SHARE_MAX = 0.05
MEMORY_MB_MAX = 60.0
BACK_S_MAX = 10.0
SUBMIT_P99_MS_MAX = 500.0
SUBMIT_PAUSE_S = 0.005  # a steady stream of submits, not a load
STEADY = "steady"


class Fleet:
    """The process of the fleet."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    async def prepared(cls, address: str, count: int) -> Fleet:
        """One that only waits for `go`."""
        pipe = subprocess.PIPE
        argv = [sys.executable, "-m", fleet.__name__, address, str(count)]
        made = cls(subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, bufsize=0))  # noqa: ASYNC220  # see process
        await made._hear("ready")
        return made

    async def attach(self) -> None:
        """Returns when all sidecars are welcomed."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        await self._hear("attached")

    async def kill(self) -> None:
        """SIGKILL: no goodbye, every connection breaks at once."""
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    async def _hear(self, word: str) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_S_MAX):
            line = await asyncio.to_thread(self._process.stdout.readline)
        if line.decode().strip() != word:
            raise RuntimeError(f"the fleet said {line!r}, not {word!r}")


async def measure(run: Run) -> None:
    """Both rows, on a hub of their own."""
    hub = hub_side.process(run.folder / "hub-idle")
    count = run.scaled(COUNT)
    async with running(hub), hub_side.attached(hub.address, sidecars=1, capability=STEADY, name=STEADY) as steady:
        await load.run(steady, count=200)  # what is loaded and compiled once is no cost of the fleet
        resident_bytes = hub.resident_bytes()
        first = await Fleet.prepared(hub.address, count)
        try:
            began = time.perf_counter()
            await first.attach()
            run.say(f"{count:,} sidecars attached in {time.perf_counter() - began:.2f} s")
            if run.wants("idle"):
                await _idle(run, hub, count, resident_bytes)
            if run.wants("drop"):
                await _drop(run, hub, count, first, steady)
        finally:
            await first.kill()


async def _idle(run: Run, hub: Process, count: int, resident_bytes: int) -> None:
    await asyncio.sleep(SETTLE_S)
    began, used_s = time.perf_counter(), hub.cpu_s()
    await asyncio.sleep(WATCH_S)
    share = (hub.cpu_s() - used_s) / (time.perf_counter() - began)
    above_mb = (hub.resident_bytes() - resident_bytes) / 1e6
    run.report(
        Row(
            "idle",
            f"{count:,} idle sidecars",
            f"<= {CORE_SHARE_MAX:.0%} of a core, <= {MEMORY_MB_MAX:.0f} MB above the empty hub",
            f"{share:.1%} of a core, {above_mb:.0f} MB",
            share <= CORE_SHARE_MAX and above_mb <= MEMORY_MB_MAX,
            {"core_share": share, "above_mb": above_mb},
        )
    )


async def _drop(run: Run, hub: Process, count: int, first: Fleet, steady: hub_side.HubSide) -> None:
    second = await Fleet.prepared(hub.address, count)
    waits: list[float] = []
    over = asyncio.Event()

    async def submits() -> None:
        request = steady.prepare(1, 1)[0]
        while not over.is_set():
            steady.marks = load.Marks(1)
            began = time.perf_counter()
            await steady.submit(request)
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(SUBMIT_PAUSE_S)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(submits())
            began = time.perf_counter()
            await first.kill()
            await second.attach()
            back_s = time.perf_counter() - began
            over.set()
    finally:
        await second.kill()
    submit = figures.spread(waits)
    run.report(
        Row(
            "drop",
            f"{count:,} sidecars dropped at once",
            f"all back in <= {BACK_S_MAX:.0f} s; submit p99 < {SUBMIT_P99_MS_MAX:.0f} ms meanwhile",
            f"all back in {back_s:.2f} s; submit {submit}, max {submit.max:.0f} ms",
            back_s <= BACK_S_MAX and submit.p99 < SUBMIT_P99_MS_MAX,
            {"back_s": back_s, "submit_ms": submit},
        )
    )
