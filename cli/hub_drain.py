"""`agentcom hub drain`: nothing new is taken or assigned; with --wait it returns when nothing runs any more."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from agentcom.v1 import hub_pb2, hub_service_pb2, task_pb2
from cli import output, words
from cli.command import command
from cli.session import Session
from kit import errors

LOOK_S = 1.0
"""How often the figures are read, which costs the hub nothing."""
RUNNING = frozenset({task_pb2.Task.STATE_ASSIGNED, task_pb2.Task.STATE_RUNNING})


def register(app: typer.Typer) -> None:
    """Add the command to the group of the hub."""
    command(app, "drain")(drain)


async def drain(
    session: Session,
    reason: Annotated[str, typer.Option("--reason", help="why, for the history")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="return when nothing runs any more")] = False,
    wait_s: Annotated[
        float, typer.Option("--wait-s", min=1, max=7 * 86_400, help="how long to wait at most; then exit 5")
    ] = 3600.0,
) -> None:
    """Assign nothing more and refuse submissions, so that the hub can be stopped when the work is done."""
    ask = hub_service_pb2.DrainHubRequest(reason=reason)
    hub = (await session.call(session.hub.DrainHub, ask, again=False)).hub
    if wait:
        await _until_quiet(session, wait_s)
        hub = (await session.call(session.hub.GetHub, hub_service_pb2.GetHubRequest())).hub
    state = words.enum_word(hub_pb2.Hub.State, hub.state, "STATE_")
    session.output.one(hub, lambda _: output.cell(f"the hub is {state}{', and nothing runs' if wait else ''}"))


async def _until_quiet(session: Session, wait_s: float) -> None:
    """Return when no task is assigned or runs. Raises Unavailable, or IllegalState when somebody ends the drain."""
    told = -1
    try:
        async with asyncio.timeout(wait_s):
            while (running := await _running(session)) > 0:
                if running != told:
                    print(_text(running), file=sys.stderr)
                told = running
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise errors.Unavailable(f"after {wait_s:g} s {_text(told)}; the hub goes on draining") from None


def _text(running: int) -> str:
    return f"{running} {'task runs' if running == 1 else 'tasks run'} still"


async def _running(session: Session) -> int:
    hub = (await session.call(session.hub.GetHub, hub_service_pb2.GetHubRequest())).hub
    if hub.state != hub_pb2.Hub.STATE_DRAINING:
        word = words.enum_word(hub_pb2.Hub.State, hub.state, "STATE_")
        raise errors.IllegalState(f"the hub is {word}: somebody ended the drain", state=word)
    stats = (await session.call(session.hub.GetStats, hub_service_pb2.GetStatsRequest())).stats
    return sum(entry.count for entry in stats.tasks if entry.state in RUNNING)
