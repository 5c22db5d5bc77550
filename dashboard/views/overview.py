"""The first page: how the hub is, what waits, who works, and what needs a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flask

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    alert_pb2,
    goal_service_pb2,
    hub_pb2,
    hub_service_pb2,
    task_pb2,
    task_service_pb2,
)
from dashboard import chart, format, pages, trend
from dashboard.hub import Caller

blueprint = flask.Blueprint("overview", __name__)

State = task_pb2.Task.State
WAITING = (State.STATE_PENDING, State.STATE_SCHEDULED, State.STATE_QUEUED, State.STATE_PARKED)
MOVING = (State.STATE_ASSIGNED, State.STATE_RUNNING, State.STATE_MERGING)
LANES = (task_pb2.LANE_URGENT, task_pb2.LANE_HIGH, task_pb2.LANE_NORMAL, task_pb2.LANE_LOW)
SPAN_WORDS = tuple(one.word for one in trend.SPANS)
AGENT_STATES = (
    agent_pb2.Agent.STATE_ISOLATED,
    agent_pb2.Agent.STATE_BLOCKED,
    agent_pb2.Agent.STATE_WORKING,
    agent_pb2.Agent.STATE_ASSIGNED,
    agent_pb2.Agent.STATE_DRAINING,
    agent_pb2.Agent.STATE_IDLE,
    agent_pb2.Agent.STATE_OFFLINE,
)
"""Those in trouble first, then those at work."""
NEEDS_MAX = 6
"""Rows of what needs a person; how many more there are stands below."""
ROWS = 8
"""Rows of each short list."""


class Need(NamedTuple):
    """One thing that a person should look at."""

    tone: str
    text: str
    href: str


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """Everything at a glance."""
    caller = pages.caller()
    hub = caller.read(caller.hub.GetHub, hub_service_pb2.GetHubRequest()).hub
    stats = caller.read(caller.hub.GetStats, hub_service_pb2.GetStatsRequest()).stats
    raised = caller.read_if_open(caller.hub.ListAlerts, hub_service_pb2.ListAlertsRequest())
    wanted = needs(stats, raised.alerts if raised is not None else [])
    moving = _moving(caller, stats)
    goals = caller.read(
        caller.goals.ListGoals, goal_service_pb2.ListGoalsRequest(page_size=ROWS, filter="state = ACTIVE")
    ).goals
    span = next(one for one in trend.SPANS if one.word == (pages.wanted("span", SPAN_WORDS) or SPAN_WORDS[0]))
    told = caller.read_if_open(
        caller.hub.GetHistory, hub_service_pb2.GetHistoryRequest(step=span.step, count=span.steps)
    )
    return flask.render_template(
        "overview.html",
        hub=hub,
        stats=stats,
        counts=counts(stats),
        lanes=[(format.word("lane", lane), _lane_bar(stats, lane)) for lane in LANES],
        needs=wanted[:NEEDS_MAX],
        more_needs=len(wanted) - NEEDS_MAX,
        moving=moving,
        goals=goals,
        agents=_agents(caller, stats),
        agent_counts={format.word("agent", one.state): one.count for one in stats.agents if one.count},
        span=span,
        spans=trend.SPANS,
        panels=trend.panels(told.history, span, flask.g.now) if told is not None else [],
    )


def counts(stats: hub_pb2.Stats) -> dict[str, int]:
    """Tasks by state, as words; absent ones are 0."""
    found = {format.word("task", number): 0 for number in State.values() if number}
    for one in stats.tasks:
        found[format.word("task", one.state)] += one.count
    return found


def needs(stats: hub_pb2.Stats, alerts: Sequence[alert_pb2.Alert]) -> list[Need]:
    """What a person should look at, the worst first. What somebody looks after, or has muted, is not among it."""
    found = [
        Need(_tone(alert), alert.message, f"/alerts/#{format.short(alert.name)}")
        for alert in alerts
        if not (alert.HasField("ack") or alert.HasField("mute"))
    ]
    of = counts(stats)
    agents = {one.state: one.count for one in stats.agents}
    available = sum(count for state, count in agents.items() if state != agent_pb2.Agent.STATE_OFFLINE)
    if of["queued"] and not available:
        found.append(Need("bad", f"{format.number(of['queued'])} wait and no agent is online", "/agents/"))
    if of["dead"]:
        found.append(Need("bad", f"{format.number(of['dead'])} given up, with their history: dead letters", "/dead/"))
    if of["parked"]:
        text = f"{format.number(of['parked'])} parked: they cannot go on without something from outside"
        found.append(Need("warn", text, "/tasks/?state=parked"))
    if agents.get(agent_pb2.Agent.STATE_BLOCKED):
        text = f"{agents[agent_pb2.Agent.STATE_BLOCKED]} blocked: no work goes there"
        found.append(Need("warn", text, "/agents/?state=blocked"))
    isolated, told = agents.get(agent_pb2.Agent.STATE_ISOLATED, 0), {alert.rule for alert in alerts}
    if isolated and "alertRules/agent-isolated" not in told:
        found.append(Need("warn", f"{isolated} isolated: no work goes there", "/agents/?state=isolated"))
    return sorted(found, key=lambda need: need.tone != "bad")


def _tone(alert: alert_pb2.Alert) -> str:
    return "bad" if alert.severity == alert_pb2.Alert.SEVERITY_CRITICAL else "warn"


def _lane_bar(stats: hub_pb2.Stats, lane: int) -> tuple[int, Any]:
    """What waits and moves in one lane, and its bar."""
    parts = []
    for states, tone in ((MOVING, "busy"), (WAITING, "wait")):
        for state in states:
            count = sum(one.count for one in stats.tasks if one.lane == lane and one.state == state)
            label = format.word("task", state)
            parts.append(chart.Part(label, count, "warn" if label == "parked" else tone))
    total = sum(part.count for part in parts)
    return total, chart.bar(parts, title=f"lane {format.word('lane', lane)}")


def _moving(caller: Caller, stats: hub_pb2.Stats) -> list[task_pb2.Task]:
    """Tasks at work, the newest of each state first."""
    found: list[task_pb2.Task] = []
    having = {one.state for one in stats.tasks if one.count}
    for state in (State.STATE_RUNNING, State.STATE_ASSIGNED, State.STATE_MERGING):
        if state in having and len(found) < ROWS:
            request = task_service_pb2.ListTasksRequest(
                page_size=ROWS - len(found),
                filter=pages.terms(state=format.word("task", state)),
                order_by="create_time desc",
            )
            found += caller.read(caller.tasks.ListTasks, request).tasks
    return found


def _agents(caller: Caller, stats: hub_pb2.Stats) -> list[agent_pb2.Agent]:
    """The first rows of agents: asked for by state, so that of a thousand only those that are shown are read."""
    found: list[agent_pb2.Agent] = []
    having = {one.state for one in stats.agents if one.count}
    for state in AGENT_STATES:
        if state in having and len(found) < ROWS:
            request = agent_service_pb2.ListAgentsRequest(
                page_size=ROWS - len(found), filter=pages.terms(state=format.word("agent", state))
            )
            found += caller.read(caller.agents.ListAgents, request).agents
    return found
