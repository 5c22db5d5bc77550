"""Drains: a sidecar and a hub that are asked to end, with a long task and a second SIGTERM."""

from __future__ import annotations

import signal
import time

import grpc

from agentcom.v1 import agent_pb2, hub_service_pb2, task_pb2
from kit import errors, status
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules, Verb
from tests.support.fleet import appears, spec
from tests.support.processes import until

#: Beyond the grace that was given.
MARGIN_S = 5.0
KILL_GRACE_S = 0.5
HUB_GRACE_S = 1.0


async def drain_a_sidecar(lab: Lab) -> str:
    """SIGTERM: no new work, what is short is finished; SIGTERM again: the long task is handed over."""
    await lab.start_hub()
    await lab.start_sidecars("ada", slots=3, timeout_drain_s=lab.size["drain_s"])
    began, gate = lab.root / "began", lab.root / "gate"
    short, long = await lab.submit(
        spec("short", f"while ! test -e {gate}; do sleep 0.05; done"),
        spec("long", f"touch {began}.$AGENTCOM_AGENT; if test $AGENTCOM_AGENT = ada; then sleep 1800; fi"),
    )
    await lab.until_tasks([short, long], task_pb2.Task.STATE_RUNNING)
    await appears(lab.root / "began.ada")
    ada = lab.sidecars["ada"]
    ada.signal(signal.SIGTERM)
    await lab.until_agent("ada", agent_pb2.Agent.STATE_DRAINING)
    (late,) = await lab.submit(spec("late"))
    gate.touch()
    await lab.until_tasks([short])
    assert ada.is_running, "it waits for the long one"
    again = time.monotonic()
    ada.signal(signal.SIGTERM)
    await until(lambda: not ada.is_running, "the sidecar has ended", KILL_GRACE_S + MARGIN_S)
    lab.note("sidecar/ada", Verb.PROCESS_DIED, "TERM")
    ended_s = time.monotonic() - again
    task = await lab.task(late)
    assert (task.state, task.generation) == (task_pb2.Task.STATE_QUEUED, 0), f"a draining sidecar got new work: {task}"
    await lab.start_sidecars("grace", slots=2)
    await lab.until_tasks([late, long])
    task = await lab.task(long)
    first = task.attempts[0]
    assert (first.agent, first.outcome) == ("agents/ada", task_pb2.Attempt.OUTCOME_REVOKED)
    assert task.attempts_used == 0
    await lab.judge(Rules(all_end=True))
    return f"no new work, short one finished, long one handed over; ended {ended_s:.1f} s after the second SIGTERM"


async def drain_a_hub(lab: Lab) -> str:
    """DrainHub, SIGTERM with watchers and a long task, SIGTERM again; the work goes on and is taken over."""
    await lab.start_hub(server_stop_grace_s=HUB_GRACE_S)
    await lab.start_sidecars("ada", slots=2)
    gate = lab.root / "gate"
    (long,) = await lab.submit(spec("long", f"while ! test -e {gate}; do sleep 0.05; done"))
    await lab.until_tasks([long], task_pb2.Task.STATE_RUNNING)
    nobody = task_pb2.Requirement(executor="fake")
    waiting = await lab.submit(spec("it waits", "[{print: done}]", requirement=nobody))
    await lab.hubs.DrainHub(hub_service_pb2.DrainHubRequest(reason="trial"))
    await _refused(lab)
    ended = []
    for signals in lab.size["signals"]:
        position = await lab.position()
        ended.append(await _end_hub(lab, signals))
        await lab.restart_hub()
        (attached,) = await lab.until_events("agent.attached", position=position)
        assert attached.fields["adopted"] == "1"
    gate.touch()
    await lab.until_tasks([long])
    task = await lab.task(long)
    assert (task.generation, task.attempts_used) == (1, 0), "it ran through"
    await lab.start_sidecars("grace", executors="fake")
    await lab.until_tasks(waiting)
    await lab.judge(Rules(all_end=True, works_once=True))
    told = " and ".join(f"{seconds:.1f} s" for seconds in ended)
    return f"submits refused; ended in {told}; the long task ran through both ends"


async def _refused(lab: Lab) -> None:
    try:
        await lab.file(lab.request_id())
    except grpc.aio.AioRpcError as error:
        problem = status.from_rpc_error(error)
        assert isinstance(problem, errors.Unavailable) and problem.reason == "HUB_DRAINING", problem
        return
    raise AssertionError("a draining hub took a submit")


async def _end_hub(lab: Lab, signals: int) -> float:
    """SIGTERM, so often; seconds until it has ended."""
    assert lab.hub is not None
    watch = lab.hubs.WatchEvents(hub_service_pb2.WatchEventsRequest(position=-1))
    await anext(aiter(watch))  # somebody watches
    hub, began = lab.hub, time.monotonic()
    for _ in range(signals):
        hub.signal(signal.SIGTERM)
    await until(lambda: not hub.is_running, "the hub has ended", HUB_GRACE_S + MARGIN_S)
    lab.note("hub", Verb.PROCESS_DIED, "TERM")
    watch.cancel()
    return time.monotonic() - began


SCENARIOS = (
    Scenario(
        name="drain-sidecar",
        passes="no new work; finished or handed over; ended within grace + 5 s",
        run=drain_a_sidecar,
        quick={"drain_s": 600.0},
        long={"drain_s": 600.0},
        seeds=3,
        twins=(Twin(node="sidecar", guards=("drain_off",), finds="is still|got new work|the sidecar has ended"),),
    ),
    Scenario(
        name="drain-hub",
        passes="submits refused, nothing assigned; ended within grace + 5 s; running work goes on",
        run=drain_a_hub,
        quick={"signals": (1, 2)},
        long={"signals": (1, 2, 1, 2)},
        seeds=3,
        twins=(
            Twin(node="hub", guards=("hub_drain_off",), finds="a draining hub took a submit"),
            Twin(node="hub", guards=("streams_stay",), finds="the hub has ended"),
        ),
    ),
)
