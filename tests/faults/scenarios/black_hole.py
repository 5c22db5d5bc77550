"""A router between a sidecar and its hub drops packets, so that not even TCP is answered: both ends notice within three
heartbeats, and the task is done elsewhere.
"""

from __future__ import annotations

import json
import time
from datetime import datetime

from agentcom.v1 import agent_pb2, task_pb2
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules
from tests.support import netns
from tests.support.fleet import appears, spec
from tests.support.processes import until
from tests.support.proxy import proxied

#: What the log of an event and its reading here may take on a busy machine.
READ_S = 0.4


async def drop_packets(lab: Lab) -> str:
    """Drop what goes up, what comes down, or both, under a running task."""
    lease_s, heartbeat_s = lab.size["lease_s"], lab.size["heartbeat_s"]
    await lab.start_hub(engine_lease_s=lease_s, engine_heartbeat_s=heartbeat_s, engine_ack_timeout_s=lease_s)
    way, bound_s = lab.rng.choice(("up", "down", "both")), 3 * heartbeat_s
    with netns.machine() as machine:
        # The hub serves the loopback only, as it must without TLS: a proxy of ours carries the rest of the way.
        async with proxied(lab.address, machine.host) as proxy:
            real = lab._command
            lab._command = lambda node: machine.command(*real(node))  # type: ignore[method-assign]  # this node runs elsewhere
            await lab.start_sidecar("ada", address=proxy.address, hub_plaintext="true")
            lab._command = real  # type: ignore[method-assign]  # as it was
            await lab.until_agent("ada", agent_pb2.Agent.STATE_IDLE)
            mark = lab.root / "mark"
            command = f"touch {mark}; while ! test -e {mark}.$AGENTCOM_AGENT; do sleep 0.05; done"
            (name,) = await lab.submit(spec("under way", command))
            await appears(mark)
            await lab.until_tasks([name], task_pb2.Task.STATE_RUNNING)
            await lab.start_sidecars("grace")
            position, began, said = await lab.position(), time.time(), len(lab.sidecars["ada"].said())
            machine.lose(way)
            (event,) = await lab.until_events("agent.detached", subject="agents/ada", position=position)
            hub_s = event.create_time.ToNanoseconds() / 1e9 - began
            sidecar_s = await _noticed(lab, said) - began
            (lab.root / "mark.grace").touch()
            await lab.until_tasks([name])
            machine.heal()
            await lab.until_agent("ada", agent_pb2.Agent.STATE_IDLE)
            await lab.until_tasks(await lab.submit(*[spec("again")] * 4))
        await lab.judge(Rules(all_end=True))
    for end, seconds in (("the hub", hub_s), ("the sidecar", sidecar_s)):
        told = f"{end} noticed the loss of {way} after {seconds:.1f} s, the bound is {bound_s:.1f} s"
        assert seconds <= bound_s + READ_S, told
    return (
        f"{way}: noticed by the hub after {hub_s:.1f} s, by the sidecar after {sidecar_s:.1f} s (bound {bound_s:.1f})"
    )


async def _noticed(lab: Lab, said: int) -> float:
    """When the sidecar wrote that it has lost its stream or its lease."""
    found: list[float] = []

    def look() -> bool:
        for line in lab.sidecars["ada"].said()[said:].splitlines():
            if '"lease.ran_out"' in line or '"sidecar.detached"' in line:
                found.append(datetime.fromisoformat(json.loads(line)["time"]).timestamp())
                return True
        return False

    await until(look, "the sidecar has noticed it", lab.patience_s)
    return found[0]


SCENARIOS = (
    Scenario(
        name="black-hole",
        passes="noticed within 3 heartbeats at both ends, the task is not lost, the slot is free again",
        run=drop_packets,
        quick={"lease_s": 1.7, "heartbeat_s": 0.8},
        long={"lease_s": 30.0, "heartbeat_s": 10.0},
        seeds=4,
        skip=netns.cannot,
        twins=(Twin(node="hub", guards=("silence_unseen",), finds="the hub noticed|agent.detached|still so"),),
    ),
)
