"""Alerts as a person meets them: a real agent goes away and comes back, rules are edited, the hub is killed."""

from __future__ import annotations

from typing import Any

from agentcom.v1 import agent_pb2, hub_service_pb2, task_pb2
from tests.e2e.test_store_care import cli
from tests.support.fleet import DEAD, SUCCEEDED, Fleet, spec
from tests.support.gitrepo import Origin

ALERT = "alerts/agent-offline.anna"


async def alert(fleet: Fleet, *words: str) -> Any:
    code, said = await cli(fleet, "alert", *words)
    assert code == 0, said
    return said


async def test_an_agent_that_stays_away_is_raised_acknowledged_and_cleared_when_it_is_back(fleet: Fleet):
    """With the hub killed in between: rules, acknowledgements and mutes outlive it, and nobody is told twice."""
    await fleet.start_hub()
    await fleet.start_sidecars("anna")
    await alert(fleet, "mute", "main-red", "--rule", "--for", "1h", "--reason", "we rebuild it")
    edited = await alert(fleet, "set", "agent-offline", "--threshold", "1s", "--cooldown", "1h")
    assert (edited["threshold"], edited["defaults"]["threshold"]) == (1.0, 120.0)
    await fleet.sidecars["anna"].kill()
    (raised,) = await fleet.until_events("alert.raised", subject=ALERT)
    assert (raised.fields["about"], raised.fields["told"]) == ("agents/anna", "true")
    acked = await alert(fleet, "ack", "agent-offline.anna", "--note", "its laptop is closed")
    assert (acked["ack"]["principal"], acked["ack"]["note"]) == ("local", "its laptop is closed")

    await fleet.kill_hub()
    await fleet.restart_hub()
    (kept,) = [one for one in await alert(fleet, "list") if one["name"] == ALERT]
    assert (kept["ack"], kept["start_time"], kept["told"]) == (acked["ack"], acked["start_time"], True)
    rules = (await fleet.hubs.ListAlertRules(hub_service_pb2.ListAlertRulesRequest())).alert_rules
    assert [one.threshold for one in rules if one.name == "alertRules/agent-offline"] == [1.0]
    assert [one.name for one in rules if one.HasField("mute")] == ["alertRules/main-red"]

    await fleet.start_sidecar("anna")
    (cleared,) = await fleet.until_events("alert.cleared", subject=ALERT)
    assert (cleared.fields["acked"], cleared.fields["told"]) == ("true", "true")
    await fleet.until_agent("anna", agent_pb2.Agent.STATE_IDLE)
    told = [one.type for one in await fleet.history() if one.subject == ALERT]
    assert told == ["alert.raised", "alert.acked", "alert.cleared"]

    # Away again, within the cooldown: raised, but nobody is told; a reset of the rule ends it.
    await fleet.sidecars["anna"].kill()
    _, again = await fleet.until_events("alert.raised", 2, subject=ALERT)
    assert (again.fields["told"], again.fields["untold_why"]) == ("false", "cooldown")
    await alert(fleet, "reset", "agent-offline")
    assert (await fleet.until_events("alert.cleared", 2, subject=ALERT))[-1].fields["told"] == "false"
    left = (await fleet.hubs.ListAlerts(hub_service_pb2.ListAlertsRequest())).alerts
    assert ALERT not in [one.name for one in left]


async def test_a_default_branch_that_breaks_a_check_of_its_repo_is_red_until_the_check_holds_there(
    fleet: Fleet, origin: Origin
):
    await fleet.start_hub()
    await fleet.start_sidecars("anna")
    run = "test -s README.md"
    repo = await fleet.add_repo("demo", origin.path, checks=[task_pb2.Check(id="readme", run=run)])
    guard = task_pb2.Check(id="guard", run=run, expect_on_base=task_pb2.Check.EXPECTATION_PASS)

    async def work(state: int) -> str:
        wanted = spec(command="echo 1 > one.txt", repo=repo, delivery=task_pb2.DELIVERY_BRANCH, checks=[guard])
        wanted.attempts_max = 1
        (name,) = await fleet.submit(wanted)
        await fleet.until_tasks([name], state)
        return name

    origin.commit({"README.md": ""}, message="somebody empties it")
    name = await work(DEAD)
    (raised,) = await fleet.until_events("alert.raised", subject="alerts/main-red.demo")
    assert (raised.fields["severity"], raised.fields["about"]) == ("CRITICAL", "repos/demo")
    assert "guard (fail)" in raised.fields["message"] and name in raised.fields["message"]
    origin.commit({"README.md": "mended"}, message="somebody mends it")
    await work(SUCCEEDED)
    await fleet.until_events("alert.cleared", subject="alerts/main-red.demo")
