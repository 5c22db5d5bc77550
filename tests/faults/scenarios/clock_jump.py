"""The date jumps by an hour, forwards and back, under hub and sidecar: no lease passes, nothing is lost or redone, and
what waits for a date is early or late by the jump at most.
"""

from __future__ import annotations

import asyncio
import time

from google.protobuf import duration_pb2, timestamp_pb2

from agentcom.v1 import hub_service_pb2, task_pb2
from tests.faults import clocked
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules
from tests.support.fleet import spec

HOUR_S = 3600.0
LEASE_S = 1.2
#: What is due this soon after a jump comes within a moment of it.
DUE_S, DUE_LATE_S_MAX = 0.5, 1.5


async def jump(lab: Lab) -> str:
    """An hour on and an hour back, the hub first and then the sidecars, while tasks run, wait and are filed."""
    lab.root.mkdir(parents=True, exist_ok=True)
    files = {node: lab.root / f"{node}.clock" for node in ("hub", "sidecar")}
    for file in files.values():
        clocked.set_offset(file, 0.0)
    real = lab._command
    lab._command = lambda node: _with_clock(real(node), str(files[node]))  # type: ignore[method-assign]  # put in the place of the real one
    await lab.start_hub(engine_lease_s=LEASE_S, engine_heartbeat_s=0.3)
    await lab.start_sidecars("ada", "grace", slots=4)
    gate = lab.root / "gate"
    wait = f"while ! test -e {gate}; do sleep 0.05; done"
    check = task_pb2.Check(id="held", run="sleep 0.6", timeout=duration_pb2.Duration(seconds=60))
    running = await lab.submit(*[spec(f"running {number}", wait) for number in range(lab.size["running"])])
    await lab.until_tasks(running, task_pb2.Task.STATE_RUNNING)
    late_s, names = 0.0, list(running)
    for node in ("hub", "sidecar"):
        for hours in lab.rng.sample((1, -1), 2):
            # While a task is on its way, in the middle of a check, and a moment before one is due.
            names += await lab.submit(spec(f"meanwhile {node} {hours}", checks=[check]))
            clocked.set_offset(files[node], hours * HOUR_S)
            late_s = max(late_s, await _due_soon(lab, hours * HOUR_S if node == "hub" else 0.0))
            await asyncio.sleep(1.2 * LEASE_S)  # longer than a lease, at the new date
            stats = (await lab.hubs.GetStats(hub_service_pb2.GetStatsRequest())).stats
            assert stats.adopted_count == 0, "sidecars came back, so their leases have passed"
            clocked.set_offset(files[node], 0.0)
    gate.touch()
    await lab.until_tasks(names)
    found = await lab.judge(Rules(all_end=True, works_once=True, stop_s=None))
    passed = [event for event in found.events if event.fields.get("reason") in ("LEASE_EXPIRED", "LEASE_RAN_OUT")]
    assert not passed, f"{len(passed)} leases passed because a clock jumped"
    told = f"a task was {late_s:.1f} s late after a jump, the bound is {DUE_LATE_S_MAX:.1f} s"
    assert late_s <= DUE_LATE_S_MAX, told
    return (
        f"4 jumps of an hour, {len(names)} tasks, none redone, no lease passed, due times {late_s:.2f} s late at most"
    )


async def _due_soon(lab: Lab, offset_s: float) -> float:
    """File a task that is due in a moment by the hub's own date; how late it began."""
    due = time.time() + DUE_S
    start = timestamp_pb2.Timestamp()
    start.FromNanoseconds(int((due + offset_s) * 1e9))
    names = await lab.submit(spec("due soon", start_time=start))
    await lab.until_tasks(names)
    return time.time() - due


def _with_clock(command: list[str], file: str) -> list[str]:
    """The same node, with a clock that can be set: its module is run by `clocked`."""
    python, dash, module, *rest = command
    assert dash == "-m", command
    return [python, dash, "tests.faults.clocked", file, module, *rest]


SCENARIOS = (
    Scenario(
        name="clock-jump",
        passes="no lease passes, nothing is redone; what waits for a date is wrong by the jump at most",
        run=jump,
        quick={"running": 2},
        long={"running": 20},
        twins=(Twin(node="hub", guards=("leases_by_date",), finds="leases passed because|was begun 2 times"),),
    ),
)
