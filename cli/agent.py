"""`agentcom agent`: enrol agents, look at them, steer them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType

from agentcom.v1 import agent_pb2, agent_service_pb2, task_pb2
from cli import output, words
from cli.command import command
from cli.onboarding import add as agent_add
from cli.onboarding import preflight as agent_preflight
from cli.onboarding import remove as agent_remove
from cli.session import LIST_COUNT, Session, request_id
from kit import channel

app = typer.Typer(help="Agents: identities that do the work.")

Name = Annotated[str, typer.Argument(metavar="AGENT", help="agents/ID or ID")]

COLUMNS: list[output.Column[agent_pb2.Agent]] = [
    ("AGENT", lambda agent: words.short_name(agent.name)),
    ("STATE", lambda agent: state_word(agent)),
    ("SLOTS", lambda agent: f"{len(agent.holdings)}/{agent.offer.slots}"),
    ("EXECUTORS", lambda agent: ", ".join(agent.offer.executors)),
    ("DONE", lambda agent: str(agent.completed_count)),
    ("FAILED", lambda agent: str(agent.failed_count)),
    ("LAST SEEN", lambda agent: words.time_text(agent.last_seen_time)),
    ("HOST", lambda agent: agent.host),
    ("VERSION", lambda agent: f"{agent.version} (!)" if agent.version_warning else agent.version),
    ("WHY", lambda agent: agent.state_reason or agent.version_warning),
]
PROBE_COLUMNS: list[output.Column[agent_pb2.SelfTest.Finding]] = [
    ("PROBE", lambda finding: finding.probe),
    ("SAYS", lambda finding: "holds" if finding.passed else "failed"),
    ("FOUND", lambda finding: finding.message),
]


def state_word(agent: agent_pb2.Agent) -> str:
    """`idle`, `working`, ..."""
    return words.enum_word(agent_pb2.Agent.State, agent.state, "STATE_")


def clock_text(agent: agent_pb2.Agent) -> str:
    """`1.2 s ahead of the hub's`; empty: it did not say."""
    if not agent.HasField("clock_offset"):
        return ""
    offset_s = agent.clock_offset.ToNanoseconds() / 1e9
    return f"{abs(offset_s):.1f} s {'ahead of' if offset_s > 0 else 'behind'} the hub's"


@command(app, "list")
async def list_agents(
    session: Session,
    state: Annotated[str | None, typer.Option("--state", help="offline, idle, working, ...")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="at most so many")] = LIST_COUNT,
) -> None:
    """List agents, by name."""
    condition = f"state = {state}" if state else ""

    async def fetch(size: int, token: str) -> tuple[list[agent_pb2.Agent], str]:
        ask = agent_service_pb2.ListAgentsRequest(page_size=size, page_token=token, filter=condition)
        reply = await session.call(session.agents.ListAgents, ask)
        return list(reply.agents), reply.next_page_token

    session.output.many(await session.pages(fetch, limit), COLUMNS, empty="no agents")


@command(app, "show")
async def show(session: Session, name: Name) -> None:
    """Show one agent: what it offers, what it holds, what its self-test found."""
    ask = agent_service_pb2.GetAgentRequest(name=words.full_name("agents", name))
    session.output.one((await session.call(session.agents.GetAgent, ask)).agent, _sheet)


@command(app, "enroll")
async def enroll(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="[ID]", help="the wanted id; without it the hub invents one")] = "",
    join_key: Annotated[
        str, typer.Option("--join-key", envvar="AGENTCOM_JOIN_KEY", help="a one-time key, for callers without a token")
    ] = "",
    display_name: Annotated[str, typer.Option("--display-name", help="for people")] = "",
    request: Annotated[str | None, typer.Option("--request-id", help="the same id gives the same agent")] = None,
) -> None:
    """Make a new agent and show its token, once."""
    if join_key:
        address = channel.parse_address(session.options.address, field="--hub")
        channel.keep_secret(address, "a join key", plaintext=session.options.plaintext)
    ask = agent_service_pb2.EnrollAgentRequest(
        agent_id=words.short_name(name),
        join_key=join_key,
        display_name=display_name,
        request_id=request_id(request),
    )
    reply = await session.call(session.agents.EnrollAgent, ask)
    session.output.one(
        reply, lambda reply: output.sheet([("agent", reply.agent.name), ("token (shown only now)", reply.token)])
    )


@command(app, "drain")
async def drain(session: Session, name: Name) -> None:
    """Give it no new work; it finishes what it holds."""
    ask = agent_service_pb2.DrainAgentRequest(name=words.full_name("agents", name))
    _say(session, (await session.call(session.agents.DrainAgent, ask, again=False)).agent)


@command(app, "resume")
async def resume(session: Session, name: Name) -> None:
    """Give it new work again; ends an isolation too."""
    ask = agent_service_pb2.ResumeAgentRequest(name=words.full_name("agents", name))
    _say(session, (await session.call(session.agents.ResumeAgent, ask, again=False)).agent)


@command(app, "delete")
async def delete(
    session: Session,
    name: Name,
    etag: Annotated[str, typer.Option("--etag", help="refuse when the agent has changed since")] = "",
) -> None:
    """Forget an agent; what it holds goes back to the queue."""
    ask = agent_service_pb2.DeleteAgentRequest(name=words.full_name("agents", name), etag=etag)
    reply = await session.call(session.agents.DeleteAgent, ask, again=False)
    session.output.one(reply, lambda _: output.cell(f"deleted {ask.name}"))


@command(app, "rotate-token")
async def rotate_token(
    session: Session,
    name: Name,
    grace: Annotated[
        str, typer.Option("--grace", help="how long the old one stays good: 90s, 2h; default: it is void at once")
    ] = "",
) -> None:
    """Make a new token and show it, once."""
    ask = agent_service_pb2.RotateAgentTokenRequest(name=words.full_name("agents", name))
    if grace:
        ask.grace.CopyFrom(words.duration("--grace", grace))
    reply = await session.call(session.agents.RotateAgentToken, ask, again=False)
    session.output.one(reply, lambda reply: output.sheet([("token (shown only now)", reply.token)]))


command(app, "add")(agent_add.add)
command(app, "remove")(agent_remove.remove)
command(app, "preflight")(agent_preflight.preflight)


def _say(session: Session, agent: agent_pb2.Agent) -> None:
    session.output.one(agent, lambda agent: output.cell(f"{agent.name} is {state_word(agent)}"))


def _sheet(agent: agent_pb2.Agent) -> RenderableType:
    offer = agent.offer
    rows = [
        ("agent", agent.name),
        ("display name", agent.display_name),
        ("state", state_word(agent)),
        ("reason", agent.state_reason),
        ("host", agent.host),
        ("version", agent.version),
        ("version warning", agent.version_warning),
        ("clock", clock_text(agent)),
        ("slots", f"{len(agent.holdings)} of {offer.slots} used"),
        ("capabilities", ", ".join(offer.capabilities)),
        ("executors", ", ".join(offer.executors)),
        ("tiers", ", ".join(words.enum_word(task_pb2.Tier, tier, "TIER_") for tier in offer.tiers)),
        ("kinds", ", ".join(words.enum_word(task_pb2.TaskKind, kind, "TASK_KIND_") for kind in offer.kinds)),
        ("repos", ", ".join(offer.repos) or "any"),
        ("holds", "\n".join(f"{held.task} generation {held.generation}" for held in agent.holdings)),
        ("completed", str(agent.completed_count)),
        ("failed", str(agent.failed_count)),
        ("isolated until", words.time_text(agent.isolate_until_time)),
        ("last seen", words.time_text(agent.last_seen_time)),
        ("enrolled", words.time_text(agent.create_time)),
        ("etag", agent.etag),
    ]
    parts: list[RenderableType] = [output.sheet(rows)]
    if agent.self_test.findings:
        parts += ["", output.table(agent.self_test.findings, PROBE_COLUMNS)]
    return Group(*parts)
