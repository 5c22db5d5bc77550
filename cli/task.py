"""`agentcom task`: look at tasks and steer them. Filing one is in task_create.py, following in task_watch.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentcom.v1 import event_pb2, task_pb2, task_service_pb2
from cli import goal_board, output, task_create, task_view, task_watch, words
from cli.command import command
from cli.session import LIST_COUNT, Session, request_id

app = typer.Typer(help="Tasks: units of work for one agent each.")

Name = Annotated[str, typer.Argument(metavar="TASK", help="tasks/ID or ID")]
Etag = Annotated[str, typer.Option("--etag", help="refuse when the task has changed since")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="at most so many")]

command(app, "create")(task_create.create)
command(app, "watch")(task_watch.watch)
command(app, "log")(task_watch.log)

EVENT_COLUMNS: list[output.Column[event_pb2.Event]] = [
    ("POSITION", lambda event: str(event.position)),
    ("TIME", lambda event: words.time_text(event.create_time)),
    ("EVENT", lambda event: event.type),
    ("BY", lambda event: event.actor),
    ("DETAILS", lambda event: " ".join(f"{key}={value}" for key, value in sorted(event.fields.items()))),
]


@command(app, "list")
async def list_tasks(
    session: Session,
    state: Annotated[str | None, typer.Option("--state", help="queued, running, dead, ...")] = None,
    lane: Annotated[str | None, typer.Option("--lane", help="urgent, high, normal or low")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="work, verify, merge, ...")] = None,
    goal: Annotated[str | None, typer.Option("--goal", help="only tasks of this goal")] = None,
    repo: Annotated[str | None, typer.Option("--repo", help="only tasks of this repo")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="only tasks that this agent has")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="may be repeated")] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="oldest first instead of newest")] = False,
    limit: Limit = LIST_COUNT,
) -> None:
    """List tasks, newest first."""
    wanted = {
        "state": state, "lane": lane, "kind": kind,
        "goal": goal and words.full_name("goals", goal),
        "repo": repo and words.full_name("repos", repo),
        "agent": agent and words.full_name("agents", agent),
        **{f"labels.{key}": value for key, value in words.pairs("--label", label).items()},
    }  # fmt: skip
    condition = " AND ".join(f"{field} = {_quoted(value)}" for field, value in wanted.items() if value)

    async def fetch(size: int, token: str) -> tuple[list[task_pb2.Task], str]:
        ask = task_service_pb2.ListTasksRequest(
            page_size=size,
            page_token=token,
            filter=condition,
            order_by="create_time asc" if oldest else "create_time desc",
        )
        reply = await session.call(session.tasks.ListTasks, ask)
        return list(reply.tasks), reply.next_page_token

    session.output.many(await session.pages(fetch, limit), task_view.COLUMNS, empty="no tasks")


@command(app, "show")
async def show(session: Session, name: Name) -> None:
    """Show one task with its attempts and receipts."""
    session.output.one(await task_watch.get(session, words.full_name("tasks", name)), task_view.sheet)


@command(app, "explain")
async def explain(session: Session, name: Name) -> None:
    """Tell why a task does not run, and what would change that."""
    ask = task_service_pb2.ExplainTaskRequest(name=words.full_name("tasks", name))
    session.output.one(await session.call(session.tasks.ExplainTask, ask), task_view.explanation)


@command(app, "cancel")
async def cancel(
    session: Session,
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="why, for the history")] = "",
    etag: Etag = "",
) -> None:
    """End a task; work that runs is stopped at its agent."""
    ask = task_service_pb2.CancelTaskRequest(name=words.full_name("tasks", name), reason=reason, etag=etag)
    _say(session, (await session.call(session.tasks.CancelTask, ask, again=False)).task)


@command(app, "retry")
async def retry(
    session: Session,
    name: Name,
    etag: Etag = "",
    request: Annotated[str | None, typer.Option("--request-id", help="the same id retries once")] = None,
) -> None:
    """Put a dead, cancelled or parked task back into the queue with fresh attempts."""
    ask = task_service_pb2.RetryTaskRequest(
        name=words.full_name("tasks", name), etag=etag, request_id=request_id(request)
    )
    _say(session, (await session.call(session.tasks.RetryTask, ask)).task)


@command(app, "delete")
async def delete(session: Session, name: Name, etag: Etag = "") -> None:
    """Forget a task that has reached its end."""
    ask = task_service_pb2.DeleteTaskRequest(name=words.full_name("tasks", name), etag=etag)
    reply = await session.call(session.tasks.DeleteTask, ask, again=False)
    session.output.one(reply, lambda _: output.cell(f"deleted {ask.name}"))


@command(app, "events")
async def events(session: Session, name: Name, limit: Limit = LIST_COUNT) -> None:
    """Show the history of a task, oldest first."""
    full = words.full_name("tasks", name)

    async def fetch(size: int, token: str) -> tuple[list[event_pb2.Event], str]:
        ask = task_service_pb2.ListTaskEventsRequest(name=full, page_size=size, page_token=token)
        reply = await session.call(session.tasks.ListTaskEvents, ask)
        return list(reply.events), reply.next_page_token

    session.output.many(await session.pages(fetch, limit), EVENT_COLUMNS, empty="no events")


@command(app, "artifact")
async def artifact(
    session: Session,
    name: Name,
    which: Annotated[str, typer.Argument(metavar="ARTIFACT", help='for example "diff" or "log"')] = "diff",
    generation: Annotated[int, typer.Option("--attempt", min=0, help="0: the newest that has it")] = 0,
    file: Annotated[Path | None, typer.Option("--file", help="write the content there, byte for byte")] = None,
) -> None:
    """Print a file that an attempt left behind."""
    reply = await task_watch.get_artifact(session, words.full_name("tasks", name), which, generation)
    if file is not None:
        file.write_bytes(reply.artifact.content)
    elif session.output.is_json:
        session.output.one(reply, lambda _: "")
    elif sys.stdout.isatty():
        print(words.plain(reply.artifact.content.decode("utf-8", "replace")), end="")
    else:
        sys.stdout.buffer.write(reply.artifact.content)
        sys.stdout.buffer.flush()
    if reply.artifact.truncated:
        print(f"note: cut to its limit, the whole has {reply.artifact.size_bytes} bytes", file=sys.stderr)


def _say(session: Session, task: task_pb2.Task) -> None:
    session.output.one(task, lambda task: output.cell(f"{task.name} is {goal_board.task_state(task)}"))


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
