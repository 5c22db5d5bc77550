"""HubService: proto to engine to proto."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from agentcom.v1 import history_pb2, hub_pb2, hub_service_pb2, hub_service_pb2_grpc
from hub.core import page, sample
from hub.core.token import Scope
from hub.engine.alerts.board import Board
from hub.engine.alerts.desk import AlertDesk
from hub.engine.care.desk import Care
from hub.engine.care.doctor import Doctor
from hub.engine.desk import conduct, history, hubstate, sampler, stats, vault
from hub.engine.live.context import Context
from hub.rpc import reply, translate, translate_care, translate_hub
from hub.rpc.alerts import AlertMethods
from hub.rpc.care import CareMethods
from kit import ids, principal

Call = grpc.aio.ServicerContext[Any, Any]


class HubService(AlertMethods, CareMethods, hub_service_pb2_grpc.HubServiceServicer):
    """The hub itself: its state, its figures, its tokens, its events."""

    def __init__(
        self,
        ctx: Context,
        state: hubstate.HubState,
        tokens: vault.Vault,
        collect: Callable[[], stats.Stats],
        *,
        behaviour: conduct.Conduct,
        upkeep: tuple[Care, Board, Doctor],
        samples: sampler.Sampler,
    ) -> None:
        AlertMethods.__init__(self, AlertDesk(ctx, upkeep[1]))
        CareMethods.__init__(self, *upkeep)
        self._conduct = behaviour
        self._ctx = ctx
        self._state = state
        self._vault = tokens
        self._collect = collect
        self._samples = samples

    async def GetHub(self, request: hub_service_pb2.GetHubRequest, context: Call) -> hub_service_pb2.GetHubResponse:
        response = hub_service_pb2.GetHubResponse()
        self._write(response.hub)
        return response

    async def GetStats(
        self, request: hub_service_pb2.GetStatsRequest, context: Call
    ) -> hub_service_pb2.GetStatsResponse:
        response = hub_service_pb2.GetStatsResponse()
        translate_hub.write_stats(self._collect(), response.stats)
        translate_care.write_figures(self._board.facts, len(self._board.alerts), response.stats)
        return response

    async def GetHistory(
        self, request: hub_service_pb2.GetHistoryRequest, context: Call
    ) -> hub_service_pb2.GetHistoryResponse:
        hours = request.step == history_pb2.Sample.STEP_HOUR
        response = hub_service_pb2.GetHistoryResponse()
        count = request.count or sampler.COUNT_DEFAULT
        translate_hub.write_history(self._samples.of(hours=hours, count=count), response.history.samples)
        translate.write_duration(sample.HOUR_S if hours else sample.MINUTE_S, response.history.step)
        return response

    async def PauseHub(
        self, request: hub_service_pb2.PauseHubRequest, context: Call
    ) -> hub_service_pb2.PauseHubResponse:
        await self._state.pause(principal.current().name, request.reason)
        response = hub_service_pb2.PauseHubResponse()
        self._write(response.hub)
        return response

    async def ResumeHub(
        self, request: hub_service_pb2.ResumeHubRequest, context: Call
    ) -> hub_service_pb2.ResumeHubResponse:
        await self._state.resume(principal.current().name)
        response = hub_service_pb2.ResumeHubResponse()
        self._write(response.hub)
        return response

    async def DrainHub(
        self, request: hub_service_pb2.DrainHubRequest, context: Call
    ) -> hub_service_pb2.DrainHubResponse:
        await self._state.drain(principal.current().name, request.reason)
        response = hub_service_pb2.DrainHubResponse()
        self._write(response.hub)
        return response

    async def CreateToken(
        self, request: hub_service_pb2.CreateTokenRequest, context: Call
    ) -> hub_service_pb2.CreateTokenResponse:
        ttl_s = translate.read_duration(request.ttl) if request.HasField("ttl") else None
        token, secret = await self._vault.create(
            Scope(request.scope), request.display_name, ttl_s, actor=principal.current().name
        )
        response = hub_service_pb2.CreateTokenResponse(secret=secret)
        translate_hub.write_token(token, response.token)
        return response

    async def ListTokens(
        self, request: hub_service_pb2.ListTokensRequest, context: Call
    ) -> hub_service_pb2.ListTokensResponse:
        after = page.decode(request.page_token, "tokens")
        found, cursor = self._vault.page(after=after, limit=page.size(request.page_size))
        response = hub_service_pb2.ListTokensResponse()
        for token in found:
            translate_hub.write_token(token, response.tokens.add())
        response.next_page_token = page.encode(cursor, "tokens") if cursor else ""
        return response

    async def RevokeToken(
        self, request: hub_service_pb2.RevokeTokenRequest, context: Call
    ) -> hub_service_pb2.RevokeTokenResponse:
        token = await self._vault.revoke(ids.parse_name("tokens", request.name), actor=principal.current().name)
        response = hub_service_pb2.RevokeTokenResponse()
        translate_hub.write_token(token, response.token)
        return response

    async def ListViolators(
        self, request: hub_service_pb2.ListViolatorsRequest, context: Call
    ) -> hub_service_pb2.ListViolatorsResponse:
        response, now = hub_service_pb2.ListViolatorsResponse(), self._ctx.clock.now()
        for violator in self._conduct.recent():
            translate_hub.write_violator(violator, now, response.violators.add())
        return response

    async def ForgiveViolator(
        self, request: hub_service_pb2.ForgiveViolatorRequest, context: Call
    ) -> hub_service_pb2.ForgiveViolatorResponse:
        response = hub_service_pb2.ForgiveViolatorResponse()
        forgiven = self._conduct.forgive(request.principal, actor=principal.current().name)
        translate_hub.write_violator(forgiven, self._ctx.clock.now(), response.violator)
        return response

    async def ListEvents(
        self, request: hub_service_pb2.ListEventsRequest, context: Call
    ) -> hub_service_pb2.ListEventsResponse:
        prefix, subject = request.type_prefix, request.subject
        bound = ("events", prefix, subject)
        before, limit = page.decode_position(request.page_token, *bound), page.size(request.page_size)
        found = history.look(self._ctx.store, before=before, limit=limit, prefix=prefix, subject=subject)
        response = hub_service_pb2.ListEventsResponse()
        cursor, write = str(found.before or ""), translate_hub.write_event
        cursor = reply.fill(response.events, found.events, write, key=lambda event: event.position, cursor=cursor)
        response.next_page_token = page.encode(cursor, *bound) if cursor else ""
        return response

    async def GetCaller(
        self, request: hub_service_pb2.GetCallerRequest, context: Call
    ) -> hub_service_pb2.GetCallerResponse:
        caller = principal.current()
        response = hub_service_pb2.GetCallerResponse(principal=caller.name)
        response.scope = Scope[caller.scope.upper()]  # type: ignore[assignment]  # the numbers are the same
        response.agent = translate.name("agents", caller.agent or "")
        translate.write_time(caller.expires_at, response.expire_time)
        return response

    async def WatchEvents(
        self, request: hub_service_pb2.WatchEventsRequest, context: Call
    ) -> AsyncIterator[hub_service_pb2.WatchEventsResponse]:
        bus, prefix = self._ctx.bus, request.type_prefix
        wanted = (lambda event: event.type.startswith(prefix)) if prefix else None
        follower = bus.follow(bus.start(request.position), wanted)
        async with contextlib.aclosing(follower) as batches:
            async for batch in batches:
                if not batch.events:
                    yield hub_service_pb2.WatchEventsResponse(position=batch.position)
                for event in batch.events:
                    response = hub_service_pb2.WatchEventsResponse(position=event.position)
                    translate_hub.write_event(event, response.event)
                    yield response

    def _write(self, into: hub_pb2.Hub) -> None:
        translate_hub.write_hub(self._state.facts(), into)
