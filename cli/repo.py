"""`agentcom repo`: the repositories that the fleet works on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import field_mask_pb2

from agentcom.v1 import registry_service_pb2, repo_pb2, task_pb2
from cli import output, words
from cli.command import command
from cli.session import LIST_COUNT, Session, request_id
from kit import errors

app = typer.Typer(help="Repos: git repositories that the fleet works on.")

Name = Annotated[str, typer.Argument(metavar="REPO", help="repos/ID or ID")]
Url = Annotated[str | None, typer.Option("--url", help="address that git understands, without a secret in it")]
Branch = Annotated[str | None, typer.Option("--branch", help="default branch [default: main]")]
Checks = Annotated[list[str] | None, typer.Option("--check", help="command that every change must pass; repeatable")]
Style = Annotated[str | None, typer.Option("--merge-style", help="merge-commit or fast-forward")]
DisplayName = Annotated[str | None, typer.Option("--display-name", help="for people")]

COLUMNS: list[output.Column[repo_pb2.Repo]] = [
    ("REPO", lambda repo: words.short_name(repo.name)),
    ("STATE", lambda repo: "paused" if repo.paused else "active"),
    ("BRANCH", lambda repo: repo.default_branch),
    ("CHECKS", lambda repo: str(len(repo.checks))),
    ("TRAIN", lambda repo: str(repo.train_length)),
    ("URL", lambda repo: repo.url),
]


@command(app, "add")
async def add(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="ID", help="the id that it gets: lower case, digits, dashes")],
    url: Annotated[
        str, typer.Argument(metavar="URL", help="address that git understands; a local path is made absolute")
    ],
    branch: Branch = None,
    check: Checks = None,
    merge_style: Style = None,
    display_name: DisplayName = None,
    request: Annotated[str | None, typer.Option("--request-id", help="the same id files one repo only")] = None,
) -> None:
    """File a repo."""
    repo, _ = _given(url, branch, check, merge_style, display_name)
    ask = registry_service_pb2.CreateRepoRequest(
        repo_id=words.short_name(name), repo=repo, request_id=request_id(request)
    )
    reply = await session.call(session.registry.CreateRepo, ask)
    session.output.one(reply.repo, lambda repo: output.cell(f"filed {repo.name}"))


@command(app, "list")
async def list_repos(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="at most so many")] = LIST_COUNT,
) -> None:
    """List repos, by name."""

    async def fetch(size: int, token: str) -> tuple[list[repo_pb2.Repo], str]:
        ask = registry_service_pb2.ListReposRequest(page_size=size, page_token=token)
        reply = await session.call(session.registry.ListRepos, ask)
        return list(reply.repos), reply.next_page_token

    session.output.many(await session.pages(fetch, limit), COLUMNS, empty="no repos")


@command(app, "show")
async def show(session: Session, name: Name) -> None:
    """Show one repo."""
    ask = registry_service_pb2.GetRepoRequest(name=words.full_name("repos", name))
    session.output.one((await session.call(session.registry.GetRepo, ask)).repo, _sheet)


@command(app, "update")
async def update(
    session: Session,
    name: Name,
    url: Url = None,
    branch: Branch = None,
    check: Checks = None,
    no_checks: Annotated[bool, typer.Option("--no-checks", help="remove all checks")] = False,
    merge_style: Style = None,
    display_name: DisplayName = None,
    etag: Annotated[str, typer.Option("--etag", help="refuse when the repo has changed since")] = "",
) -> None:
    """Change what is given; the rest stays."""
    repo, paths = _given(url, branch, check, merge_style, display_name)
    if no_checks:
        paths.append("checks")
    if not paths:
        raise errors.Invalid.of("request", "nothing to change is given")
    repo.name, repo.etag = words.full_name("repos", name), etag
    ask = registry_service_pb2.UpdateRepoRequest(repo=repo, update_mask=field_mask_pb2.FieldMask(paths=paths))
    reply = await session.call(session.registry.UpdateRepo, ask, again=False)
    session.output.one(reply.repo, _sheet)


@command(app, "pause")
async def pause(session: Session, name: Name) -> None:
    """Assign none of its tasks; what runs goes on."""
    ask = registry_service_pb2.PauseRepoRequest(name=words.full_name("repos", name))
    _say(session, (await session.call(session.registry.PauseRepo, ask, again=False)).repo)


@command(app, "resume")
async def resume(session: Session, name: Name) -> None:
    """Assign its tasks again; those parked for it are tried at once."""
    ask = registry_service_pb2.ResumeRepoRequest(name=words.full_name("repos", name))
    _say(session, (await session.call(session.registry.ResumeRepo, ask, again=False)).repo)


@command(app, "delete")
async def delete(
    session: Session,
    name: Name,
    etag: Annotated[str, typer.Option("--etag", help="refuse when the repo has changed since")] = "",
) -> None:
    """Forget a repo that no live task or goal uses."""
    ask = registry_service_pb2.DeleteRepoRequest(name=words.full_name("repos", name), etag=etag)
    reply = await session.call(session.registry.DeleteRepo, ask, again=False)
    session.output.one(reply, lambda _: output.cell(f"deleted {ask.name}"))


def _given(
    url: str | None, branch: str | None, check: list[str] | None, merge_style: str | None, display_name: str | None
) -> tuple[repo_pb2.Repo, list[str]]:
    """The repo with what was given, and the paths of it."""
    style = words.enum_number("--merge-style", merge_style or "", repo_pb2.Repo.MergeStyle, "MERGE_STYLE_")
    repo = repo_pb2.Repo(
        url=_absolute(url or ""),
        default_branch=branch or "",
        checks=[task_pb2.Check(run=command) for command in check or ()],
        merge_style=style,
        display_name=display_name or "",
    )
    given = {
        "url": url, "default_branch": branch, "checks": check or None, "merge_style": merge_style,
        "display_name": display_name,
    }  # fmt: skip
    return repo, [path for path, value in given.items() if value is not None]


def _absolute(url: str) -> str:
    """A folder of this machine as an absolute path: the sidecars have another working directory."""
    if "://" in url or not url or not Path(url).is_dir():
        return url
    return str(Path(url).resolve())


def _say(session: Session, repo: repo_pb2.Repo) -> None:
    session.output.one(repo, lambda repo: output.cell(f"{repo.name} is {'paused' if repo.paused else 'active'}"))


def _sheet(repo: repo_pb2.Repo) -> Any:
    return output.sheet(
        [
            ("repo", repo.name),
            ("display name", repo.display_name),
            ("state", "paused" if repo.paused else "active"),
            ("url", repo.url),
            ("default branch", repo.default_branch),
            ("merge style", words.enum_word(repo_pb2.Repo.MergeStyle, repo.merge_style, "MERGE_STYLE_")),
            ("checks", "\n".join(f"{check.id}: {check.run}" for check in repo.checks)),
            ("in its merge train", str(repo.train_length)),
            ("created", words.time_text(repo.create_time)),
            ("updated", words.time_text(repo.update_time)),
            ("etag", repo.etag),
        ]
    )
