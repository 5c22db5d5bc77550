"""What needs a person, and which agents are shown, on the first page."""

from __future__ import annotations

from agentcom.v1 import agent_pb2, alert_pb2, hub_pb2, task_pb2
from dashboard.views import overview
from dashboard.views.events import PREFIXES
from hub.core.event import EVENT_TYPES

CRITICAL = alert_pb2.Alert.SEVERITY_CRITICAL
WARNING = alert_pb2.Alert.SEVERITY_WARNING


def alert(name, severity=WARNING, rule="", **fields):
    return alert_pb2.Alert(name=f"alerts/{name}", severity=severity, message=name, rule=f"alertRules/{rule}", **fields)


def stats(agents=(), **tasks):
    made = hub_pb2.Stats()
    for state, count in tasks.items():
        made.tasks.add(state=task_pb2.Task.State.Value(f"STATE_{state.upper()}"), lane=3, count=count)
    for state in agents:
        made.agents.add(state=state, count=1)
    return made


def texts(found):
    return [need.text for need in found]


def test_the_worst_comes_first_and_each_alert_leads_to_its_place():
    found = overview.needs(stats(), [alert("mild"), alert("bad", CRITICAL)])
    assert texts(found) == ["bad", "mild"]
    assert found[0].href == "/alerts/#bad"


def test_what_somebody_looks_after_or_has_muted_is_not_asked_for_again():
    acked = alert("acked", ack=alert_pb2.AlertAck(principal="local"))
    muted = alert("muted", mute=alert_pb2.AlertMute(principal="local"))
    assert texts(overview.needs(stats(), [acked, muted, alert("new")])) == ["new"]


def test_waiting_work_without_any_agent_is_said_also_without_an_alert():
    offline = agent_pb2.Agent.STATE_OFFLINE
    (need,) = overview.needs(stats([offline], queued=3), [])
    assert (need.tone, need.text) == ("bad", "3 wait and no agent is online")
    assert overview.needs(stats([agent_pb2.Agent.STATE_IDLE], queued=3), []) == []


def test_isolated_agents_are_said_once():
    isolated = agent_pb2.Agent.STATE_ISOLATED
    assert len(overview.needs(stats([isolated]), [])) == 1
    assert texts(overview.needs(stats([isolated]), [alert("one", rule="agent-isolated")])) == ["one"]


def test_dead_letters_and_parked_tasks_need_a_person():
    assert len(overview.needs(stats(dead=2, parked=1), [])) == 2


def test_every_type_of_event_is_found_by_one_of_the_prefixes_of_the_events_page():
    assert [type for type in EVENT_TYPES if not type.startswith(PREFIXES)] == []
