"""SIGSTOP of a sidecar past its lease: its late result is refused, and it stops its work as soon as it wakes."""

from __future__ import annotations

import time

from agentcom.v1 import task_pb2
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules
from tests.support import processes
from tests.support.fleet import appears, spec

HEARTBEAT_S = 0.5
#: From its waking: one heartbeat, and the time that it takes to end a process group (its grace, and a scan).
STOP_S = HEARTBEAT_S + 1.0


async def stand_still(lab: Lab) -> str:
    """Freeze a sidecar with a finished child and with a running one; both tasks are given to another; thaw it."""
    await lab.start_hub(engine_lease_s=lab.size["lease_s"], engine_heartbeat_s=HEARTBEAT_S)
    await lab.start_sidecars("ada", slots=2)
    mark = f"{lab.root}/$AGENTCOM_AGENT"
    late = f"touch {mark}.late; while ! test -e {mark}.gate; do sleep 0.05; done; echo from $AGENTCOM_AGENT"
    long = f"echo $$ > {mark}.pid; while ! test -e {mark}.gate.long; do sleep 0.05; done"
    names = await lab.submit(spec("it ends meanwhile", late), spec("it goes on", long))
    await lab.until_tasks(names, task_pb2.Task.STATE_RUNNING)
    pid = int((await appears(lab.root / "ada.pid")).read_text())
    await appears(lab.root / "ada.late")
    await lab.start_sidecar("grace", slots=2)
    await lab.until_agent("grace", 2)
    lab.freeze("ada")
    (lab.root / "ada.gate").touch()  # its child runs on and ends: there is a result
    await appears(lab.root / "grace.late")
    await appears(lab.root / "grace.pid")
    await lab.until_tasks(names, task_pb2.Task.STATE_RUNNING)
    began = time.monotonic()
    lab.thaw("ada")
    await processes.until(lambda: not processes.is_alive(pid), "the zombie has stopped its work", STOP_S + HEARTBEAT_S)
    stopped_s = time.monotonic() - began
    await lab.until_events("task.fenced", subject=names[0])
    for gate in ("gate", "gate.long"):
        (lab.root / f"grace.{gate}").touch()
    await lab.until_tasks(names)
    for name in names:
        task = await lab.task(name)
        assert [a.agent for a in task.attempts] == ["agents/ada", "agents/grace"]
        assert task.attempts_used == 0
    await lab.judge(Rules(all_end=True, stop_s=STOP_S + HEARTBEAT_S))
    assert stopped_s <= STOP_S, f"it stopped its work {stopped_s:.1f} s after it woke, the bound is {STOP_S:.1f} s"
    return f"late result refused; it stopped its work {stopped_s:.2f} s after it woke"


SCENARIOS = (
    Scenario(
        name="zombie",
        passes="the late result is refused, the work stops one heartbeat after it wakes",
        run=stand_still,
        quick={"lease_s": 1.5},
        long={"lease_s": 5.0},
        twins=(
            Twin(node="hub", guards=("fence_off",), finds="fence: .*by agents/ada when agents/grace had it"),
            Twin(node="sidecar", guards=("stop_off",), finds="the zombie has stopped its work"),
        ),
    ),
)
