"""Every RPC of the contract times every way to say who one is, through a real server; whom an agent may speak for."""

from __future__ import annotations

import contextlib

import grpc
import pytest
from google.protobuf import message_factory

from agentcom.v1 import agent_pb2, agent_service_pb2, attach_pb2, hub_service_pb2, task_pb2, task_service_pb2
from hub import app
from hub.core import scope
from hub.core.token import Scope
from kit import errors, status, tokens
from tests.support.hub import PATIENCE_S, as_token, refused, running

METHODS = {f"/{service.full_name}/{method.name}": method for service in app.SERVICES for method in service.methods}
FREE = {"limits.violation_count_max": 0, "limits.auth_per_s": 0.0, "limits.open_per_s": 0.0}
#: What a good token of the right scope may still be told, by the handler's own rule.
OWN_RULE = {("AgentService/EnrollAgent", who) for who in ("submitter", "viewer", "agent", "join")}


@contextlib.asynccontextmanager
async def guarded(folder, **overrides):
    """A hub where a token is required, and a token of each scope and of each way to be void."""
    async with running(folder, auth__required=True, **FREE, **overrides) as caller:
        hub, vault = caller.hub, caller.hub.vault
        made = {
            one.name.lower(): (await vault.create(one, "", None, actor="test"))[1]
            for one in Scope
            if one is not Scope.AGENT
        }
        async with as_token(hub, made["admin"]) as admin:
            enroll = agent_service_pb2.EnrollAgentRequest(agent_id="a1")
            made["agent"] = (await admin.agents.EnrollAgent(enroll)).token
        revoked, made["revoked"] = await vault.create(Scope.ADMIN, "", None, actor="test")
        await vault.revoke(revoked.id, actor="test")
        _, made["expired"] = await vault.create(Scope.ADMIN, "", -1.0, actor="test")
        made |= {"unknown": tokens.new_token(), "garbage": "act_x", "nobody": ""}
        yield caller, made


async def ask(channel, name, method, token):
    """The problem that an empty request ends with; None: it was answered."""
    reply = message_factory.GetMessageClass(method.output_type)
    kind = "_".join("stream" if one else "unary" for one in (method.client_streaming, method.server_streaming))
    call = getattr(channel, kind)(
        name, request_serializer=lambda message: message.SerializeToString(), response_deserializer=reply.FromString
    )
    request = message_factory.GetMessageClass(method.input_type)()
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    running_call = call(iter(()) if method.client_streaming else request, metadata=metadata, timeout=PATIENCE_S)
    try:
        if method.server_streaming:
            await anext(aiter(running_call), None)
            running_call.cancel()
        else:
            await running_call
    except grpc.aio.AioRpcError as error:
        return status.from_rpc_error(error)
    return None


BAD = {
    "revoked": "TOKEN_REVOKED",
    "expired": "TOKEN_EXPIRED",
    "unknown": "TOKEN_UNKNOWN",
    "garbage": "TOKEN_MALFORMED",
    "nobody": "TOKEN_REQUIRED",
}


async def test_every_rpc_times_every_scope_is_as_the_table_says(tmp_path):
    wrong = []
    async with guarded(tmp_path) as (caller, made):
        for name, method in sorted(METHODS.items()):
            short = name.removeprefix(scope.PACKAGE)
            for one in Scope:
                who = one.name.lower()
                problem = await ask(caller.channel, name, method, made[who])
                is_shut = isinstance(problem, errors.Forbidden | errors.Unauthenticated)
                if one in scope.ROWS[short]:
                    if is_shut and (short, who) not in OWN_RULE:
                        wrong.append(f"{short} is shut to {who}: {problem}")
                elif not (isinstance(problem, errors.Forbidden) and problem.reason == "SCOPE"):
                    wrong.append(f"{short} is open to {who}: {problem!r}")
    assert not wrong, "\n".join(wrong)


async def test_no_rpc_is_open_to_a_caller_without_a_good_token(tmp_path):
    wrong = []
    async with guarded(tmp_path) as (caller, made):
        for name, method in sorted(METHODS.items()):
            for who, reason in BAD.items():
                problem = await ask(caller.channel, name, method, made[who])
                if not isinstance(problem, errors.Unauthenticated) or problem.reason != reason:
                    wrong.append(f"{name} with a token that is {who}: {problem!r}")
    assert not wrong, "\n".join(wrong)


# Whom an agent speaks for. Each names another agent (a2) or what it holds.

HELD = "tasks/" + "0" * 20
FOREIGN = {
    "AgentService/RotateAgentToken": agent_service_pb2.RotateAgentTokenRequest(name="agents/a2"),
    "AgentService/Attach": attach_pb2.AttachRequest(
        hello=attach_pb2.Hello(agent="agents/a2", offer=agent_pb2.Offer(slots=1))
    ),
    "TaskService/ClaimTask": task_service_pb2.ClaimTaskRequest(name=HELD, agent="agents/a2"),
    "TaskService/ReportTask": None,
}
#: Open to an agent, and they only read.
READS = {
    method
    for method, scopes in scope.ROWS.items()
    if Scope.AGENT in scopes and method.partition("/")[2].startswith(("Get", "List", "Explain"))
}


def test_every_rpc_that_is_open_to_an_agent_reads_or_is_tried_for_another_agent():
    open_to_agents = {method for method, scopes in scope.ROWS.items() if Scope.AGENT in scopes}
    assert open_to_agents - READS - {"AgentService/EnrollAgent"} == set(FOREIGN)


async def test_an_agents_token_speaks_only_for_itself(tmp_path):
    async with guarded(tmp_path) as (caller, made):
        async with as_token(caller.hub, made["admin"]) as admin:
            await admin.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="a2"))
            filed = await admin.task()
            claim = task_service_pb2.ClaimTaskRequest(name=filed.name, agent="agents/a2")
            held = (await admin.tasks.ClaimTask(claim)).holding
            before = await admin.position()
        async with as_token(caller.hub, made["agent"]) as agent:
            for method in ("RotateAgentToken", "Attach"):
                ask_for = FOREIGN[f"AgentService/{method}"]
                call = getattr(agent.agents, method)
                problem = await refused(call(iter([ask_for])) if method == "Attach" else call(ask_for))
                assert problem.reason == "OTHER_AGENT", (method, problem)
            problem = await refused(agent.tasks.ClaimTask(FOREIGN["TaskService/ClaimTask"]))
            assert problem.reason == "OTHER_AGENT"
            for outcome in ({"failure": task_pb2.Failure(reason="X")}, {"result": task_pb2.Result()}):
                problem = await refused(
                    agent.tasks.ReportTask(task_service_pb2.ReportTaskRequest(holding=held, **outcome))
                )
                assert isinstance(problem, errors.Forbidden | errors.Fenced), problem
        async with as_token(caller.hub, made["admin"]) as admin:
            assert await admin.position() == before


async def test_a_caller_that_came_through_a_proxy_is_not_the_person_at_this_machine(tmp_path):
    async with running(tmp_path) as caller:
        stub = caller.hubs._stub
        assert await stub.GetHub(hub_service_pb2.GetHubRequest())
        for header in ("x-forwarded-for", "forwarded", "via", "x-real-ip"):
            call = stub.GetHub(hub_service_pb2.GetHubRequest(), metadata=((header, "192.0.2.7"),), timeout=PATIENCE_S)
            assert isinstance(await refused(call), errors.Unauthenticated)


@pytest.mark.parametrize("method", sorted(scope.ROWS))
def test_every_row_lets_an_admin_in(method):
    assert Scope.ADMIN in scope.ROWS[method]
