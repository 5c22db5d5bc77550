"""NotifyService: proto to engine to proto."""

from __future__ import annotations

from typing import Any

import grpc

from agentcom.v1 import notify_pb2, notify_service_pb2, notify_service_pb2_grpc
from hub.core import scope
from hub.engine.notify.desk import Browser, Desk, Facts
from hub.rpc import translate
from kit import errors, ids, principal

Call = grpc.aio.ServicerContext[Any, Any]

COLLECTION = "pushSubscriptions"


class NotifyService(notify_service_pb2_grpc.NotifyServiceServicer):
    """How people are told."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ListSinks(
        self, request: notify_service_pb2.ListSinksRequest, context: Call
    ) -> notify_service_pb2.ListSinksResponse:
        response, found = notify_service_pb2.ListSinksResponse(), self._desk.sinks()
        for facts in found:
            write_sink(facts, response.sinks.add())
        translate.write_time(self._desk.next_digest_at(), response.next_digest_time)
        return response

    async def TestSink(
        self, request: notify_service_pb2.TestSinkRequest, context: Call
    ) -> notify_service_pb2.TestSinkResponse:
        facts = await self._desk.trial(request.name.partition("/")[2], principal.current().name)
        response = notify_service_pb2.TestSinkResponse()
        write_sink(facts, response.sink)
        return response

    async def GetPushKey(
        self, request: notify_service_pb2.GetPushKeyRequest, context: Call
    ) -> notify_service_pb2.GetPushKeyResponse:
        return notify_service_pb2.GetPushKeyResponse(public_key=self._desk.key())

    async def CreatePushSubscription(
        self, request: notify_service_pb2.CreatePushSubscriptionRequest, context: Call
    ) -> notify_service_pb2.CreatePushSubscriptionResponse:
        made = await self._desk.subscribe(
            principal.current().name,
            request.endpoint,
            request.public_key,
            request.auth,
            request.display_name,
        )
        response = notify_service_pb2.CreatePushSubscriptionResponse()
        write_browser(made, response.push_subscription)
        return response

    async def ListPushSubscriptions(
        self, request: notify_service_pb2.ListPushSubscriptionsRequest, context: Call
    ) -> notify_service_pb2.ListPushSubscriptionsResponse:
        response = notify_service_pb2.ListPushSubscriptionsResponse()
        for browser in self._desk.browsers(principal.current().name, everybody=_operates()):
            write_browser(browser, response.push_subscriptions.add())
        return response

    async def DeletePushSubscription(
        self, request: notify_service_pb2.DeletePushSubscriptionRequest, context: Call
    ) -> notify_service_pb2.DeletePushSubscriptionResponse:
        if not request.name and not request.endpoint:
            raise errors.Invalid.of("name", "is required, or endpoint in its place")
        id = ids.parse_name(COLLECTION, request.name) if request.name else ""
        await self._desk.unsubscribe(principal.current().name, id=id, endpoint=request.endpoint, everybody=_operates())
        return notify_service_pb2.DeletePushSubscriptionResponse()


def write_sink(facts: Facts, into: notify_pb2.Sink) -> None:
    """How a sink does."""
    lane = facts.lane
    into.name = f"sinks/{facts.name}"
    into.enabled, into.target, into.digest = facts.enabled, facts.target, facts.digest
    into.backlog, into.sent_count, into.failed_count = facts.backlog, facts.sent, facts.failed
    into.last_error, into.failing = lane.error, lane.failing
    translate.write_time(lane.succeeded_at, into.last_success_time)
    translate.write_time(lane.failed_at, into.last_failure_time)
    if lane.failing and lane.waiting:
        translate.write_time(lane.next_at, into.next_try_time)


def write_browser(browser: Browser, into: notify_pb2.PushSubscription) -> None:
    """A browser, without what it takes to reach it."""
    one, lane = browser.one, browser.lane
    into.name = ids.name(COLLECTION, one.id)
    into.principal, into.display_name, into.host = one.principal, one.display_name, one.host
    into.last_error, into.backlog = lane.error, browser.backlog
    translate.write_time(one.created_at, into.create_time)
    translate.write_time(lane.succeeded_at, into.last_success_time)
    translate.write_time(lane.failed_at, into.last_failure_time)


def _operates() -> bool:
    return principal.current().scope in scope.OPERATORS
