"""What the demo did, as the hub tells it: tasks, who did them, in how many tries, how long it took, what merged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table

from agentcom.v1 import change_pb2, goal_pb2, goal_service_pb2, hub_pb2, hub_service_pb2, task_pb2
from cli import goal_board, goal_watch, output, task_watch, words
from cli.session import Session


@dataclass(frozen=True)
class Report:
    """Everything that the summary is made of."""

    goal: goal_pb2.Goal
    tasks: list[task_pb2.Task]
    changes: list[change_pb2.Change]
    stats: hub_pb2.Stats


async def collect(session: Session) -> Report:
    """Ask the hub about its only goal."""
    goals = await session.call(session.goals.ListGoals, goal_service_pb2.ListGoalsRequest())
    goal = await goal_watch.get(session, goals.goals[0].name)
    tasks = [await task_watch.get(session, task.name) for task in await goal_watch.tasks_of(session, goal.name)]
    changes = await session.call(session.goals.ListChanges, goal_service_pb2.ListChangesRequest(page_size=1000))
    stats = await session.call(session.hub.GetStats, hub_service_pb2.GetStatsRequest())
    return Report(goal, goal_board.in_plan_order(goal, tasks), list(changes.changes), stats.stats)


def table(report: Report) -> RenderableType:
    """The summary."""
    merged = {change.task: change for change in report.changes if change.state == change_pb2.Change.STATE_MERGED}
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("TASK", "STATE", "AGENT", "TRIES", "WAIT", "RUN", "RECEIPTS", "MERGED AS", "MERGED BY", "TITLE"):
        grid.add_column(header, no_wrap=header != "TITLE")
    for task in report.tasks:
        change = merged.get(task.name, change_pb2.Change())
        last = task.attempts[-1] if task.attempts else task_pb2.Attempt()
        grid.add_row(
            goal_board.task_id(task),
            output.cell(goal_board.task_state(task)),
            words.short_name(last.agent),
            str(len(task.attempts)),
            wait(task, last),
            words.span_text(last.start_time, last.end_time),
            str(len(last.result.receipts)),
            change.merge_sha[:12] or last.result.merge_sha[:12],
            words.short_name(change.merge_agent),
            task.spec.title,
        )
    passed = sum(receipt.verdict == task_pb2.Receipt.VERDICT_PASS for receipt in receipts(report.tasks))
    return Group(
        grid,
        "",
        f"goal {goal_board.state_word(report.goal)}: {len(merged)} changes merged, {passed} receipts of passed checks, "
        f"{report.stats.assigned_count} assignments (wait p50 {_ms(report.stats)} ms), "
        f"{report.stats.failed_count} failed tries, {tokens(report)} model tokens",
    )


def problems(report: Report, wanted: goal_pb2.Goal) -> list[str]:
    """What is not as the demo promises."""
    found = []
    plan = {task.plan_task: task for task in report.tasks if task.plan_task}
    done = task_pb2.Task.STATE_SUCCEEDED
    found += [f"{entry.id} is not done" for entry in wanted.plan.tasks if plan[entry.id].state != done]
    if report.goal.state != goal_pb2.Goal.STATE_SUCCEEDED:
        found.append(f"the goal is {goal_board.state_word(report.goal)}: {report.goal.state_reason}")
    if not any(len(task.attempts) > 1 and task.state == done for task in plan.values()):
        found.append("no task was repaired by a second try")
    if len({attempt.agent for task in report.tasks for attempt in task.attempts}) < 2:
        found.append("one agent did everything")
    if tokens(report):
        found.append(f"{tokens(report)} model tokens were spent")
    return found


def receipts(tasks: Iterable[task_pb2.Task]) -> list[task_pb2.Receipt]:
    """Of every attempt that was accepted."""
    return [receipt for task in tasks for attempt in task.attempts for receipt in attempt.result.receipts]


def tokens(report: Report) -> int:
    """Spent by the hub and by every attempt that knows."""
    return report.stats.tokens_spent + sum(a.result.tokens for task in report.tasks for a in task.attempts)


def wait(task: task_pb2.Task, attempt: task_pb2.Attempt) -> str:
    """From the queue to the agent, the last time."""
    if not task.queue_time.seconds or not attempt.assign_time.seconds:
        return ""
    return f"{max(0, attempt.assign_time.ToNanoseconds() - task.queue_time.ToNanoseconds()) / 1e6:.0f} ms"


def _ms(stats: hub_pb2.Stats) -> str:
    return f"{stats.queue_wait.p50.ToNanoseconds() / 1e6:.1f}"
