"""Following a goal to its end: as a live board, as lines, or as JSON lines.

The stream of events only says that something has changed; what is shown is read fresh, at most a few times a second,
so that a burst of events costs one read and a lost one costs nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from rich.live import Live

from agentcom.v1 import event_pb2, goal_pb2, goal_service_pb2, task_pb2, task_service_pb2
from cli import goal_board, words
from cli.failure import Code
from cli.session import Session

# A person reads no faster.
REDRAW_S = 0.25
# A plan has at most 200 tasks; each may come back from the merge twice.
TASK_COUNT_MAX = 1000
# Enough of a commit to find it again.
SHA_SHOWN = 12
_SHAS = ("head", "merge_sha")
# Details that say nothing to somebody who follows one goal.
_DULL = ("class", "repo", "task", "merge_task", "verify_task", "branch", "change")


async def get(session: Session, name: str) -> goal_pb2.Goal:
    """The goal as it is now."""
    return (await session.call(session.goals.GetGoal, goal_service_pb2.GetGoalRequest(name=name))).goal


async def tasks_of(session: Session, name: str) -> list[task_pb2.Task]:
    """All tasks of a goal."""

    async def fetch(size: int, token: str) -> tuple[list[task_pb2.Task], str]:
        ask = task_service_pb2.ListTasksRequest(page_size=size, page_token=token, filter=f"goal = {name}")
        reply = await session.call(session.tasks.ListTasks, ask)
        return list(reply.tasks), reply.next_page_token

    return await session.pages(fetch, TASK_COUNT_MAX)


async def watch(session: Session, name: str) -> Code:
    """Show a goal until it ends; OK only when it succeeded."""
    position = await session.position()
    goal = await get(session, name)
    if session.output.is_live:
        goal = await _watch_live(session, goal, position)
    else:
        goal = await _watch_lines(session, goal, position)
    if not session.output.is_json:
        reason = f": {goal.state_reason}" if goal.state_reason else ""
        print(words.plain(f"{goal.name} {goal_board.state_word(goal)}{reason}"), flush=True)
    return Code.OK if goal.state == goal_pb2.Goal.STATE_SUCCEEDED else Code.REFUSED


async def watch_all(session: Session) -> None:
    """Show everything that happens to goals, until Ctrl-C."""
    position = await session.position()
    stream = session.follow(session.goals.WatchGoals, lambda at: _ask("", at), position)
    async with aclosing(stream):
        async for message in stream:
            if message.HasField("event"):
                session.output.line(message, lambda message: event_text(message.event))


async def _watch_lines(session: Session, goal: goal_pb2.Goal, position: int) -> goal_pb2.Goal:
    if goal.state in goal_board.FINAL:
        if session.output.is_json:
            session.output.line(goal_service_pb2.WatchGoalsResponse(goal=goal, position=max(0, position)), str)
        return goal
    plan = goal.plan  # a watch tells of the goal without it
    stream = session.follow(session.goals.WatchGoals, lambda at: _ask(goal.name, at), position)
    async with aclosing(stream):
        async for message in stream:
            if message.HasField("event"):
                session.output.line(message, lambda message: progress_text(plan, message))
            if message.HasField("goal"):
                goal = message.goal
                if goal.state in goal_board.FINAL:
                    break
    return goal


async def _watch_live(session: Session, goal: goal_pb2.Goal, position: int) -> goal_pb2.Goal:
    changed = asyncio.Event()
    changed.set()

    async def listen() -> None:
        stream = session.follow(session.goals.WatchGoals, lambda at: _ask(goal.name, at), position)
        async with aclosing(stream):
            async for _ in stream:
                changed.set()

    async def draw(live: Live) -> goal_pb2.Goal:
        while True:
            await changed.wait()
            changed.clear()
            now = await get(session, goal.name)
            live.update(goal_board.board(now, await tasks_of(session, goal.name)), refresh=True)
            if now.state in goal_board.FINAL:
                return now
            await asyncio.sleep(REDRAW_S)

    with Live(console=session.output.console, auto_refresh=False) as live:
        try:
            async with asyncio.TaskGroup() as group:
                listener = group.create_task(listen(), name="watch goal")
                goal = await draw(live)
                listener.cancel()
        except BaseExceptionGroup as broken:
            raise broken.exceptions[0] from None  # one of two jobs failed; the group around it says nothing more
    return goal


def event_text(event: event_pb2.Event) -> str:
    """One line for one event."""
    fields = " ".join(f"{key}={value}" for key, value in sorted(event.fields.items()))
    at = words.time_text(event.create_time)
    return f"{at} {event.position:>6} {event.type:<24} {event.subject} {fields}".rstrip()


def progress_text(plan: goal_pb2.Plan, message: goal_service_pb2.WatchGoalsResponse) -> str:
    """One line for one event of a goal, in the plan's own ids."""
    event, counts = message.event, message.goal.task_counts
    ids = {entry.task: entry.id for entry in plan.tasks}
    about = event.fields.get("task", event.subject)
    subject = ids.get(about) or ("" if about.startswith("goals/") else words.short_name(about))
    fields = [(key, value) for key, value in sorted(event.fields.items()) if key not in _DULL]
    details = " ".join(f"{key}={value[:SHA_SHOWN] if key in _SHAS else value}" for key, value in fields)
    at = words.time_text(event.create_time)
    return f"{at} {counts.succeeded:>3}/{counts.total} {subject:<20} {event.type:<20} {details}".rstrip()


def _ask(name: str, position: int) -> goal_service_pb2.WatchGoalsRequest:
    return goal_service_pb2.WatchGoalsRequest(name=name, position=position)
