"""The picture of a goal: what is shown, in which order, and that it stays within a screen."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from agentcom.v1 import goal_pb2, task_pb2
from cli import goal_board

State = task_pb2.Task.State


def made(plan_task: str, state: Any, **fields: Any) -> task_pb2.Task:
    return task_pb2.Task(name=f"tasks/{plan_task or 'm'}", plan_task=plan_task, state=state, **fields)


def goal(*ids: str, **fields: Any) -> goal_pb2.Goal:
    plan = goal_pb2.Plan(tasks=[goal_pb2.PlanTask(id=id) for id in ids])
    return goal_pb2.Goal(title="make it so", state=goal_pb2.Goal.STATE_ACTIVE, plan=plan, **fields)


def picture(goal: goal_pb2.Goal, tasks: list[task_pb2.Task]) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115  # it lives as long as the console
    with console.file:
        console.print(goal_board.board(goal, tasks))
    return console.export_text()


def test_tasks_stand_in_the_order_of_the_plan_and_merges_behind_them():
    merge = made("", State.STATE_RUNNING, spec=task_pb2.TaskSpec(kind=task_pb2.TASK_KIND_MERGE))
    tasks = [merge, made("B", State.STATE_QUEUED), made("A", State.STATE_SUCCEEDED)]
    assert [goal_board.task_id(task) for task in goal_board.in_plan_order(goal("A", "B"), tasks)] == [
        "A",
        "B",
        "(merge)",
    ]


def test_the_picture_has_the_goal_its_counts_and_what_is_the_matter():
    counts = goal_pb2.TaskCounts(total=4, succeeded=1)
    shown = picture(goal("A", task_counts=counts), [made("A", State.STATE_PARKED, state_reason="no route")])
    assert "1/4" in shown and "make it so" in shown and "parked" in shown and "no route" in shown


def test_a_large_plan_shows_what_moves_and_counts_the_rest():
    ids = [f"T{number}" for number in range(200)]
    tasks = [made(id, State.STATE_RUNNING if number < 3 else State.STATE_QUEUED) for number, id in enumerate(ids)]
    shown = picture(goal(*ids), tasks)
    assert "and 197 more" in shown
    assert len(shown.splitlines()) < goal_board.BOARD_ROWS_MAX + 5


def test_a_paused_goal_says_so_until_it_has_ended():
    assert goal_board.state_word(goal_pb2.Goal(state=goal_pb2.Goal.STATE_ACTIVE, paused=True)) == "paused"
    assert goal_board.state_word(goal_pb2.Goal(state=goal_pb2.Goal.STATE_FAILED, paused=True)) == "failed"


def test_a_check_that_did_not_run_is_no_pass():
    receipt = task_pb2.Receipt
    assert goal_board.verdict_word(receipt()) == "not run"
    assert goal_board.verdict_word(receipt(check="c")) == "unknown"
    assert goal_board.verdict_word(receipt(check="c", verdict=receipt.VERDICT_UNKNOWN)) == "unknown"
    assert goal_board.verdict_word(receipt(check="c", verdict=receipt.VERDICT_PASS)) == "holds"
