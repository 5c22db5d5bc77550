"""Following tasks, and reading what they print."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import Annotated

import typer

from agentcom.v1 import task_pb2, task_service_pb2
from cli import goal_board, words
from cli.failure import Code
from cli.session import Session
from kit import errors

FINAL = frozenset({task_pb2.Task.STATE_SUCCEEDED, task_pb2.Task.STATE_CANCELLED, task_pb2.Task.STATE_DEAD})
HELD = frozenset({task_pb2.Task.STATE_ASSIGNED, task_pb2.Task.STATE_RUNNING})


async def watch(
    session: Session,
    names: Annotated[list[str] | None, typer.Argument(metavar="[TASK]...", help="ends when all of these have")] = None,
    goal: Annotated[str | None, typer.Option("--goal", help="tasks of this goal, until Ctrl-C")] = None,
) -> int | None:
    """Show tasks as they change; named ones to their end (exit 0 only when all succeeded)."""
    if names and goal:
        raise errors.Invalid.of("--goal", "is not needed for tasks that are named")
    if names:
        return await to_the_end(session, words.full_names("tasks", names))
    position = await session.position()
    full = words.full_name("goals", goal) if goal else ""
    stream = session.follow(
        session.tasks.WatchTasks,
        lambda at: task_service_pb2.WatchTasksRequest(goal=full, position=at),
        position,
    )
    async with aclosing(stream):
        async for message in stream:
            if message.HasField("event"):
                session.output.line(message, _line)
    return None


async def log(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="TASK", help="tasks/ID or ID")],
    attempt: Annotated[int, typer.Option("--attempt", min=0, help="the kept log of this attempt")] = 0,
) -> int | None:
    """Print what a task prints: live while it runs, the kept log of its newest attempt otherwise."""
    full = words.full_name("tasks", name)
    task = await get(session, full)
    if attempt or task.state not in HELD:
        reply = await get_artifact(session, full, "log", attempt)
        if session.output.is_json:
            session.output.one(reply, lambda _: "")
        else:
            print(words.plain(reply.artifact.content.decode("utf-8", "replace")), end="", flush=True)
        return None
    ask = task_service_pb2.TailTaskLogRequest(name=full)
    # A command may print nothing for long; a dead line is noticed by the pings of the channel.
    async with aclosing(session.listen(session.tasks.TailTaskLog, ask, silence_s=None)) as stream:
        async for piece in stream:
            if session.output.is_json:
                session.output.line(piece, str)
            else:
                if piece.dropped_bytes:
                    print(f"note: {piece.dropped_bytes} bytes left out", file=sys.stderr)
                print(words.plain(piece.text), end="", flush=True)
            if piece.end:
                break
    return None


async def get(session: Session, name: str) -> task_pb2.Task:
    """The task as it is now, with its attempts."""
    return (await session.call(session.tasks.GetTask, task_service_pb2.GetTaskRequest(name=name))).task


async def get_artifact(
    session: Session, name: str, artifact: str, generation: int
) -> task_service_pb2.GetTaskArtifactResponse:
    """An artefact with its content."""
    ask = task_service_pb2.GetTaskArtifactRequest(name=name, artifact=artifact, generation=generation)
    return await session.call(session.tasks.GetTaskArtifact, ask)


async def to_the_end(session: Session, names: list[str]) -> Code:
    """Show these tasks until each has reached its end; OK only when all succeeded."""
    position = await session.position()
    states = {}
    for name in dict.fromkeys(names):
        task = await get(session, name)
        states[name] = task.state
        if task.state in FINAL:
            session.output.line(
                task_service_pb2.WatchTasksResponse(task=task, position=max(0, position)), lambda m: _text(m.task)
            )
    waiting = {name for name, state in states.items() if state not in FINAL}
    if waiting:
        stream = session.follow(
            session.tasks.WatchTasks,
            lambda at: task_service_pb2.WatchTasksRequest(names=list(states), position=at),
            position,
        )
        async with aclosing(stream):
            async for message in stream:
                if not message.HasField("event"):
                    continue
                session.output.line(message, _line)
                name = message.event.subject
                if not message.HasField("task") or message.task.state in FINAL:
                    states[name] = message.task.state
                    waiting.discard(name)
                if not waiting:
                    break
    good = all(state == task_pb2.Task.STATE_SUCCEEDED for state in states.values())
    return Code.OK if good else Code.REFUSED


def _line(message: task_service_pb2.WatchTasksResponse) -> str:
    if not message.HasField("task"):
        return f"{words.time_text(message.event.create_time)} {message.event.subject} {message.event.type}"
    at = words.time_text(message.event.create_time)
    return f"{at} {message.event.type:<20} {_text(message.task)}"


def _text(task: task_pb2.Task) -> str:
    agent = f" on {words.short_name(task.agent)}" if task.agent else ""
    reason = goal_board.why(task)
    return f"{task.name} {goal_board.task_state(task)}{agent} {task.spec.title!r}{f': {reason}' if reason else ''}"
