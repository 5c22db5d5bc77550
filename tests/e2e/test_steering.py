"""Steering work that runs: cancel, live output, drain, self-test, a repo that is away, a sidecar that dies at work."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    registry_service_pb2,
    repo_pb2,
    task_pb2,
    task_service_pb2,
)
from tests.e2e import history
from tests.support.fleet import Fleet, appears, spec
from tests.support.gitrepo import Origin
from tests.support.processes import PATIENCE_S, is_alive, until

Agent = agent_pb2.Agent
State = task_pb2.Task
UNDER_LOCK = 10**15


async def explain(fleet: Fleet, name: str) -> task_service_pb2.ExplainTaskResponse:
    request = task_service_pb2.ExplainTaskRequest(name=name)
    return await fleet.tasks.ExplainTask(request)  # type: ignore[no-any-return]  # the stubs do not say what a call returns


async def test_cancel_ends_everything_that_the_task_has_started(fleet: Fleet, tmp_path: Path):
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    pids = tmp_path / "pids"
    # A child, a grandchild, and one that has left the session: all of them belong to the attempt.
    inner = f"sleep 602 & echo $! $$ >> {pids}.new; setsid sleep 603 & echo $! >> {pids}.new; wait"
    ready = f"while ! test $(wc -l < {pids}.new) = 2; do sleep 0.05; done; echo $$ >> {pids}.new; mv {pids}.new {pids}"
    command = f"touch {pids}.new; sleep 601 & sh -c '{inner}' & {ready}; wait"
    (name,) = await fleet.submit(spec(command=command))
    running = [int(pid) for pid in (await appears(pids)).read_text().split()]
    assert len(running) == 4 and all(map(is_alive, running))
    await fleet.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=name, reason="not needed"))
    await until(lambda: not any(map(is_alive, running)), "every process of the task is gone")
    task = await fleet.task(name)
    assert (task.state, task.attempts[0].outcome) == (State.STATE_CANCELLED, task_pb2.Attempt.OUTCOME_REVOKED)
    await fleet.until_agent("ada", Agent.STATE_IDLE)
    (again,) = await fleet.submit(spec("the slot is free"))
    await fleet.until_tasks([again])


async def test_output_is_shown_live_while_somebody_watches_and_ends_with_the_attempt(fleet: Fleet, tmp_path: Path):
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    gate = tmp_path / "gate"
    loop = f"n=0; while ! test -e {gate}; do n=$((n+1)); echo line $n; sleep 0.1; done; echo the end"
    (name,) = await fleet.submit(spec(command=loop))
    await fleet.until_tasks([name], State.STATE_RUNNING)
    tail = fleet.tasks.TailTaskLog(task_service_pb2.TailTaskLogRequest(name=name))
    text, last = "", task_service_pb2.TailTaskLogResponse()
    async with asyncio.timeout(PATIENCE_S):
        async for last in tail:
            text += last.text
            if text.count("line ") >= 3:
                gate.touch()
            if last.end:
                break
    tail.cancel()
    assert last.generation == 1
    assert "the end" in text
    await fleet.until_tasks([name])


async def test_a_draining_agent_finishes_what_it_holds_and_gets_nothing_new(fleet: Fleet, tmp_path: Path):
    await fleet.start_hub()
    await fleet.start_sidecars("ada", slots=2)
    gate = tmp_path / "gate"
    (held,) = await fleet.submit(spec("held", f"while ! test -e {gate}; do sleep 0.1; done"))
    await fleet.until_tasks([held], State.STATE_RUNNING)
    await fleet.agents.DrainAgent(agent_service_pb2.DrainAgentRequest(name="agents/ada"))
    (waits,) = await fleet.submit(spec("waits"))
    told = await explain(fleet, waits)
    assert [(o.agent, o.reason) for o in told.obstacles] == [("agents/ada", "DRAINING")]
    gate.touch()
    await fleet.until_tasks([held])
    assert (await fleet.agent("ada")).state == Agent.STATE_DRAINING
    assert (await fleet.task(waits)).generation == 0
    await fleet.agents.ResumeAgent(agent_service_pb2.ResumeAgentRequest(name="agents/ada"))
    await fleet.until_tasks([waits])


async def test_an_agent_that_fails_its_self_test_gets_no_work_and_says_why(fleet: Fleet):
    await fleet.start_hub()
    ada = await fleet.start_sidecar("ada", disk_free_bytes_min=UNDER_LOCK)
    blocked = await fleet.until_agent("ada", Agent.STATE_BLOCKED)
    (name,) = await fleet.submit(spec())
    told = await explain(fleet, name)
    assert [(o.agent, o.reason) for o in told.obstacles] == [("agents/ada", "UNAVAILABLE")]
    failed = [finding for finding in blocked.self_test.findings if not finding.passed]
    assert [finding.probe for finding in failed] == ["disk"]
    assert "disk" in blocked.state_reason
    assert str(UNDER_LOCK) in failed[0].message
    assert (await fleet.task(name)).generation == 0
    assert await ada.stop() == 0
    await fleet.start_sidecar("ada")
    await fleet.until_tasks([name])


async def test_a_repo_that_is_away_parks_its_tasks_at_no_cost_until_it_is_resumed(fleet: Fleet, tmp_path: Path):
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    there = tmp_path / "later"
    repo = await fleet.add_repo("later", there / "origin.git")
    (name,) = await fleet.submit(spec("add x", "echo x > x", repo=repo, delivery=task_pb2.DELIVERY_MERGE))
    parked = (await fleet.until_tasks([name], State.STATE_PARKED))[name]
    assert parked.failure.reason == "FETCH_FAILED"
    assert parked.failure.attribution == task_pb2.ATTRIBUTION_ENVIRONMENT
    assert parked.attempts_used == 0 and parked.HasField("wake_time")
    assert (await fleet.agent("ada")).failed_count == 0, "nor is it the agent's fault"
    origin = Origin(there)
    await fleet.registry.ResumeRepo(registry_service_pb2.ResumeRepoRequest(name=repo))
    await fleet.until_tasks([name])
    assert origin.read("x") == "x"
    task = await fleet.task(name)
    assert [attempt.charged for attempt in task.attempts] == [False, False]


async def test_a_paused_repo_holds_its_tasks_back_and_no_others(fleet: Fleet, origin: Origin):
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    repo = await fleet.add_repo("demo", origin.path)
    paused = await fleet.registry.PauseRepo(registry_service_pb2.PauseRepoRequest(name=repo))
    assert isinstance(paused.repo, repo_pb2.Repo) and paused.repo.paused
    held, free = await fleet.submit(
        spec("held", "echo x > x", repo=repo, delivery=task_pb2.DELIVERY_BRANCH), spec("free")
    )
    await fleet.until_tasks([free])
    assert (await fleet.task(held)).generation == 0
    assert "paused" in (await explain(fleet, held)).summary
    await fleet.registry.ResumeRepo(registry_service_pb2.ResumeRepoRequest(name=repo))
    await fleet.until_tasks([held])


async def test_a_sidecar_killed_at_work_saves_it_when_it_is_back_and_the_next_attempt_goes_on_from_there(
    fleet: Fleet, origin: Origin, tmp_path: Path
):
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    repo = await fleet.add_repo("demo", origin.path)
    began = tmp_path / "began"
    first = f"echo half > half.txt; touch {began}; sleep 600"
    second = "test -s half.txt && echo whole > whole.txt"
    command = f"if test $AGENTCOM_GENERATION = 1; then {first}; else {second}; fi"
    (name,) = await fleet.submit(spec("do it in two", command, repo=repo, delivery=task_pb2.DELIVERY_MERGE))
    await appears(began)
    await fleet.sidecars["ada"].kill()
    await fleet.start_sidecar("ada")
    await fleet.until_tasks([name])
    assert (origin.read("half.txt"), origin.read("whole.txt")) == ("half", "whole")
    task = await fleet.task(name)
    wip_ref = f"refs/agentcom/wip/{name.removeprefix('tasks/')}/1"
    assert [attempt.wip_ref for attempt in task.attempts] == [wip_ref, ""]
    assert wip_ref in origin.refs("refs/agentcom/")
    assert task.attempts_used == 0
    assert [e.subject for e in history.of(await fleet.history(), "task.succeeded")].count(name) == 1
