"""`agentcom agent remove`: what `agent add` made is taken away again, here and at the hub; the work stays.

In an order in which a run that is cut off is simply repeated: drained, stopped, forgotten by the hub, then the unit and
the folder, whose record goes last.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from agentcom.v1 import agent_service_pb2
from cli import words
from cli.onboarding import folder as agent_folder
from cli.onboarding import preflight as agent_preflight
from cli.onboarding import service
from cli.onboarding import trial as agent_trial
from cli.onboarding.folder import AgentFolder
from cli.onboarding.preflight import Base, Row
from cli.session import Session
from kit import errors

LOOK_EVERY_S = 0.5


async def remove(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="an agent of this machine")],
    purge: Annotated[bool, typer.Option("--purge", help="remove its clones and working trees, too")] = False,
    now: Annotated[bool, typer.Option("--now", help="do not wait for what it holds: save it and stop")] = False,
    local: Annotated[bool, typer.Option("--local", help="only here; the hub is not asked")] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, max=86_400, help="how long it may finish what it holds")
    ] = 900.0,
    base: Base = None,
) -> None:
    """Drain and stop an agent of this machine, and forget it here and at the hub; its work folder stays."""
    places: Path = (base or agent_folder.base_default()).expanduser().absolute()
    folder = AgentFolder(places, words.short_name(name))
    with folder.locked():
        record = folder.read()
        if record is None and not _is_leftover(folder):
            raise errors.NotFound(f"no agent {folder.name} is set up in {places}")
        rows: list[Row] = []
        if record is not None:
            keeper = service.of(record.service, folder)
            known, told = (False, Row("hub", "skipped", "not asked")) if local else await _is_ours(session, folder)
            if known and not now:
                rows.append(Row("drain", "ok", await _drain(session, folder.name, keeper, wait_s)))
            await asyncio.to_thread(keeper.stop, hurry=now)
            rows.append(Row("stop", "ok", f"{record.service} has stopped"))
            if known:
                rows.append(Row("hub", "ok", await _forget(session, folder.name)))
            else:
                rows.append(told)
            await asyncio.to_thread(keeper.uninstall)
        await asyncio.to_thread(folder.clear, purge=purge)
        kept = folder.work.exists()
        rows.append(Row("folder", "ok", f"{folder.work} is kept; --purge removes it" if kept else "removed"))
    if session.output.is_json:
        steps = [{"step": row.what, "verdict": row.verdict, "message": row.message} for row in rows]
        print(json.dumps({"agent": f"agents/{folder.name}", "steps": steps}, indent=2, ensure_ascii=False), flush=True)
    else:
        session.output.show(agent_preflight.table("STEP", rows))


def _is_leftover(folder: AgentFolder) -> bool:
    """A work folder that an earlier `remove` kept, or what a run was cut off in."""
    return any(folder.path.iterdir())


async def _is_ours(session: Session, folder: AgentFolder) -> tuple[bool, Row]:
    """Is it at the hub, and ours? An add that stopped before its enrolment may bear the name of another's agent."""
    record = folder.read()
    try:
        await agent_trial.get(session, folder.name)
    except errors.NotFound:
        return False, Row("hub", "ok", "it knows no agent of that name")
    except errors.Unavailable as problem:
        raise errors.Unavailable(f"{problem.message}; --local removes it here alone") from problem
    if record is None or record.rejoin or "enrol" in record.done or folder.token.exists():
        return True, Row("hub", "ok", "")
    # The answer to the enrolment may have been lost: who asks again with its request id is given the agent again.
    ask = agent_service_pb2.EnrollAgentRequest(
        agent_id=folder.name, display_name=record.asked.display_name, request_id=record.request_id
    )
    try:
        await session.call(session.agents.EnrollAgent, ask)
    except errors.AlreadyExists:
        advice = f"if it is yours, not another machine's: agentcom agent delete {folder.name}"
        return False, Row(
            "hub", "warning", f"there is an agents/{folder.name}, and this add did not see it made; {advice}"
        )
    return True, Row("hub", "ok", "")


async def _drain(session: Session, name: str, keeper: service.Service, wait_s: float) -> str:
    """No new work; wait until it holds nothing, or until nobody is there to finish it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_s
    ask = agent_service_pb2.DrainAgentRequest(name=words.full_name("agents", name))
    agent = (await session.call(session.agents.DrainAgent, ask, again=False)).agent
    while agent.holdings:
        if not await asyncio.to_thread(keeper.is_running):
            return f"it does not run; {len(agent.holdings)} tasks go back to the queue"
        if loop.time() > end:
            held = ", ".join(holding.task for holding in agent.holdings)
            raise errors.IllegalState(
                f"it still works on {held} after {wait_s:g} s: it is drained, ask again later, or with --now",
                state="working",
            )
        await asyncio.sleep(LOOK_EVERY_S)
        agent = await agent_trial.get(session, name)
    return "it holds nothing"


async def _forget(session: Session, name: str) -> str:
    ask = agent_service_pb2.DeleteAgentRequest(name=words.full_name("agents", name))
    try:
        await session.call(session.agents.DeleteAgent, ask, again=False)
    except errors.NotFound:
        return "it had forgotten it"
    return f"{ask.name} is deleted, its token is void"
