"""`agentcom agent preflight`: what this machine lacks before an agent may take work; and the same for `agent add`."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from agentcom.v1 import registry_service_pb2
from cli import output, words
from cli.failure import Code
from cli.onboarding import folder as agent_folder
from cli.onboarding import service
from cli.onboarding.folder import AgentFolder
from cli.session import Session
from kit import errors, program

# Every probe of the sidecar has a bound of its own; together they stay well below this.
PREFLIGHT_S = 300.0
SHOWN_CHARS_MAX = 2000

Base = Annotated[
    Path | None,
    typer.Option(
        "--dir", metavar="DIR", help="where the agents of this machine are kept [default: ~/.local/state/...]"
    ),
]
Repos = Annotated[list[str] | None, typer.Option("--repo", metavar="REPO", help="try this repo of the hub; repeatable")]


class Check(msgspec.Struct, frozen=True):
    """One thing that the sidecar's preflight looked at; see sidecar/preflight.py."""

    check: str
    verdict: str
    message: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a result: of a check, of a step."""

    what: str
    verdict: str
    message: str


@dataclass(frozen=True, slots=True)
class Repo:
    """Where a repo of the hub is."""

    name: str
    url: str
    branch: str


async def preflight(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="an agent that is set up here; without it: the machine")
    ] = "",
    repo: Repos = None,
    executors: Annotated[str, typer.Option("--executors", help="comma-separated; without NAME")] = "shell",
    base: Base = None,
) -> int:
    """Tell what this machine lacks before an agent may take work; exit 1 when something fails."""
    places = base or agent_folder.base_default()
    repos = [await find_repo(session, one) for one in repo or ()]
    if name:
        folder = AgentFolder(places, name)
        record = folder.read()
        if record is None:
            raise errors.NotFound(f"no agent {name} is set up in {places}")
        found = await run(["--config", str(folder.config)], repos, service.of(record.service, folder).environment())
    else:
        found = await _of_machine(session, places, executors, repos)
    show(session.output, found)
    return Code.REFUSED if any(check.verdict == "failed" for check in found) else Code.OK


async def _of_machine(session: Session, places: Path, executors: str, repos: Sequence[Repo]) -> list[Check]:
    """In a folder on the disk on which agents would be kept; nothing of it stays."""
    near = _nearest(places)
    environment = service.environment(os.environ)
    with tempfile.TemporaryDirectory(prefix="agentcom-preflight-", dir=near) as state:
        words = ["--hub", session.options.address, "--state-dir", state, "--executors", executors]
        return await run(words, repos, {**environment, **_way(session)})


def _nearest(places: Path) -> Path:
    """The folder itself, or the one above it that is there and may be written to. Raises Invalid."""
    for folder in (places, *places.absolute().parents):
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise errors.Invalid.of("--dir", f"neither {places} nor a folder above it can be written to")


def _way(session: Session) -> dict[str, str]:
    """How we reach the hub, for a sidecar that has no configuration. By environment: an argument is seen by others."""
    options = session.options
    files = {"CA_FILE": options.files.ca, "CERTIFICATE_FILE": options.files.certificate, "KEY_FILE": options.files.key}
    way = {f"AGENTCOM_SIDECAR_HUB_{key}": str(path) for key, path in files.items() if path is not None}
    if options.token:
        way["AGENTCOM_SIDECAR_HUB_TOKEN"] = options.token
    if options.plaintext:
        way["AGENTCOM_SIDECAR_HUB_PLAINTEXT"] = "true"
    return way


async def run(
    arguments: Sequence[str], repos: Sequence[Repo], environment: Mapping[str, str], *, cwd: Path | None = None
) -> list[Check]:
    """Ask the sidecar's own command. Raises Unavailable when it cannot say."""
    asked = [word for repo in repos for word in ("--repo", words.short_name(repo.name), repo.url, repo.branch)]
    process = await asyncio.create_subprocess_exec(
        *program.node("sidecar"), "preflight", "--json", *arguments, *asked,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=dict(environment), cwd=cwd,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PREFLIGHT_S):
            said, complained = await process.communicate()
    except TimeoutError as error:
        raise errors.Unavailable(f"the preflight gave no answer within {PREFLIGHT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        return msgspec.json.decode(said, type=list[Check])
    except msgspec.MsgspecError as error:
        shown = " ".join(complained.decode("utf-8", "replace").split())[-SHOWN_CHARS_MAX:]
        raise errors.Unavailable(f"the preflight ended with code {process.returncode}: {shown}") from error


async def find_repo(session: Session, name: str) -> Repo:
    """A repo of the hub. Raises NotFound."""
    ask = registry_service_pb2.GetRepoRequest(name=words.full_name("repos", name))
    repo = (await session.call(session.registry.GetRepo, ask)).repo
    return Repo(repo.name, repo.url, repo.default_branch)


def show(out: output.Output, found: Sequence[Check]) -> None:
    """The checks as a table, or as one JSON list."""
    if out.is_json:
        print(json.dumps([msgspec.to_builtins(check) for check in found], indent=2, ensure_ascii=False), flush=True)
    else:
        out.show(table("CHECK", [Row(check.check, check.verdict, check.message) for check in found]))


def table(header: str, rows: Sequence[Row]) -> Any:
    """Rows for people."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for index, title in enumerate((header, "RESULT", "FOUND")):
        grid.add_column(title, overflow="fold", no_wrap=index == 0)
    for row in rows:
        grid.add_row(output.cell(row.what), output.cell(row.verdict), output.cell(row.message))
    return grid
