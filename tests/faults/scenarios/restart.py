"""A hub that ends under much running work, and comes back: everything is taken over, nothing is done again.

The work is real shell commands of real sidecars. Each is one process that opens a FIFO and so costs no processor time
until the scenario lets all of them go on.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from pathlib import Path

from agentcom.v1 import task_pb2
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules
from tests.support.fleet import spec
from tests.support.processes import until

SHARE_MIN = 0.99
BACK_S_MAX = 10.0


async def restart_the_hub(lab: Lab) -> str:
    """Let work pile up, end the hub, stay away for a while, come back, and see what became of the work."""
    size = lab.size
    await lab.start_hub(**size["hub"])
    agents = [f"agent-{number}" for number in range(size["sidecars"])]
    slots = math.ceil(size["tasks"] / len(agents))
    for agent in agents:
        await lab.start_sidecar(agent, slots=slots, **size["sidecar"])
    for agent in agents:
        await lab.until_agent(agent, 2)
    lab.root.joinpath("out").mkdir()
    told = []
    for number, (how, down_s) in enumerate(size["downs"]):
        back_s, adopted = await _once(lab, number, how, down_s)
        told.append(f"{how} {down_s:g} s: {adopted}/{size['tasks']} in {back_s:.1f} s")
    await lab.judge(Rules(all_end=True, works_once=True))
    return "; ".join(told) + "; 0 redone"


async def _once(lab: Lab, number: int, how: str, down_s: float) -> tuple[float, int]:
    """One restart under full load; seconds until all were back, and how many holdings were taken over."""
    count, gate, out = lab.size["tasks"], lab.root / f"gate.{number}", lab.root / "out"
    os.mkfifo(gate)
    command = f"echo $AGENTCOM_GENERATION >> {out}/{number}.$AGENTCOM_TASK && exec cat < {gate}"
    names = await lab.submit(*[spec(f"task {n}", command) for n in range(count)])
    await lab.until_tasks(names, task_pb2.Task.STATE_RUNNING)
    await until(lambda: len(list(out.glob(f"{number}.*"))) == count, "all commands run", lab.patience_s)
    position = await lab.position()
    if how == "KILL":
        await lab.kill_hub()
    else:
        await lab.stop_hub()
    await asyncio.sleep(down_s)  # this is the fault, not a wait for something
    await lab.restart_hub()
    began = time.monotonic()
    attached = await lab.until_events("agent.attached", lab.size["sidecars"], position=position)
    back_s = time.monotonic() - began
    adopted = sum(int(event.fields["adopted"]) for event in attached)
    assert adopted >= SHARE_MIN * count, f"{adopted} of {count} were taken over after {down_s:g} s without a hub"
    _let_go(gate)
    await lab.until_tasks(names)
    assert back_s <= BACK_S_MAX, f"all were back {back_s:.1f} s after the hub, the bound is {BACK_S_MAX:.0f} s"
    again = [name for name in names if (await lab.task(name)).attempts_used]
    assert not again, f"attempts were charged: {again}"
    return back_s, adopted


def _let_go(gate: Path) -> None:
    """Whoever waits for the FIFO's other end goes on, and whoever comes later does not wait."""
    end = os.open(gate, os.O_RDWR | os.O_NONBLOCK)
    fresh = gate.with_suffix(".open")
    fresh.touch()
    fresh.rename(gate)
    os.close(end)


BRISK = {"engine_lease_s": 2.0, "engine_heartbeat_s": 0.5, "engine_sweep_s": 0.5}

SCENARIOS = (
    Scenario(
        name="hub-restart",
        passes="99 % taken over at the same generation within 10 s of its return, 0 redone, attempts unchanged",
        run=restart_the_hub,
        quick={
            "tasks": 40,
            "sidecars": 2,
            "downs": (("TERM", 0.1), ("KILL", 3.0)),
            "hub": BRISK,
            "sidecar": {},
        },
        long={
            "tasks": 500,
            "sidecars": 4,
            "downs": (("KILL", 5.0), ("TERM", 5.0), ("KILL", 60.0), ("TERM", 60.0)),
            # The paces that a user gets: both sides' defaults.
            "hub": {"engine_lease_s": 30.0, "engine_heartbeat_s": 10.0, "engine_sweep_s": 30.0},
            "sidecar": {"timeout_reconnect_base_s": 1.0, "timeout_reconnect_cap_s": 8.0},
        },
        seeds=2,
        twins=(
            Twin(
                node="hub",
                guards=("readoption_off",),
                finds="were taken over|was begun 2 times",
                size={"downs": (("KILL", 0.1),)},
            ),
            Twin(
                node="sidecar",
                guards=("knock_off",),
                finds="were taken over|was begun 2 times",
                size={"downs": (("KILL", 3.0),)},
            ),
            Twin(
                node="hub",
                guards=("start_grace_off",),
                finds="were taken over|was begun 2 times",
                # They come back later than a lease after the hub's start.
                size={
                    "downs": (("KILL", 0.1),),
                    "sidecar": {"timeout_reconnect_base_s": 3.0, "timeout_reconnect_cap_s": 3.0},
                },
            ),
        ),
    ),
)
