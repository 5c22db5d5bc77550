"""AgentService: proto to engine to proto. The stream that sidecars work on is in `attach`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from agentcom.v1 import agent_service_pb2, agent_service_pb2_grpc, attach_pb2
from hub.core import filter as filters
from hub.core import page
from hub.core.agent import State
from hub.engine.desk import roster
from hub.rpc import caller, reply, translate, translate_agent
from kit import ids, principal

Call = grpc.aio.ServicerContext[Any, Any]
Attach = Callable[[AsyncIterator[attach_pb2.AttachRequest], Call], Awaitable[None]]

FIELDS = {"state": filters.choice(State)}
MAY_CHANGE = "display_name"


class AgentService(agent_service_pb2_grpc.AgentServiceServicer):
    """Agents: enrolment, care, and the stream that they work on."""

    def __init__(self, agents: roster.Roster, attach: Attach) -> None:
        self._roster = agents
        self._attach = attach

    async def EnrollAgent(
        self, request: agent_service_pb2.EnrollAgentRequest, context: Call
    ) -> agent_service_pb2.EnrollAgentResponse:
        if not request.join_key:
            # Open to all, because a join key needs no token; without one the caller must be somebody.
            caller.must_operate("EnrollAgent without a join key")
        asked = caller.request(
            "EnrollAgent", request.request_id, request.agent_id.encode(), request.display_name.encode()
        )
        view, secret = await self._roster.enroll(
            request.agent_id, request.display_name, asked, join_key=request.join_key
        )
        response = agent_service_pb2.EnrollAgentResponse(token=secret)
        translate_agent.write_agent(view, response.agent)
        return response

    async def GetAgent(
        self, request: agent_service_pb2.GetAgentRequest, context: Call
    ) -> agent_service_pb2.GetAgentResponse:
        response = agent_service_pb2.GetAgentResponse()
        translate_agent.write_agent(self._roster.get(ids.parse_name("agents", request.name)), response.agent)
        return response

    async def ListAgents(
        self, request: agent_service_pb2.ListAgentsRequest, context: Call
    ) -> agent_service_pb2.ListAgentsResponse:
        limit = page.size(request.page_size)
        state = filters.parse(request.filter, FIELDS).get("state")
        after = page.decode(request.page_token, "agents", request.filter)
        found, cursor = self._roster.page(state if isinstance(state, State) else None, after=after, limit=limit)
        response = agent_service_pb2.ListAgentsResponse()
        write = translate_agent.write_agent
        cursor = reply.fill(response.agents, found, write, key=lambda view: view.agent.id, cursor=cursor)
        response.next_page_token = page.encode(cursor, "agents", request.filter) if cursor else ""
        return response

    async def UpdateAgent(
        self, request: agent_service_pb2.UpdateAgentRequest, context: Call
    ) -> agent_service_pb2.UpdateAgentResponse:
        agent_id = ids.parse_name("agents", request.agent.name, field="agent.name")
        caller.check_mask(request.update_mask, (MAY_CHANGE,))
        view = await self._roster.rename(
            agent_id, request.agent.display_name, actor=principal.current().name, etag=request.agent.etag
        )
        response = agent_service_pb2.UpdateAgentResponse()
        translate_agent.write_agent(view, response.agent)
        return response

    async def DrainAgent(
        self, request: agent_service_pb2.DrainAgentRequest, context: Call
    ) -> agent_service_pb2.DrainAgentResponse:
        view = await self._roster.drain(ids.parse_name("agents", request.name), actor=principal.current().name)
        response = agent_service_pb2.DrainAgentResponse()
        translate_agent.write_agent(view, response.agent)
        return response

    async def ResumeAgent(
        self, request: agent_service_pb2.ResumeAgentRequest, context: Call
    ) -> agent_service_pb2.ResumeAgentResponse:
        view = await self._roster.resume(ids.parse_name("agents", request.name), actor=principal.current().name)
        response = agent_service_pb2.ResumeAgentResponse()
        translate_agent.write_agent(view, response.agent)
        return response

    async def DeleteAgent(
        self, request: agent_service_pb2.DeleteAgentRequest, context: Call
    ) -> agent_service_pb2.DeleteAgentResponse:
        agent_id = ids.parse_name("agents", request.name)
        await self._roster.delete(agent_id, actor=principal.current().name, etag=request.etag)
        return agent_service_pb2.DeleteAgentResponse()

    async def RotateAgentToken(
        self, request: agent_service_pb2.RotateAgentTokenRequest, context: Call
    ) -> agent_service_pb2.RotateAgentTokenResponse:
        agent_id = caller.speaks_for(ids.parse_name("agents", request.name))
        grace_s = translate.read_duration(request.grace) if request.HasField("grace") else 0.0
        secret = await self._roster.rotate(agent_id, actor=principal.current().name, grace_s=grace_s)
        return agent_service_pb2.RotateAgentTokenResponse(token=secret)

    async def Attach(  # type: ignore[override]  # the stub wants a generator; this one writes to the context
        self, request_iterator: AsyncIterator[attach_pb2.AttachRequest], context: Call
    ) -> None:
        await self._attach(request_iterator, context)
