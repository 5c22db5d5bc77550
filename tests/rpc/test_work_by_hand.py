"""ClaimTask and ReportTask: a holding like any other, fenced, with a lease of its own; and what it leaves."""

from __future__ import annotations

import pytest

from agentcom.v1 import agent_service_pb2, registry_service_pb2, task_pb2, task_service_pb2
from hub.engine.script import queue
from kit import clock as clocks
from kit import errors
from tests.support.hub import refused, running

Claim = task_service_pb2.ClaimTaskRequest
Report = task_service_pb2.ReportTaskRequest
Artifact = task_service_pb2.GetTaskArtifactRequest


@pytest.fixture
async def caller(tmp_path):
    async with running(tmp_path, parts={"clock": clocks.ManualClock()}) as made:
        for id in ("anna", "ben"):
            await made.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id=id))
        yield made


async def claim(caller, task, agent="agents/anna", **options):
    return await caller.tasks.ClaimTask(Claim(name=task.name, agent=agent, **options))


async def test_a_claimed_task_is_held_and_its_report_ends_it(caller):
    task = await caller.task()
    held = await claim(caller, task)
    assert held.task.state == task_pb2.Task.STATE_RUNNING
    assert (held.task.agent, held.holding.generation) == ("agents/anna", 1)
    artifact = task_pb2.Artifact(id="diff", media_type="text/x-diff", content=b"+1", truncated=True, size_bytes=9)
    report = Report(holding=held.holding, result=task_pb2.Result(summary="done", artifacts=[artifact]))
    ended = (await caller.tasks.ReportTask(report)).task
    assert ended.state == task_pb2.Task.STATE_SUCCEEDED
    found = await caller.tasks.GetTaskArtifact(Artifact(name=task.name, artifact="diff"))
    assert (found.artifact, found.generation) == (artifact, 1)
    shown = (await caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=task.name))).task
    assert [attempt.result.summary for attempt in shown.attempts] == ["done"]
    assert shown.attempts[0].result.artifacts[0].content == b""


async def test_a_report_whose_answer_was_lost_may_be_said_again(caller):
    held = await claim(caller, await caller.task())
    report = Report(holding=held.holding, result=task_pb2.Result(summary="done"))
    first = await caller.tasks.ReportTask(report)
    before = await caller.position()
    assert await caller.tasks.ReportTask(report) == first
    assert await caller.position() == before


async def test_a_failure_by_hand_is_charged_and_tried_again(caller):
    held = await claim(caller, await caller.task())
    failure = task_pb2.Failure(reason="CHECK_FAILED", message="red")
    task = (await caller.tasks.ReportTask(Report(holding=held.holding, failure=failure))).task
    assert (task.attempts_used, task.failure.reason) == (1, "CHECK_FAILED")
    assert task.state == task_pb2.Task.STATE_QUEUED


async def test_a_report_of_an_old_generation_is_fenced(caller):
    task = await caller.task()
    old = await claim(caller, task)
    failure = task_pb2.Failure(reason="X", attribution="ATTRIBUTION_TASK")
    await caller.tasks.ReportTask(Report(holding=old.holding, failure=failure))
    new = await claim(caller, task, "agents/ben")
    assert new.holding.generation == 2
    before = await caller.position()
    problem = await refused(caller.tasks.ReportTask(Report(holding=old.holding, result=task_pb2.Result())))
    assert (type(problem), problem.reason) == (errors.Fenced, "FENCED")
    assert await caller.position() == before


@pytest.mark.parametrize("state", ["RUNNING", "CANCELLED"])
async def test_only_a_queued_task_is_claimed(caller, state):
    task = await caller.task()
    if state == "RUNNING":
        await claim(caller, task)
    else:
        await caller.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=task.name))
    before = await caller.position()
    problem = await refused(caller.tasks.ClaimTask(Claim(name=task.name, agent="agents/ben")))
    assert isinstance(problem, errors.IllegalState)
    assert problem.state == state
    assert await caller.position() == before


async def test_an_agent_that_is_not_there_claims_nothing(caller):
    task = await caller.task()
    problem = await refused(caller.tasks.ClaimTask(Claim(name=task.name, agent="agents/carl")))
    assert (type(problem), problem.metadata["name"]) == (errors.NotFound, "agents/carl")


async def test_a_task_for_another_agent_is_not_claimed(caller):
    task = await caller.task(requirement={"agent": "agents/ben"})
    problem = await refused(caller.tasks.ClaimTask(Claim(name=task.name, agent="agents/anna")))
    assert (type(problem), problem.reason) == (errors.IllegalState, "OTHER_AGENT")
    assert (await claim(caller, task, "agents/ben")).holding.generation == 1


async def test_a_claim_ends_by_itself_when_its_lease_has_passed(caller):
    task = await caller.task()
    held = await claim(caller, task, lease={"seconds": 60})
    clock = caller.hub.ctx.clock
    assert held.lease_expire_time.seconds == int(clock.now()) + 60
    await caller.hub.sweep.run_once(clock.advance(59))
    assert (await caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=task.name))).task.agent == "agents/anna"
    await caller.hub.sweep.run_once(clock.advance(2))
    shown = (await caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=task.name))).task
    assert shown.agent == ""
    assert shown.attempts[0].outcome == task_pb2.Attempt.OUTCOME_LOST


async def test_a_claim_tells_how_to_reach_the_repository(caller):
    repo = {"url": "https://example.org/r.git", "default_branch": "trunk"}
    await caller.registry.CreateRepo(registry_service_pb2.CreateRepoRequest(repo_id="r", repo=repo))
    held = await claim(caller, await caller.task(repo="repos/r"))
    assert (held.repo.name, held.repo.url, held.repo.default_branch) == ("repos/r", repo["url"], "trunk")


async def test_an_artefact_that_is_not_there_is_not_found(caller):
    held = await claim(caller, await caller.task())
    await caller.tasks.ReportTask(Report(holding=held.holding, result=task_pb2.Result(artifacts=[{"id": "log"}])))
    for request in (
        Artifact(name=held.task.name, artifact="diff"),
        Artifact(name=held.task.name, artifact="log", generation=7),
    ):
        problem = await refused(caller.tasks.GetTaskArtifact(request))
        assert (type(problem), problem.reason) == (errors.NotFound, "ARTIFACT_NOT_FOUND")


async def test_what_a_sidecar_holds_is_not_reported_by_hand(caller):
    task = await caller.task()
    ctx = caller.hub.ctx
    task_id = task.name.removeprefix("tasks/")
    await ctx.store.write(lambda txn: queue.assign(txn, task_id, "anna", ctx.clock.now()))
    before = await caller.position()
    report = Report(holding={"task": task.name, "generation": 1}, result=task_pb2.Result())
    problem = await refused(caller.tasks.ReportTask(report))
    assert (type(problem), problem.reason) == (errors.IllegalState, "NOT_CLAIMED")
    assert await caller.position() == before
