"""How a goal and its tasks look, live and at rest: pure rendering of what the hub said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agentcom.v1 import goal_pb2, task_pb2
from cli import output, words

State = goal_pb2.Goal.State
FINAL = frozenset({State.STATE_SUCCEEDED, State.STATE_FAILED, State.STATE_CANCELLED})
BAR_WIDTH = 40
# Of a plan of 200 tasks a screen shows those that matter now; the rest is counted.
BOARD_ROWS_MAX = 30

_KINDS = {
    task_pb2.TASK_KIND_MERGE: "(merge)",
    task_pb2.TASK_KIND_VERIFY: "(verify)",
    task_pb2.TASK_KIND_REVERT: "(revert)",
}
_TaskState = task_pb2.Task.State
_MOVING = frozenset({_TaskState.STATE_ASSIGNED, _TaskState.STATE_RUNNING, _TaskState.STATE_MERGING})
_FAILED = frozenset({_TaskState.STATE_DEAD, _TaskState.STATE_CANCELLED, _TaskState.STATE_PARKED})


def state_word(goal: goal_pb2.Goal) -> str:
    """`active`, `succeeded`, ...; a paused goal says so."""
    word = words.enum_word(State, goal.state, "STATE_")
    return "paused" if goal.paused and goal.state not in FINAL else word


def task_state(task: task_pb2.Task) -> str:
    """`queued`, `running`, ..."""
    return words.enum_word(_TaskState, task.state, "STATE_")


def task_id(task: task_pb2.Task) -> str:
    """Its id in the plan, or what it is for."""
    return task.plan_task or _KINDS.get(task.spec.kind, "-")


def why(task: task_pb2.Task) -> str:
    """The one sentence that says why it is where it is."""
    if task.state == _TaskState.STATE_SUCCEEDED:
        return ""
    return task.state_reason or task.failure.message or task.failure.reason


TASK_COLUMNS: list[output.Column[task_pb2.Task]] = [
    ("ID", task_id),
    ("STATE", task_state),
    ("TASK", lambda task: words.short_name(task.name)),
    ("AGENT", lambda task: words.short_name(task.agent)),
    ("TRIES", lambda task: str(task.generation)),
    ("TITLE", lambda task: task.spec.title),
    ("WHY", why),
]

ASSERTION_COLUMNS: list[output.Column[goal_pb2.Assertion]] = [
    ("ASSERTION", lambda assertion: assertion.id),
    ("SAYS", lambda assertion: verdict_word(assertion.receipt)),
    ("ON", lambda assertion: assertion.receipt.head_sha[:12]),
    ("TEXT", lambda assertion: assertion.text),
    ("CHECK", lambda assertion: assertion.check.run),
]


def verdict_word(receipt: task_pb2.Receipt) -> str:
    """`holds`, `failed`, or that it did not run."""
    verdicts = {task_pb2.Receipt.VERDICT_PASS: "holds", task_pb2.Receipt.VERDICT_FAIL: "failed"}
    return verdicts.get(receipt.verdict, "not run" if not receipt.check else "unknown")


def in_plan_order(goal: goal_pb2.Goal, tasks: Iterable[task_pb2.Task]) -> list[task_pb2.Task]:
    """The plan's tasks as the plan has them, then merges and verifications by age."""
    order = {entry.id: index for index, entry in enumerate(goal.plan.tasks)}
    return sorted(tasks, key=lambda task: (order.get(task.plan_task, len(order)), task.name))


def board(goal: goal_pb2.Goal, tasks: Sequence[task_pb2.Task]) -> RenderableType:
    """The live picture: the goal, a bar, and its tasks."""
    counts = goal.task_counts
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(state_word(goal), style=output.STYLES.get(state_word(goal), "bold")),
        ProgressBar(total=max(1, counts.total), completed=counts.succeeded, width=BAR_WIDTH),
        Text(f"{counts.succeeded}/{counts.total}"),
        output.cell(goal.title),
    )
    shown = [task for task in in_plan_order(goal, tasks) if task.plan_task or task.state in _MOVING]
    hidden = 0
    if len(shown) > BOARD_ROWS_MAX:
        urgent = [task for task in shown if task.state in _MOVING or task.state in _FAILED]
        hidden = len(shown) - len(urgent[:BOARD_ROWS_MAX])
        shown = urgent[:BOARD_ROWS_MAX]
    parts: list[RenderableType] = [head, output.table(shown, TASK_COLUMNS)]
    if hidden:
        parts.append(Text(f"... and {hidden} more", style="dim"))
    return Group(*parts)
