"""Alerts over the wire: rules edited at run time, alerts acknowledged and muted, and who may do that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import duration_pb2, field_mask_pb2

from agentcom.v1 import agent_pb2, agent_service_pb2, alert_pb2, attach_pb2, hub_service_pb2, registry_service_pb2
from hub.core.alerts import rule as alert_rule
from hub.core.token import Scope
from kit import errors
from tests.support.hub import Caller, as_token, fields, refused, running

Severity = alert_pb2.Alert
DISK = "alertRules/disk-low"
HUGE = 2.0**50
"""No disk of a test has so much free."""


@pytest.fixture
async def caller(tmp_path: Path):
    async with running(tmp_path, store__kind="lmdb") as made:
        yield made


async def rules(caller: Caller) -> dict[str, Any]:
    reply = await caller.hubs.ListAlertRules(hub_service_pb2.ListAlertRulesRequest())
    return {one.name: one for one in reply.alert_rules}


async def alerts(caller: Caller) -> dict[str, Any]:
    reply = await caller.hubs.ListAlerts(hub_service_pb2.ListAlertsRequest())
    return {one.name: one for one in reply.alerts}


async def edit(caller: Caller, name: str, **wanted: Any) -> Any:
    etag = wanted.pop("etag", "")
    ask = hub_service_pb2.UpdateAlertRuleRequest(
        alert_rule=alert_pb2.AlertRule(name=name, etag=etag, **wanted),
        update_mask=field_mask_pb2.FieldMask(paths=list(wanted)),
    )
    return (await caller.hubs.UpdateAlertRule(ask)).alert_rule


async def mute(caller: Caller, name: str, seconds: int, reason: str = "") -> Any:
    ask = hub_service_pb2.MuteAlertRequest(name=name, duration=duration_pb2.Duration(seconds=seconds), reason=reason)
    return (await caller.hubs.MuteAlert(ask)).mute


async def log(caller: Caller, subject: str) -> list[Any]:
    reply = await caller.hubs.ListEvents(hub_service_pb2.ListEventsRequest(subject=subject))
    return list(reversed(reply.events))


async def test_the_rules_are_listed_with_their_defaults_and_limits(caller: Caller):
    found = await rules(caller)
    assert [one.removeprefix("alertRules/") for one in found] == list(alert_rule.BY_ID)
    disk = found[DISK]
    assert (disk.unit, disk.below, disk.enabled, disk.etag, disk.alert_count) == ("bytes", True, True, "0", 0)
    assert (disk.threshold, disk.defaults.threshold) == (2.0**28, 2.0**28)
    assert disk.threshold_min <= disk.threshold <= disk.threshold_max and disk.description
    assert disk.severity == disk.defaults.severity == Severity.SEVERITY_WARNING
    assert disk.cooldown_duration.seconds == 3_600 and disk.HasField("hold_duration")
    assert not disk.HasField("update_time") and not disk.HasField("mute")


async def test_an_edit_is_in_force_when_it_returns_and_a_reset_takes_it_back(caller: Caller):
    after = await edit(caller, DISK, threshold=HUGE, severity=Severity.SEVERITY_CRITICAL)
    assert (after.threshold, after.etag, after.alert_count) == (HUGE, "1", 1) and after.HasField("update_time")
    one = (await alerts(caller))["alerts/disk-low"]
    assert (one.rule, one.subject, one.unit, one.threshold) == (DISK, "", "bytes", HUGE)
    assert 0 < one.value < HUGE and one.severity == Severity.SEVERITY_CRITICAL and one.told
    assert (await rules(caller))[DISK] == after
    ask = hub_service_pb2.ResetAlertRuleRequest(name=DISK, etag="0")
    assert isinstance(await refused(caller.hubs.ResetAlertRule(ask)), errors.Conflict)
    ask.etag = "1"
    back = (await caller.hubs.ResetAlertRule(ask)).alert_rule
    assert (back.threshold, back.etag, back.alert_count) == (2.0**28, "2", 0) and not back.HasField("update_time")
    assert await alerts(caller) == {}
    assert [one.type for one in await log(caller, "alerts/disk-low")] == ["alert.raised", "alert.cleared"]
    assert [one.type for one in await log(caller, DISK)] == ["alert_rule.updated"] * 2


async def test_an_edit_that_is_refused_names_the_field_and_changes_nothing(caller: Caller):
    position = await caller.position()
    for wanted, field in (
        ({"threshold": 1.0}, "alert_rule.threshold"),
        ({"threshold": float("nan")}, "alert_rule.threshold"),
        ({"severity": 0}, "alert_rule.severity"),
    ):
        assert fields(await refused(edit(caller, DISK, **wanted))) == [field]
    assert isinstance(await refused(edit(caller, DISK, enabled=False, etag="4")), errors.Conflict)
    problem = await refused(edit(caller, "alertRules/nonsense", enabled=False))
    assert (type(problem), problem.reason) == (errors.NotFound, "ALERT_RULE_NOT_FOUND")
    assert await caller.position() == position and (await rules(caller))[DISK].etag == "0"


async def test_an_alert_is_acknowledged_with_a_note_by_whoever_calls(caller: Caller):
    ask = hub_service_pb2.AckAlertRequest(name="alerts/disk-low", note="on it")
    problem = await refused(caller.hubs.AckAlert(ask))
    assert (type(problem), problem.reason) == (errors.NotFound, "ALERT_NOT_FOUND")
    await edit(caller, DISK, threshold=HUGE)
    acked = (await caller.hubs.AckAlert(ask)).alert
    assert (acked.ack.principal, acked.ack.note) == ("local", "on it") and acked.ack.HasField("create_time")
    assert (await alerts(caller))["alerts/disk-low"].ack == acked.ack
    told = (await log(caller, "alerts/disk-low"))[-1]
    assert (told.type, told.actor, told.fields["note"]) == ("alert.acked", "local", "on it")


@pytest.mark.parametrize("target", ["alerts/disk-low", DISK])
async def test_a_mute_is_listed_and_ends_when_it_is_asked_to(caller: Caller, target: str):
    made = await mute(caller, target, 60, "known")
    assert (made.target, made.principal, made.reason) == (target, "local", "known")
    assert made.expire_time.seconds - made.create_time.seconds == 60
    await edit(caller, DISK, threshold=HUGE)
    reply = await caller.hubs.ListAlerts(hub_service_pb2.ListAlertsRequest())
    assert list(reply.mutes) == [made] and reply.alerts[0].mute == made and not reply.alerts[0].told
    assert ((await rules(caller))[DISK].mute == made) == (target == DISK)
    ended = await caller.hubs.UnmuteAlert(hub_service_pb2.UnmuteAlertRequest(name=target))
    assert ended.mute == made and (await alerts(caller))["alerts/disk-low"].told
    problem = await refused(caller.hubs.UnmuteAlert(hub_service_pb2.UnmuteAlertRequest(name=target)))
    assert problem.reason == "MUTE_NOT_FOUND"
    assert [one.type for one in await log(caller, "alerts/disk-low") if one.type == "alert.told"] == ["alert.told"]


async def test_rules_acks_and_mutes_outlive_the_process(tmp_path: Path):
    options: dict[str, Any] = {"store__kind": "lmdb"}
    async with running(tmp_path, **options) as caller:
        await edit(caller, DISK, threshold=HUGE)
        await caller.hubs.AckAlert(hub_service_pb2.AckAlertRequest(name="alerts/disk-low", note="on it"))
        made = await mute(caller, "alertRules/main-red", 3_600)
        before = await alerts(caller)
    async with running(tmp_path, **options) as caller:
        await caller.hub.upkeep.board.run_once(caller.hub.ctx.clock.now())
        after = await alerts(caller)
        assert after["alerts/disk-low"].ack == before["alerts/disk-low"].ack
        assert after["alerts/disk-low"].start_time == before["alerts/disk-low"].start_time
        assert (await rules(caller))["alertRules/main-red"].mute == made
        assert [one.type for one in await log(caller, "alerts/disk-low")] == ["alert.raised", "alert.acked"]


async def test_of_a_damaged_store_alerts_are_still_told_and_nothing_is_taken(caller: Caller):
    await edit(caller, DISK, threshold=HUGE)
    caller.hub.store.found("a record does not match its checksum")
    await caller.hub.upkeep.board.run_once(caller.hub.ctx.clock.now())
    found = await alerts(caller)
    assert list(found) == ["alerts/store-degraded", "alerts/disk-low"] and len(await rules(caller)) == len(
        alert_rule.CATALOGUE
    )
    ack = hub_service_pb2.AckAlertRequest(name="alerts/disk-low")
    for call in (
        caller.hubs.AckAlert(ack),
        mute(caller, "alerts/disk-low", 60),
        edit(caller, DISK, enabled=False),
        caller.hubs.ResetAlertRule(hub_service_pb2.ResetAlertRuleRequest(name=DISK)),
    ):
        problem = await refused(call)
        assert (type(problem), problem.reason) == (errors.IllegalState, "STORE_DEGRADED")
    assert not (await alerts(caller))["alerts/disk-low"].HasField("ack")


@pytest.mark.parametrize(("scope", "may_write"), [("viewer", False), ("submitter", False), ("operator", True)])
async def test_everybody_may_look_and_operators_may_change(tmp_path: Path, scope: str, may_write: bool):
    async with running(tmp_path, store__kind="lmdb", auth__required=True) as caller:
        _, token = await caller.hub.vault.create(Scope[scope.upper()], "", None, actor="test")
        async with as_token(caller.hub, token) as one:
            assert await alerts(one) == {} and await rules(one)
            verbs: list[Callable[[], Any]] = [
                lambda: edit(one, DISK, threshold=HUGE),
                lambda: one.hubs.AckAlert(hub_service_pb2.AckAlertRequest(name="alerts/disk-low")),
                lambda: mute(one, DISK, 60),
                lambda: one.hubs.UnmuteAlert(hub_service_pb2.UnmuteAlertRequest(name=DISK)),
                lambda: one.hubs.ResetAlertRule(hub_service_pb2.ResetAlertRuleRequest(name=DISK)),
            ]
            for verb in verbs:
                if may_write:
                    await verb()
                else:
                    assert isinstance(await refused(verb()), errors.Forbidden)


# What the work shows


@contextlib.asynccontextmanager
async def attached(caller: Caller, agent: str):
    """An agent that is online for a block."""
    await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id=agent))
    stream = caller.agents.Attach(timeout=60)
    await stream.write(
        attach_pb2.AttachRequest(hello=attach_pb2.Hello(agent=f"agents/{agent}", offer=agent_pb2.Offer(slots=1)))
    )
    await stream.read()
    try:
        yield
    finally:
        stream.cancel()


async def until_alert(caller: Caller, name: str, *, there: bool) -> Any:
    """Follow the event log until an alert is raised, or cleared; its event."""
    wanted = "alert.raised" if there else "alert.cleared"
    watch = caller.hubs.WatchEvents(hub_service_pb2.WatchEventsRequest(position=-1, type_prefix="alert."))
    async for message in watch:
        event = message.event
        if (event.type, event.subject) == (wanted, name):
            watch.cancel()
            return event
    raise AssertionError("the log ended")


async def test_an_agent_that_goes_offline_is_an_alert_until_it_is_deleted(caller: Caller):
    await edit(caller, "alertRules/agent-offline", threshold=1.0)
    await edit(caller, "alertRules/no-agents", hold_duration=duration_pb2.Duration(), enabled=True)
    async with attached(caller, "anna"):
        assert await alerts(caller) == {}
    raised = await until_alert(caller, "alerts/agent-offline.anna", there=True)
    assert (raised.fields["about"], raised.fields["unit"]) == ("agents/anna", "seconds")
    await until_alert(caller, "alerts/no-agents", there=True)
    assert (await alerts(caller))["alerts/agent-offline.anna"].subject == "agents/anna"
    await caller.agents.DeleteAgent(agent_service_pb2.DeleteAgentRequest(name="agents/anna"))
    await until_alert(caller, "alerts/agent-offline.anna", there=False)
    await until_alert(caller, "alerts/no-agents", there=False)
    assert await alerts(caller) == {}


async def test_a_deleted_repo_is_not_red_any_more(caller: Caller):
    work: Any = caller.hub.upkeep.board.work
    ask = registry_service_pb2.CreateRepoRequest(repo_id="web")
    ask.repo.url = "https://example.com/web.git"
    await caller.registry.CreateRepo(ask)
    work.__self__._main.failed("web", caller.hub.ctx.clock.now(), "unit fails")
    await caller.hub.upkeep.board.run_once(caller.hub.ctx.clock.now())
    assert (await alerts(caller))["alerts/main-red.web"].severity == Severity.SEVERITY_CRITICAL
    await caller.registry.DeleteRepo(registry_service_pb2.DeleteRepoRequest(name="repos/web"))
    await until_alert(caller, "alerts/main-red.web", there=False)
