"""The first page: how the hub is, what waits, who works, and what needs a person."""

from __future__ import annotations

from typing import Any, NamedTuple

import flask

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    goal_service_pb2,
    hub_pb2,
    hub_service_pb2,
    task_pb2,
    task_service_pb2,
)
from dashboard import chart, format, pages
from dashboard.hub import Caller

blueprint = flask.Blueprint("overview", __name__)

State = task_pb2.Task.State
WAITING = (State.STATE_PENDING, State.STATE_SCHEDULED, State.STATE_QUEUED, State.STATE_PARKED)
MOVING = (State.STATE_ASSIGNED, State.STATE_RUNNING, State.STATE_MERGING)
LANES = (task_pb2.LANE_URGENT, task_pb2.LANE_HIGH, task_pb2.LANE_NORMAL, task_pb2.LANE_LOW)
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
    alerts = raised.alerts if raised is not None else []
    moving = [task for state in ("RUNNING", "ASSIGNED", "MERGING") for task in _tasks(caller, state)][:ROWS]
    goals = caller.read(
        caller.goals.ListGoals, goal_service_pb2.ListGoalsRequest(page_size=ROWS, filter="state = ACTIVE")
    ).goals
    agents = caller.read(caller.agents.ListAgents, agent_service_pb2.ListAgentsRequest(page_size=200)).agents
    return flask.render_template(
        "overview.html",
        hub=hub,
        stats=stats,
        counts=counts(stats),
        lanes=[(format.word("lane", lane), _lane_bar(stats, lane)) for lane in LANES],
        needs=needs(stats, alerts),
        moving=moving,
        goals=goals,
        agents=sorted(agents, key=_rank)[:ROWS],
        agent_counts={format.word("agent", one.state): one.count for one in stats.agents if one.count},
        moving_states=MOVING,
    )


def counts(stats: hub_pb2.Stats) -> dict[str, int]:
    """Tasks by state, as words; absent ones are 0."""
    found = {format.word("task", number): 0 for number in State.values() if number}
    for one in stats.tasks:
        found[format.word("task", one.state)] += one.count
    return found


def needs(stats: hub_pb2.Stats, alerts: Any) -> list[Need]:
    """What a person should look at, the worst first."""
    found = [
        Need("bad" if format.word("severity", alert.severity) == "critical" else "warn", alert.message, "/alerts")
        for alert in alerts
    ]
    of = counts(stats)
    if of["dead"]:
        found.append(Need("bad", f"{format.number(of['dead'])} given up, with their history: dead letters", "/dead"))
    if of["parked"]:
        text = f"{format.number(of['parked'])} parked: they cannot go on without something from outside"
        found.append(Need("warn", text, "/tasks?state=parked"))
    agents = {one.state: one.count for one in stats.agents}
    for state in (agent_pb2.Agent.STATE_ISOLATED, agent_pb2.Agent.STATE_BLOCKED):
        if agents.get(state):
            text = f"{agents[state]} {format.word('agent', state)}: no work goes there"
            found.append(Need("warn", text, f"/agents?state={format.word('agent', state)}"))
    available = sum(count for state, count in agents.items() if state != agent_pb2.Agent.STATE_OFFLINE)
    if of["queued"] and not available:
        found.insert(0, Need("bad", f"{format.number(of['queued'])} wait and no agent is online", "/agents"))
    return found


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


def _tasks(caller: Caller, state: str) -> Any:
    request = task_service_pb2.ListTasksRequest(page_size=ROWS, filter=f"state = {state}", order_by="create_time desc")
    return caller.read(caller.tasks.ListTasks, request).tasks


def _rank(agent: agent_pb2.Agent) -> tuple[int, str]:
    """Those in trouble first, then those at work."""
    order = ("isolated", "blocked", "working", "assigned", "draining", "idle", "offline")
    word = format.word("agent", agent.state)
    return (order.index(word) if word in order else len(order), agent.name)
