"""Streams end with the token that let them in: revoked, expired, rotated; and who is let go on."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    attach_pb2,
    goal_service_pb2,
    hub_service_pb2,
    task_service_pb2,
)
from hub.core.token import Scope
from hub.engine.desk import leashes
from kit import clock, errors, status
from tests.support.hub import PATIENCE_S, as_token, refused, running


@pytest.fixture
async def caller(tmp_path):
    async with running(tmp_path) as made:
        yield made


async def drained(call):
    async with asyncio.timeout(PATIENCE_S):
        while await call.read() is not grpc.aio.EOF:
            pass


async def end_of(call):
    """The problem that a stream ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await drained(call)
    return status.from_rpc_error(caught.value)


async def attach(agent, name="a1"):
    call = agent.agents._stub.Attach(metadata=agent.metadata)
    hello = attach_pb2.Hello(agent=f"agents/{name}", offer=agent_pb2.Offer(slots=1), self_test=agent_pb2.SelfTest())
    await call.write(attach_pb2.AttachRequest(hello=hello))
    async with asyncio.timeout(PATIENCE_S):
        message = await call.read()
    assert message.WhichOneof("body") == "welcome"
    return call


@contextlib.asynccontextmanager
async def enrolled(caller, name="a1"):
    reply = await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id=name))
    async with as_token(caller.hub, reply.token) as agent:
        yield agent


async def token_of(caller, name="a1"):
    found = await caller.hubs.ListTokens(hub_service_pb2.ListTokensRequest())
    return next(one.name for one in found.tokens if one.agent == f"agents/{name}" and not one.HasField("revoke_time"))


async def revoke(caller, name):
    await caller.hubs.RevokeToken(hub_service_pb2.RevokeTokenRequest(name=name))


def opened(viewer, task):
    yield viewer.hubs.WatchEvents(hub_service_pb2.WatchEventsRequest())
    yield viewer.tasks.WatchTasks(task_service_pb2.WatchTasksRequest())
    yield viewer.goals.WatchGoals(goal_service_pb2.WatchGoalsRequest())
    yield viewer.tasks.TailTaskLog(task_service_pb2.TailTaskLogRequest(name=task))


async def test_a_token_that_is_revoked_ends_every_watch_of_its_own_and_no_other(caller):
    hub, task = caller.hub, (await caller.task()).name
    token, secret = await hub.vault.create(Scope.VIEWER, "", None, actor="test")
    _, other = await hub.vault.create(Scope.VIEWER, "", None, actor="test")
    async with as_token(hub, secret) as viewer, as_token(hub, other) as bystander:
        calls = list(opened(viewer, task))
        for call in calls[:3]:
            await call.read()  # the first word of a watch
        beside = bystander.hubs.WatchEvents(hub_service_pb2.WatchEventsRequest(type_prefix="token."))
        await beside.read()
        async with asyncio.timeout(PATIENCE_S):
            while len(hub.leashes) < 5:  # noqa: ASYNC110  # a tail says nothing when it is open
                await asyncio.sleep(0.01)
        await revoke(caller, f"tokens/{token.id}")
        for call in calls:
            problem = await end_of(call)
            assert (type(problem), problem.reason) == (errors.Unauthenticated, "TOKEN_REVOKED")
        async with asyncio.timeout(PATIENCE_S):
            assert (await beside.read()).event.subject == f"tokens/{token.id}"
        beside.cancel()


async def test_a_token_that_expires_ends_its_watch(caller):
    _, secret = await caller.hub.vault.create(Scope.VIEWER, "", 0.5, actor="test")
    async with as_token(caller.hub, secret) as viewer:
        call = viewer.hubs.WatchEvents(hub_service_pb2.WatchEventsRequest())
        await call.read()
        assert (await end_of(call)).reason == "TOKEN_EXPIRED"
    assert len(caller.hub.leashes) == 0


async def test_a_clock_that_is_set_forward_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(leashes, "LOOK_S", 0.05)
    async with running(tmp_path, parts={"clock": clock.ManualClock()}) as caller:
        _, secret = await caller.hub.vault.create(Scope.VIEWER, "", 3600.0, actor="test")
        async with as_token(caller.hub, secret) as viewer:
            call = viewer.hubs.WatchEvents(hub_service_pb2.WatchEventsRequest())
            await call.read()
            caller.hub.ctx.clock.jump(3600.0)
            assert (await end_of(call)).reason == "TOKEN_EXPIRED"


async def test_a_sidecars_stream_ends_when_its_token_is_revoked(caller, monkeypatch):
    monkeypatch.setattr(leashes, "GOODBYE_S", 0.05)
    async with enrolled(caller) as agent:
        call = await attach(agent)
        await revoke(caller, await token_of(caller))
        assert (await end_of(call)).reason == "TOKEN_REVOKED"
        again = agent.agents._stub.Attach(metadata=agent.metadata)
        assert (await end_of(again)).reason == "TOKEN_REVOKED"


@pytest.mark.parametrize("how", ["delete", "rotate"])
async def test_the_hubs_last_word_gets_to_the_sidecar_before_its_stream_is_cut(caller, how):
    async with enrolled(caller) as agent:
        call = await attach(agent)
        if how == "delete":
            await caller.agents.DeleteAgent(agent_service_pb2.DeleteAgentRequest(name="agents/a1"))
        else:
            await caller.agents.RotateAgentToken(agent_service_pb2.RotateAgentTokenRequest(name="agents/a1"))
        async with asyncio.timeout(PATIENCE_S):
            while (message := await call.read()).WhichOneof("body") != "goaway":
                pass
        assert message.goaway.final
        assert await call.read() is grpc.aio.EOF


async def test_a_rotation_with_grace_leaves_no_gap_and_ends_the_old_token_in_time(tmp_path):
    async with running(tmp_path, parts={"clock": clock.ManualClock()}) as caller, enrolled(caller) as agent:
        call = await attach(agent)
        ask = agent_service_pb2.RotateAgentTokenRequest(name="agents/a1", grace={"seconds": 600})
        secret = (await caller.agents.RotateAgentToken(ask)).token
        get = agent_service_pb2.GetAgentRequest(name="agents/a1")
        async with as_token(caller.hub, secret) as fresh:
            assert (await agent.agents.GetAgent(get)).agent.state == (await fresh.agents.GetAgent(get)).agent.state
            newer = await attach(fresh)  # takes the place of the old stream, at no time is there none
            caller.hub.ctx.clock.advance(600.0)
            assert (await refused(agent.agents.GetAgent(get))).reason == "TOKEN_EXPIRED"
            assert (await fresh.agents.GetAgent(get)).agent.name == "agents/a1"
            newer.cancel()
        call.cancel()


async def test_a_second_rotation_ends_the_first_token_at_once_and_deletion_ends_them_all(caller):
    ask = agent_service_pb2.RotateAgentTokenRequest(name="agents/a1", grace={"seconds": 600})
    get = agent_service_pb2.GetAgentRequest(name="agents/a1")
    async with enrolled(caller) as first:
        second_secret = (await caller.agents.RotateAgentToken(ask)).token
        third_secret = (await caller.agents.RotateAgentToken(ask)).token
        async with as_token(caller.hub, second_secret) as second, as_token(caller.hub, third_secret) as third:
            assert (await refused(first.agents.GetAgent(get))).reason == "TOKEN_REVOKED"
            assert await second.agents.GetAgent(get) and await third.agents.GetAgent(get)
            await caller.agents.DeleteAgent(agent_service_pb2.DeleteAgentRequest(name="agents/a1"))
            for old in (second, third):
                assert (await refused(old.agents.GetAgent(get))).reason == "TOKEN_REVOKED"


async def test_two_who_race_with_one_join_key_enrol_one_agent(caller):
    ask = hub_service_pb2.CreateTokenRequest(scope="SCOPE_JOIN")
    for round_ in range(10):
        key = (await caller.hubs.CreateToken(ask)).secret
        calls = [
            caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id=f"r{round_}-{n}", join_key=key))
            for n in range(8)
        ]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        good = [end for end in ends if not isinstance(end, BaseException)]
        assert len(good) == 1
        reasons = {status.from_rpc_error(end).reason for end in ends if isinstance(end, grpc.aio.AioRpcError)}
        assert reasons == {"TOKEN_REVOKED"}
