"""`agentcom goal`: file a goal, look at goals, steer them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from agentcom.v1 import change_pb2, goal_pb2, goal_service_pb2, task_pb2
from cli import goal_board, goal_watch, output, words
from cli.command import command
from cli.session import LIST_COUNT, Session, request_id
from kit import errors, goalfile

app = typer.Typer(help="Goals: what you want of a repository.")

Name = Annotated[str, typer.Argument(metavar="GOAL", help="goals/ID or ID")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="at most so many")]

#: Where the goal is in a CreateGoalRequest.
REQUEST_FIELD = "goal."

COLUMNS: list[output.Column[goal_pb2.Goal]] = [
    ("GOAL", lambda goal: words.short_name(goal.name)),
    ("STATE", lambda goal: goal_board.state_word(goal)),
    ("REPO", lambda goal: words.short_name(goal.repo)),
    ("DONE", lambda goal: f"{goal.task_counts.succeeded}/{goal.task_counts.total}"),
    ("CREATED", lambda goal: words.time_text(goal.create_time)),
    ("TITLE", lambda goal: goal.title),
]
CHANGE_COLUMNS: list[output.Column[change_pb2.Change]] = [
    ("CHANGE", lambda change: words.short_name(change.name)),
    ("STATE", lambda change: words.enum_word(change_pb2.Change.State, change.state, "STATE_")),
    ("TASK", lambda change: words.short_name(change.task)),
    ("BRANCH", lambda change: change.branch),
    ("HEAD", lambda change: change.head_sha[:12]),
    ("MERGED AS", lambda change: change.merge_sha[:12]),
    ("TITLE", lambda change: change.title),
]


def read(file: str) -> goalfile.Parsed:
    """The goal in a file, or on standard input for "-". Raises Invalid with the line of each mistake."""
    try:
        if file == "-":
            data = sys.stdin.buffer.read(goalfile.FILE_BYTES_MAX + 1)
        else:
            with Path(file).open("rb") as handle:
                data = handle.read(goalfile.FILE_BYTES_MAX + 1)
    except OSError as error:
        raise errors.Invalid.of("FILE", f"{file}: {error.strerror}") from error
    return goalfile.read(data, file)


def in_file(problem: errors.Invalid, parsed: goalfile.Parsed) -> errors.Invalid:
    """The hub's refusal of a goal in terms of the file that it came from: its own paths and lines."""
    return errors.Invalid(
        violations=[
            parsed.locate(dataclasses.replace(one, field=one.field.removeprefix(REQUEST_FIELD)))
            if one.field.startswith(REQUEST_FIELD)
            else one
            for one in problem.violations
        ],
        reason=problem.reason,
    )


def located(finding: goal_pb2.Finding, parsed: goalfile.Parsed) -> goal_pb2.Finding:
    """What the linter says in terms of the file, too."""
    field = f"plan.{finding.field}" if finding.field.startswith("tasks") else finding.field
    there = parsed.locate(errors.Violation(field, finding.message))
    return goal_pb2.Finding(rule=finding.rule, severity=finding.severity, field=there.field, message=there.description)


@command(app, "submit")
async def submit(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="goal file (.md, .yaml); - is standard input")],
    wait: Annotated[
        bool, typer.Option("--wait", help="show progress until the goal ends; exit 0 only on success")
    ] = False,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="only check; nothing is filed")] = False,
    request: Annotated[
        str | None, typer.Option("--request-id", help="the same id gives the same goal for 24 hours")
    ] = None,
) -> int | None:
    """File a goal; one that brings its own plan starts at once."""
    parsed = read(file)
    ask = goal_service_pb2.CreateGoalRequest(
        goal=parsed.goal, request_id=request_id(request), validate_only=validate_only
    )
    try:
        reply = await session.call(session.goals.CreateGoal, ask)
    except errors.Invalid as problem:
        raise in_file(problem, parsed) from problem
    for finding in (located(one, parsed) for one in reply.findings):
        print(words.plain(f"warning: {finding.field}: {finding.message}"), file=sys.stderr)
    if wait and not validate_only:
        return await goal_watch.watch(session, reply.goal.name)
    done = "valid" if validate_only else f"filed {reply.goal.name}"
    session.output.one(reply.goal, lambda goal: output.cell(done))
    return None


@command(app, "list")
async def list_goals(
    session: Session,
    state: Annotated[str | None, typer.Option("--state", help="only goals in this state")] = None,
    repo: Annotated[str | None, typer.Option("--repo", help="only goals of this repo")] = None,
    limit: Limit = LIST_COUNT,
) -> None:
    """List goals, newest first."""
    terms = [f"state = {state}"] if state else []
    terms += [f"repo = {words.full_name('repos', repo)}"] if repo else []

    async def fetch(size: int, token: str) -> tuple[list[goal_pb2.Goal], str]:
        ask = goal_service_pb2.ListGoalsRequest(page_size=size, page_token=token, filter=" AND ".join(terms))
        reply = await session.call(session.goals.ListGoals, ask)
        return list(reply.goals), reply.next_page_token

    session.output.many(await session.pages(fetch, limit), COLUMNS, empty="no goals")


@command(app, "show")
async def show(session: Session, name: Name) -> None:
    """Show one goal with its plan, its assertions and what they said."""
    goal = await goal_watch.get(session, words.full_name("goals", name))
    if session.output.is_json:
        session.output.one(goal, lambda _: "")
        return
    tasks = await goal_watch.tasks_of(session, goal.name)
    session.output.show(_sheet(goal, tasks))


@command(app, "watch")
async def watch(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="[GOAL]", help="goals/ID or ID; all goals without it")] = None,
) -> int | None:
    """Follow a goal to its end (exit 0 only when it succeeded), or everything that happens to goals."""
    if name is None:
        await goal_watch.watch_all(session)
        return None
    return await goal_watch.watch(session, words.full_name("goals", name))


@command(app, "cancel")
async def cancel(
    session: Session,
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="why, for the history")] = "",
    etag: Annotated[str, typer.Option("--etag", help="refuse when the goal has changed since")] = "",
) -> None:
    """End a goal and all its tasks."""
    ask = goal_service_pb2.CancelGoalRequest(name=words.full_name("goals", name), reason=reason, etag=etag)
    _say(session, (await session.call(session.goals.CancelGoal, ask, again=False)).goal)


@command(app, "pause")
async def pause(session: Session, name: Name) -> None:
    """Hold its waiting tasks back; what runs goes on."""
    ask = goal_service_pb2.PauseGoalRequest(name=words.full_name("goals", name))
    _say(session, (await session.call(session.goals.PauseGoal, ask, again=False)).goal)


@command(app, "resume")
async def resume(session: Session, name: Name) -> None:
    """Let a paused goal go on."""
    ask = goal_service_pb2.ResumeGoalRequest(name=words.full_name("goals", name))
    _say(session, (await session.call(session.goals.ResumeGoal, ask, again=False)).goal)


@command(app, "changes")
async def changes(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="[GOAL]", help="only changes of this goal")] = None,
    limit: Limit = LIST_COUNT,
) -> None:
    """List changes: pushed branches on their way into the default branch, newest first."""
    condition = f"goal = {words.full_name('goals', name)}" if name else ""

    async def fetch(size: int, token: str) -> tuple[list[change_pb2.Change], str]:
        ask = goal_service_pb2.ListChangesRequest(page_size=size, page_token=token, filter=condition)
        reply = await session.call(session.goals.ListChanges, ask)
        return list(reply.changes), reply.next_page_token

    session.output.many(await session.pages(fetch, limit), CHANGE_COLUMNS, empty="no changes")


def _say(session: Session, goal: goal_pb2.Goal) -> None:
    session.output.one(goal, lambda goal: output.cell(f"{goal.name} is {goal_board.state_word(goal)}"))


def _sheet(goal: goal_pb2.Goal, tasks: list[task_pb2.Task]) -> RenderableType:
    rows = [
        ("goal", goal.name),
        ("title", goal.title),
        ("state", goal_board.state_word(goal)),
        ("reason", goal.state_reason),
        ("repo", goal.repo),
        ("lane", words.enum_word(task_pb2.Lane, goal.lane, "LANE_")),
        ("created", words.time_text(goal.create_time)),
        ("ended", words.time_text(goal.end_time)),
        ("took", words.span_text(goal.create_time, goal.end_time)),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(goal.labels.items()))),
        ("verified by", goal.verify_task),
    ]
    parts: list[RenderableType] = [output.sheet(rows)]
    if goal.description:
        parts += ["", output.cell(goal.description)]
    if goal.assertions:
        parts += ["", output.table(goal.assertions, goal_board.ASSERTION_COLUMNS)]
    if tasks:
        parts += ["", output.table(goal_board.in_plan_order(goal, tasks), goal_board.TASK_COLUMNS)]
    return Group(*parts)
