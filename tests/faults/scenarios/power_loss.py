"""The power fails in the middle of commits: whatever was acknowledged before is in the store that is left.

The hub runs with a recorder preloaded, which writes down every write and sync of the store's file. From that record the
file is made as a power cut at many moments could have left it, and each of these files is opened and judged.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import grpc

from tests.faults.lab import REQUEST_PREFIX, Lab
from tests.faults.power import image
from tests.faults.scenario import Scenario, Twin
from tests.oracle import check, reading
from tests.oracle.record import History, Op, Rules, Verb

CALLERS = 4


async def cut_the_power(lab: Lab) -> str:
    """Record a hub under load, then look at what many power cuts would have left of its store."""
    lab.root.mkdir(parents=True, exist_ok=True)
    log, store = lab.root / "writes", lab.data / "store" / "data.mdb"
    preload = ["env", f"LD_PRELOAD={image.build(lab.root)}", f"POWER_FILE={store}", f"POWER_LOG={log}"]
    real = lab._command
    lab._command = lambda node: [*(preload if node == "hub" else []), *real(node)]  # type: ignore[method-assign]  # put in the place of the real one
    await lab.start_hub(store_map_first_bytes=1 << 20)
    await lab.start_sidecars("ada", slots=4)
    sizes: dict[str, int] = {}  # of the record at the moment of each ack, by request id
    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(_file(lab, f"client/{number}", log, sizes))
    await lab.kill_hub()
    for agent in list(lab.sidecars):
        await lab.kill_sidecar(agent)
    recorded = log.read_bytes()
    seen = image.without_cut(recorded)
    assert store.read_bytes()[: len(seen)] == seen, "the recorder has missed writes, so its cuts are not real ones"
    first = min(sizes.values())
    torn = lost = 0
    for number in range(lab.size["cuts"]):
        at = lab.rng.randint(first, len(recorded))
        left, sectors = image.after_cut(recorded[:at], random.Random(lab.rng.getrandbits(32)))
        torn, lost = torn + bool(sectors), lost + sectors
        await _judge(lab, left, {request for request, size in sizes.items() if size <= at}, f"cut {number} at {at}")
    assert torn, "no cut was in the middle of a commit"
    return f"{lab.size['cuts']} cuts, {torn} of them with {lost} unwritten sectors; {len(sizes)} acked, none lost"


async def _file(lab: Lab, client: str, log: Path, sizes: dict[str, int]) -> None:
    for _ in range(lab.size["submits"] // CALLERS):
        request_id = lab.request_id()
        try:
            await lab.file(request_id, client=client)
        except grpc.aio.AioRpcError as error:
            raise AssertionError(f"a submit failed: {error.details()}") from None
        sizes[request_id] = os.stat(log).st_size


async def _judge(lab: Lab, left: bytes, acked: set[str], when: str) -> None:
    """Open what is left and let the oracle look for what was acked by then."""
    folder = lab.root / "left" / "store"
    folder.mkdir(parents=True)
    for file in (lab.data / "store").iterdir():
        if file.name not in ("data.mdb", "lock.mdb"):
            shutil.copy(file, folder)
    (folder / "data.mdb").write_bytes(left)
    try:
        events, tasks, attempts, titles = await reading.read_store(folder)
    except Exception as error:
        raise AssertionError(f"{when}: what is left cannot be opened: {error}") from error
    finally:
        shutil.rmtree(folder)
    ops = [replace(op, at=0.0) for op in lab.ops if _was_by_then(op, acked)]
    requests = reading.requests_of(titles, REQUEST_PREFIX)
    found = History(events=events, ops=ops, tasks=tasks, attempts=attempts, requests=requests)
    try:
        check.check(found, Rules(logs_complete=False, stop_s=None))
    except check.Broken as broken:
        raise AssertionError(f"{when}: {broken}") from None


def _was_by_then(op: Op, acked: set[str]) -> bool:
    return op.verb in (Verb.SUBMIT_SENT, Verb.SUBMIT_ACKED) and op.request in acked


def _no_compiler() -> str:
    return "" if shutil.which("cc") else "there is no C compiler to build the recorder of writes with"


SCENARIOS = (
    Scenario(
        name="power-loss",
        passes="what is left of the store opens and holds every acked write",
        run=cut_the_power,
        quick={"submits": 80, "cuts": 25},
        long={"submits": 2_000, "cuts": 300},
        seeds=2,
        skip=_no_compiler,
        twins=(Twin(node="hub", guards=("fsync_off",), finds="cannot be opened|and lost|chain"),),
    ),
)
