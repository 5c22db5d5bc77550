"""Agents: the list, and one agent with what it holds, how that gets on, and what it did."""

from __future__ import annotations

import flask

from agentcom.v1 import agent_pb2, agent_service_pb2, hub_service_pb2
from dashboard import format, pages
from kit import errors

blueprint = flask.Blueprint("agents", __name__, url_prefix="/agents")

STATES = tuple(format.word("agent", number) for number in agent_pb2.Agent.State.values() if number)
HISTORY = 25
"""Events on the page; the rest is a link away."""


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """A page of agents, by name."""
    state = pages.wanted("state", STATES)
    caller = pages.caller()
    request = agent_service_pb2.ListAgentsRequest(
        page_size=pages.PAGE_SIZE, page_token=pages.wanted("after"), filter=pages.terms(state=state)
    )
    found = caller.read(caller.agents.ListAgents, request)
    return flask.render_template(
        "agents.html",
        agents=found.agents,
        next=found.next_page_token,
        states=STATES,
        asked={"state": state},
        command=pages.command("agent list", state=state),
    )


@blueprint.get("/<id>")
def one(id: str) -> flask.typing.ResponseReturnValue:
    """One agent."""
    caller, name = pages.caller(), f"agents/{id}"
    agent = caller.read(caller.agents.GetAgent, agent_service_pb2.GetAgentRequest(name=name)).agent
    told = caller.read_if_open(
        caller.hub.ListEvents, hub_service_pb2.ListEventsRequest(subject=name, page_size=HISTORY)
    )
    return flask.render_template(
        "agent.html",
        agent=agent,
        events=told.events if told is not None else [],
        command=f"agentcom agent show {id}",
    )


@blueprint.post("/<id>/<verb>")
def act(id: str, verb: str) -> flask.typing.ResponseReturnValue:
    """Drain or resume it."""
    caller, name = pages.caller(), f"agents/{id}"
    if verb == "drain":
        caller.act(caller.agents.DrainAgent, agent_service_pb2.DrainAgentRequest(name=name))
        return pages.done("drains: it finishes what it holds", endpoint="agents.one", id=id)
    if verb == "resume":
        caller.act(caller.agents.ResumeAgent, agent_service_pb2.ResumeAgentRequest(name=name))
        return pages.done("takes work again", endpoint="agents.one", id=id)
    raise errors.NotFound(f"there is no action {verb[:40]!r}")
