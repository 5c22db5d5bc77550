"""`agentcom agent add`: from a bare machine to an agent that has shown that it works, in steps that may be taken twice.

Each step is written down when it is done, and before it calls anybody it has written down what it needs to ask again:
so a run that is cut off anywhere is gone on with by `--resume` and taken away by `agent remove`. Secrets are in files
of mode 0600 (the token) or in nobody's hands after their use (the join key); never on a command line.
"""

from __future__ import annotations

import random
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cli import command, words
from cli.onboarding import folder as agent_folder
from cli.onboarding import names, service
from cli.onboarding import steps as agent_steps
from cli.onboarding import trial as agent_trial
from cli.onboarding.folder import AgentFolder, Asked, Record, Step
from cli.onboarding.preflight import Base
from cli.onboarding.steps import Steps
from cli.session import Session
from kit import channel, errors

# Of some four thousand names; a fleet that has taken so many of them in a row has named its agents by hand.
INVENT_COUNT_MAX = 20


async def add(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="its id; without it one is invented")] = "",
    join_key_file: Annotated[
        Path | None, typer.Option("--join-key-file", metavar="FILE", help="a one-time key, for callers without a token")
    ] = None,
    repo: Annotated[
        list[str] | None, typer.Option("--repo", metavar="REPO", help="try it in a clone of this repo, too; repeatable")
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, max=256, help="tasks at once")] = 1,
    executors: Annotated[str, typer.Option("--executors", help="comma-separated")] = "shell",
    capability: Annotated[list[str] | None, typer.Option("--capability", help="what it can; repeatable")] = None,
    display_name: Annotated[str, typer.Option("--display-name", help="for people")] = "",
    sandbox: Annotated[str, typer.Option("--sandbox", help="auto, required or off")] = "auto",
    keeper: Annotated[
        str, typer.Option("--service", help="systemd (a unit of yours), process, or auto: what there is")
    ] = "auto",
    base: Base = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where an add stopped; starts what has ended")] = False,
    rejoin: Annotated[
        bool, typer.Option("--rejoin", help="take over a name that exists, with a new token; asks first")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Set up an agent on this machine: enrol it, start its service, and see it work."""
    places = (base or agent_folder.base_default()).expanduser().absolute()
    if resume and rejoin:
        raise errors.Invalid.of("--resume", "goes on with what was begun; --rejoin begins anew")
    command.one_of("--service", keeper, ("auto", "systemd", "process"))
    command.one_of("--sandbox", sandbox, ("auto", "required", "off"))
    asked = Asked(
        slots=slots,
        executors=tuple(word for word in executors.split(",") if word),
        capabilities=tuple(capability or ()),
        display_name=display_name,
        sandbox=sandbox,
    )
    if resume:
        return await _resume(session, places, words.short_name(name), join_key_file)
    await agent_steps.may_add(session, has_key=join_key_file is not None, rejoin=rejoin)
    fresh = Record(
        name=words.short_name(name),
        hub=session.options.address,
        service=service.choose(keeper),
        request_id=str(uuid.uuid4()),
        asked=asked,
        rejoin=rejoin,
        invented=not name,
        repos=tuple(words.full_names("repos", repo)),
    )
    if rejoin:
        return await _rejoin(session, places, fresh, yes=yes)
    if name:
        return await _begin(session, places, fresh, join_key_file)
    return await _invented(session, places, fresh, join_key_file)


async def _resume(session: Session, places: Path, name: str, key: Path | None) -> None:
    if not name:
        name = _the_one(agent_folder.unfinished(places), places)
    folder = AgentFolder(places, name)
    with folder.locked():
        record = folder.read()
        if record is None:
            raise errors.NotFound(f"no add of {name} was begun in {places}")
        if channel.parse_address(record.hub) != channel.parse_address(session.options.address, field="--hub"):
            raise errors.Invalid.of(
                "--hub", f"{name} belongs to the hub {record.hub}, not to {session.options.address}"
            )
        await Steps(session, folder, record, key).to_the_end()


async def _rejoin(session: Session, places: Path, fresh: Record, *, yes: bool) -> None:
    if not fresh.name:
        raise errors.Invalid.of("NAME", "is required with --rejoin")
    folder = AgentFolder(places, fresh.name)
    with folder.locked():
        try:
            agent = await agent_trial.get(session, fresh.name)
        except errors.NotFound as problem:
            raise errors.NotFound(f"the hub has no agents/{fresh.name}: add it without --rejoin") from problem
        seen = f"is {agent_trial.state_word(agent)}{f' on {agent.host}' if agent.host else ''}"
        told = f"agents/{fresh.name} {seen}. It gets a new token; the old one is void at once, wherever it is used."
        print(told, file=sys.stderr)
        if not yes and not typer.confirm("Go on?", default=False, err=True):
            raise errors.IllegalState("nothing was changed", state="declined")
        before = folder.read()
        if before is not None:
            # The service that is here stays the one that it is, and a configuration may have been worked on.
            kept: tuple[Step, ...] = ("configure",) if before.hub == fresh.hub and folder.config.exists() else ()
            fresh = msgspec.structs.replace(fresh, service=before.service, done=kept)
        folder.write(fresh)
        await Steps(session, folder, fresh, None).to_the_end()


async def _begin(session: Session, places: Path, fresh: Record, key: Path | None) -> None:
    folder = AgentFolder(places, fresh.name)
    with folder.locked():
        _refuse_second(folder)
        if await agent_steps.is_taken(session, fresh.name):
            raise errors.AlreadyExists(
                f"the hub has an agents/{fresh.name} already: choose another name, or take it over with --rejoin"
            )
        folder.write(fresh)
        await Steps(session, folder, fresh, key).to_the_end()


async def _invented(session: Session, places: Path, fresh: Record, key: Path | None) -> None:
    """With a name that is free here and, as far as we may ask, at the hub."""
    rng = random.SystemRandom()
    for _ in range(INVENT_COUNT_MAX):
        name = names.invent(rng)
        if (places / name).exists() or await agent_steps.is_taken(session, name):
            continue
        try:
            return await _begin(session, places, msgspec.structs.replace(fresh, name=name), key)
        except errors.AlreadyExists:
            # Who may not ask learns it from the enrolment. Nothing is left of this try, and the key is still good.
            if (places / name).exists():
                raise
    raise errors.Exhausted(f"{INVENT_COUNT_MAX} invented names were all taken: give one")


def _refuse_second(folder: AgentFolder) -> None:
    record = folder.read()
    if record is None:
        return
    begun = f"agentcom agent add {folder.name}"
    if record.is_finished:
        raise errors.AlreadyExists(
            f"{folder.name} is set up here already ({folder.path}): {begun} --rejoin gives it a new token, "
            f"agentcom agent remove {folder.name} takes it away"
        )
    last = record.done[-1] if record.done else "the beginning"
    raise errors.AlreadyExists(
        f"an add of {folder.name} stopped after {last} ({folder.path}): {begun} --resume goes on, "
        f"agentcom agent remove {folder.name} takes it away"
    )


def _the_one(found: Sequence[str], places: Path) -> str:
    if not found:
        raise errors.NotFound(f"no add was left unfinished in {places}")
    if len(found) > 1:
        raise errors.Invalid.of("NAME", f"several were begun: {', '.join(found)}")
    return found[0]
