"""AgentService but for the stream: enrolment, care, and what is refused."""

from __future__ import annotations

import uuid

import pytest

from agentcom.v1 import agent_pb2, agent_service_pb2, hub_pb2, hub_service_pb2, task_service_pb2
from kit import clock as clocks
from kit import errors, tokens
from tests.support.hub import as_token, refused, running

Enroll = agent_service_pb2.EnrollAgentRequest
Get = agent_service_pb2.GetAgentRequest
List = agent_service_pb2.ListAgentsRequest
Update = agent_service_pb2.UpdateAgentRequest


@pytest.fixture
async def caller(tmp_path):
    async with running(tmp_path, parts={"clock": clocks.ManualClock()}) as made:
        yield made


async def join_key(caller, **options):
    request = hub_service_pb2.CreateTokenRequest(scope=hub_pb2.SCOPE_JOIN, **options)
    return (await caller.hubs.CreateToken(request)).secret


async def test_an_enrolled_agent_is_there_offline_with_a_token_of_its_own(caller):
    answer = await caller.agents.EnrollAgent(Enroll(agent_id="anna", display_name="Anna's machine"))
    assert tokens.is_token(answer.token)
    shown = (await caller.agents.GetAgent(Get(name="agents/anna"))).agent
    assert shown == answer.agent
    assert (shown.state, shown.display_name) == (agent_pb2.Agent.STATE_OFFLINE, "Anna's machine")


async def test_a_name_is_invented_for_an_agent_without_one(caller):
    names = {(await caller.agents.EnrollAgent(Enroll())).agent.name for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("agents/agent-") for name in names)


async def test_a_taken_name_is_refused(caller):
    await caller.agents.EnrollAgent(Enroll(agent_id="anna"))
    before = await caller.position()
    problem = await refused(caller.agents.EnrollAgent(Enroll(agent_id="anna")))
    assert (type(problem), problem.metadata["name"]) == (errors.AlreadyExists, "agents/anna")
    assert await caller.position() == before


async def test_a_repeated_enrolment_gives_the_same_agent_a_new_token(caller):
    request = Enroll(request_id=str(uuid.uuid4()))
    first = await caller.agents.EnrollAgent(request)
    again = await caller.agents.EnrollAgent(request)
    assert again.agent.name == first.agent.name
    assert again.token != first.token
    async with as_token(caller.hub, again.token) as agent, as_token(caller.hub, first.token) as old:
        assert (await agent.agents.GetAgent(Get(name=first.agent.name))).agent.name == first.agent.name
        problem = await refused(old.agents.GetAgent(Get(name=first.agent.name)))
        assert (type(problem), problem.reason) == (errors.Unauthenticated, "TOKEN_REVOKED")


async def test_a_join_key_enrols_one_agent_once(caller):
    key, request_id = await join_key(caller), str(uuid.uuid4())
    first = await caller.agents.EnrollAgent(Enroll(agent_id="anna", join_key=key, request_id=request_id))
    before = await caller.position()
    problem = await refused(caller.agents.EnrollAgent(Enroll(agent_id="ben", join_key=key)))
    assert (type(problem), problem.reason) == (errors.Unauthenticated, "TOKEN_REVOKED")
    assert await caller.position() == before
    # but an answer that was lost may be asked for again
    again = await caller.agents.EnrollAgent(Enroll(agent_id="anna", join_key=key, request_id=request_id))
    assert again.agent.name == first.agent.name


@pytest.mark.parametrize("key", ["nonsense", "act_" + "A" * 43])
async def test_a_join_key_that_nobody_made_enrols_nobody(caller, key):
    before = await caller.position()
    problem = await refused(caller.agents.EnrollAgent(Enroll(agent_id="anna", join_key=key)))
    assert (type(problem), problem.reason) == (errors.Unauthenticated, "JOIN_KEY_UNKNOWN")
    assert await caller.position() == before


async def test_a_token_of_another_scope_is_no_join_key(caller):
    secret = (await caller.hubs.CreateToken(hub_service_pb2.CreateTokenRequest(scope="SCOPE_ADMIN"))).secret
    problem = await refused(caller.agents.EnrollAgent(Enroll(join_key=secret)))
    assert problem.reason == "JOIN_KEY_UNKNOWN"


async def test_a_join_key_is_good_for_an_hour_unless_said_otherwise(caller):
    key, longer = await join_key(caller), await join_key(caller, ttl={"seconds": 7200})
    caller.hub.ctx.clock.advance(3600)
    assert (await refused(caller.agents.EnrollAgent(Enroll(join_key=key)))).reason == "TOKEN_EXPIRED"
    assert (await caller.agents.EnrollAgent(Enroll(join_key=longer))).token


async def test_only_the_display_name_is_changed_and_the_etag_is_compared(caller):
    agent = (await caller.agents.EnrollAgent(Enroll(agent_id="anna"))).agent
    changed = agent_pb2.Agent(name="agents/anna", display_name="A", version="9", etag=agent.etag)
    after = (await caller.agents.UpdateAgent(Update(agent=changed, update_mask={"paths": ["display_name"]}))).agent
    assert (after.display_name, after.version) == ("A", "")
    assert after.etag != agent.etag
    before = await caller.position()
    problem = await refused(caller.agents.UpdateAgent(Update(agent=changed, update_mask={"paths": ["*"]})))
    assert (type(problem), problem.reason) == (errors.Conflict, "ETAG_MISMATCH")
    assert await caller.position() == before


async def test_draining_and_resuming_show_and_are_said_once(caller):
    await caller.agents.EnrollAgent(Enroll(agent_id="anna"))
    drain = agent_service_pb2.DrainAgentRequest(name="agents/anna")
    assert (await caller.agents.DrainAgent(drain)).agent.draining
    before = await caller.position()
    assert (await caller.agents.DrainAgent(drain)).agent.state_reason == "drained by a person"
    assert await caller.position() == before
    resume = agent_service_pb2.ResumeAgentRequest(name="agents/anna")
    assert not (await caller.agents.ResumeAgent(resume)).agent.draining


async def test_a_deleted_agent_is_gone_with_its_token_and_its_work_goes_back(caller):
    enrolled = await caller.agents.EnrollAgent(Enroll(agent_id="anna"))
    task = await caller.task()
    await caller.tasks.ClaimTask(task_service_pb2.ClaimTaskRequest(name=task.name, agent="agents/anna"))
    delete = agent_service_pb2.DeleteAgentRequest(name="agents/anna")
    stale = agent_service_pb2.DeleteAgentRequest(name="agents/anna", etag="99")
    assert (await refused(caller.agents.DeleteAgent(stale))).reason == "ETAG_MISMATCH"
    await caller.agents.DeleteAgent(delete)
    assert isinstance(await refused(caller.agents.GetAgent(Get(name="agents/anna"))), errors.NotFound)
    assert (await caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=task.name))).task.agent == ""
    async with as_token(caller.hub, enrolled.token) as agent:
        problem = await refused(agent.agents.GetAgent(Get(name="agents/anna")))
        assert isinstance(problem, errors.Unauthenticated)


@pytest.mark.parametrize("verb", ["Get", "Drain", "Resume", "Delete", "Rotate"])
async def test_an_unknown_agent_is_not_found_by_its_name(caller, verb):
    method = "RotateAgentToken" if verb == "Rotate" else f"{verb}Agent"
    request = getattr(agent_service_pb2, f"{method}Request")(name="agents/nobody")
    problem = await refused(getattr(caller.agents, method)(request))
    assert (type(problem), problem.metadata["name"]) == (errors.NotFound, "agents/nobody")


async def test_agents_come_in_pages_by_name_and_by_state(caller):
    for number in range(25):
        await caller.agents.EnrollAgent(Enroll(agent_id=f"a-{number:02d}"))
    seen, token = [], ""
    while True:
        answer = await caller.agents.ListAgents(List(page_size=10, page_token=token, filter="state = OFFLINE"))
        seen += [agent.name for agent in answer.agents]
        token = answer.next_page_token
        if not token:
            break
    assert seen == [f"agents/a-{number:02d}" for number in range(25)]
    assert not (await caller.agents.ListAgents(List(filter="state = IDLE"))).agents
    stats = (await caller.hubs.GetStats(hub_service_pb2.GetStatsRequest())).stats
    assert [(count.state, count.count) for count in stats.agents] == [(agent_pb2.Agent.STATE_OFFLINE, 25)]
