"""`agentcom hub`: the hub itself, its figures and its events."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any

import typer
from google.protobuf import duration_pb2

from agentcom.v1 import agent_pb2, event_pb2, hub_pb2, hub_service_pb2, task_pb2
from cli import goal_watch, hub_care, hub_drain, hub_history, output, violator, words
from cli.command import command
from cli.session import LIST_COUNT, Session
from kit import version

app = typer.Typer(help="The hub: its state, its figures, its events.")
hub_care.register(app)
hub_drain.register(app)
violator.register(app)

Reason = Annotated[str, typer.Option("--reason", help="why, for the history")]
MIB = 1024 * 1024
OWN = version.Node("cli", version.VERSION)

COLUMNS: list[output.Column[event_pb2.Event]] = [
    ("TIME", lambda event: words.time_text(event.create_time)),
    ("EVENT", lambda event: event.type),
    ("ABOUT", lambda event: event.subject),
    ("WITH", lambda event: " ".join(f"{key}={value}" for key, value in sorted(event.fields.items()))),
]


@command(app, "status")
async def status(session: Session) -> None:
    """Show what the hub is and how it is; exit 0 means that it answers."""
    reply = await session.call(session.hub.GetHub, hub_service_pb2.GetHubRequest())
    session.output.one(reply.hub, _sheet)


@command(app, "stats")
async def stats(
    session: Session,
    history: Annotated[bool, typer.Option("--history", help="how they went on, one row a minute")] = False,
    hours: Annotated[bool, typer.Option("--hours", help="with --history: one row an hour")] = False,
    count: Annotated[int, typer.Option("--count", min=1, max=1440, help="with --history: rows up to now")] = 30,
) -> None:
    """Show the hub's figures, as of now or as they went on."""
    if history:
        await hub_history.show(session, hours=hours, count=count)
        return
    reply = await session.call(session.hub.GetStats, hub_service_pb2.GetStatsRequest())
    session.output.one(reply.stats, _figures)


@command(app, "pause")
async def pause(session: Session, reason: Reason = "") -> None:
    """Assign nothing more until it is resumed, also after a restart."""
    ask = hub_service_pb2.PauseHubRequest(reason=reason)
    _say(session, (await session.call(session.hub.PauseHub, ask, again=False)).hub)


@command(app, "resume")
async def resume(session: Session) -> None:
    """Assign again; ends a pause and a drain."""
    _say(session, (await session.call(session.hub.ResumeHub, hub_service_pb2.ResumeHubRequest(), again=False)).hub)


@command(app, "events")
async def events(
    session: Session,
    since: Annotated[
        int | None, typer.Option("--since", min=0, help="events after this position; 0: all; default: from now on")
    ] = None,
    prefix: Annotated[str, typer.Option("--type", help='only types that start with this, e.g. "task."')] = "",
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="go on until Ctrl-C, or stop at the end")] = True,
) -> None:
    """Show everything that happens, one event a line."""
    end = await session.position()
    start = end if since is None else since or -1
    if not follow and (end < 0 or 0 < end <= start):
        return
    stream = session.follow(
        session.hub.WatchEvents,
        lambda at: hub_service_pb2.WatchEventsRequest(position=at, type_prefix=prefix),
        start,
    )
    async with aclosing(stream):
        async for message in stream:
            if message.HasField("event") and (follow or message.event.position <= end):
                session.output.line(message, lambda message: goal_watch.event_text(message.event))
            if not follow and message.position >= end:
                return


@command(app, "history")
async def history(
    session: Session,
    about: Annotated[str, typer.Option("--about", help="tasks/ID, goals/ID, agents/NAME, ...; default: all")] = "",
    prefix: Annotated[str, typer.Option("--type", help='only types that start with this, e.g. "task."')] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="at most so many")] = LIST_COUNT,
) -> None:
    """Show what happened last, the newest first."""

    async def fetch(size: int, token: str) -> tuple[Sequence[event_pb2.Event], str]:
        ask = hub_service_pb2.ListEventsRequest(page_size=size, page_token=token, type_prefix=prefix, subject=about)
        reply = await session.call(session.hub.ListEvents, ask)
        return reply.events, reply.next_page_token

    session.output.many(await session.pages(fetch, limit), COLUMNS, empty="nothing happened")


@command(app, "whoami")
async def whoami(session: Session) -> None:
    """Show who the hub takes us for, and what we may do."""
    reply = await session.call(session.hub.GetCaller, hub_service_pb2.GetCallerRequest())
    session.output.one(reply, _who)


def _who(reply: hub_service_pb2.GetCallerResponse) -> Any:
    return output.sheet(
        [
            ("principal", reply.principal),
            ("scope", words.enum_word(hub_pb2.Scope, reply.scope, "SCOPE_")),
            ("agent", reply.agent),
            ("until", words.time_text(reply.expire_time)),
        ]
    )


def _say(session: Session, hub: hub_pb2.Hub) -> None:
    session.output.one(hub, lambda hub: output.cell(f"the hub is {_state(hub)}"))


def _state(hub: hub_pb2.Hub) -> str:
    return words.enum_word(hub_pb2.Hub.State, hub.state, "STATE_")


def _seconds(duration: duration_pb2.Duration) -> str:
    nanoseconds = duration.ToNanoseconds()
    return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds < 1_000_000_000 else words.seconds_text(nanoseconds / 1e9)


def _sheet(hub: hub_pb2.Hub) -> Any:
    return output.sheet(
        [
            ("state", _state(hub)),
            ("because", hub.state_reason),
            ("version", hub.version),
            ("version warning", version.warning(version.Node("hub", hub.version), OWN)),
            ("uid", hub.uid),
            ("serving since", words.time_text(hub.start_time)),
            ("store", f"{hub.store}, schema {hub.schema_version}"),
            ("store size", f"{hub.store_used_bytes / MIB:.1f} MiB of {hub.store_size_max_bytes / MIB:.0f} MiB"),
            ("events", f"{hub.event_position}, kept from {hub.event_position_oldest} on"),
            ("lease", _seconds(hub.lease_duration)),
        ]
    )


def _figures(stats: hub_pb2.Stats) -> Any:
    tasks: dict[str, int] = {}
    for entry in stats.tasks:
        word = words.enum_word(task_pb2.Task.State, entry.state, "STATE_")
        tasks[word] = tasks.get(word, 0) + entry.count
    agents = [(words.enum_word(agent_pb2.Agent.State, entry.state, "STATE_"), entry.count) for entry in stats.agents]
    wait = stats.queue_wait
    return output.sheet(
        [
            ("tasks", ", ".join(f"{count} {word}" for word, count in tasks.items() if count) or "none"),
            ("agents", ", ".join(f"{count} {word}" for word, count in agents if count) or "none"),
            ("slots", f"{stats.slots_used} of {stats.slots} used"),
            ("sessions", str(stats.session_count)),
            ("oldest queued", _seconds(stats.oldest_queued) if stats.HasField("oldest_queued") else ""),
            ("submitted", str(stats.submitted_count)),
            ("assigned", str(stats.assigned_count)),
            ("completed", str(stats.completed_count)),
            ("failed", str(stats.failed_count)),
            ("fenced off", str(stats.fenced_count)),
            ("adopted", str(stats.adopted_count)),
            ("wait to assignment", _wait(wait)),
            ("commits", f"{stats.commit_count} for {stats.write_count} writes"),
            ("requests refused", str(stats.refused_request_count)),
            ("store", "open for reading only" if stats.store_degraded else ""),
            ("newest backup", words.time_text(stats.backup_time)),
            ("alerts", str(stats.alert_count or "")),
            ("model tokens", str(stats.tokens_spent)),
        ]
    )


def _wait(wait: hub_pb2.Stats.Percentiles) -> str:
    if not wait.count:
        return ""
    return f"p50 {_seconds(wait.p50)}, p99 {_seconds(wait.p99)}, max {_seconds(wait.max)} of the last {wait.count}"
