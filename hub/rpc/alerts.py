"""The methods of HubService about alerts and their rules: proto to engine to proto."""

from __future__ import annotations

from typing import Any

import grpc

from agentcom.v1 import hub_service_pb2
from hub.core.alerts import alert
from hub.engine.alerts.desk import AlertDesk
from hub.rpc import translate, translate_alert
from kit import errors, ids, principal

Call = grpc.aio.ServicerContext[Any, Any]


class AlertMethods:
    """What a person should look at, who looks after it, and by which rules it is found."""

    def __init__(self, desk: AlertDesk) -> None:
        self._alerts = desk

    async def ListAlerts(
        self, request: hub_service_pb2.ListAlertsRequest, context: Call
    ) -> hub_service_pb2.ListAlertsResponse:
        response = hub_service_pb2.ListAlertsResponse()
        for shown in self._alerts.alerts():
            translate_alert.write_alert(shown, response.alerts.add())
        for mute in self._alerts.mutes():
            translate_alert.write_mute(mute, response.mutes.add())
        return response

    async def AckAlert(
        self, request: hub_service_pb2.AckAlertRequest, context: Call
    ) -> hub_service_pb2.AckAlertResponse:
        shown = await self._alerts.ack(_alert(request.name), request.note, actor=principal.current().name)
        response = hub_service_pb2.AckAlertResponse()
        translate_alert.write_alert(shown, response.alert)
        return response

    async def MuteAlert(
        self, request: hub_service_pb2.MuteAlertRequest, context: Call
    ) -> hub_service_pb2.MuteAlertResponse:
        duration_s = translate.read_duration(request.duration)
        mute = await self._alerts.mute(request.name, duration_s, request.reason, actor=principal.current().name)
        response = hub_service_pb2.MuteAlertResponse()
        translate_alert.write_mute(mute, response.mute)
        return response

    async def UnmuteAlert(
        self, request: hub_service_pb2.UnmuteAlertRequest, context: Call
    ) -> hub_service_pb2.UnmuteAlertResponse:
        mute = await self._alerts.unmute(request.name, actor=principal.current().name)
        response = hub_service_pb2.UnmuteAlertResponse()
        translate_alert.write_mute(mute, response.mute)
        return response

    async def ListAlertRules(
        self, request: hub_service_pb2.ListAlertRulesRequest, context: Call
    ) -> hub_service_pb2.ListAlertRulesResponse:
        response = hub_service_pb2.ListAlertRulesResponse()
        for shown in self._alerts.rules():
            translate_alert.write_rule(shown, response.alert_rules.add())
        return response

    async def UpdateAlertRule(
        self, request: hub_service_pb2.UpdateAlertRuleRequest, context: Call
    ) -> hub_service_pb2.UpdateAlertRuleResponse:
        wanted = request.alert_rule
        shown = await self._alerts.update_rule(
            ids.parse_name(alert.RULES, wanted.name, field="alert_rule.name"),
            translate_alert.read_setting(wanted),
            request.update_mask.paths,
            actor=principal.current().name,
            etag=wanted.etag,
        )
        response = hub_service_pb2.UpdateAlertRuleResponse()
        translate_alert.write_rule(shown, response.alert_rule)
        return response

    async def ResetAlertRule(
        self, request: hub_service_pb2.ResetAlertRuleRequest, context: Call
    ) -> hub_service_pb2.ResetAlertRuleResponse:
        rule_id, actor = ids.parse_name(alert.RULES, request.name), principal.current().name
        shown = await self._alerts.reset_rule(rule_id, actor=actor, etag=request.etag)
        response = hub_service_pb2.ResetAlertRuleResponse()
        translate_alert.write_rule(shown, response.alert_rule)
        return response


def _alert(name: str) -> str:
    """The id in the name of an alert; its form is a rule of the contract."""
    collection, _, id = name.partition("/")
    if collection != alert.COLLECTION or not id:
        raise errors.Invalid.of("name", f"{name[:80]!r} is not a name of the form alerts/{{alert}}", reason="BAD_NAME")
    return id
