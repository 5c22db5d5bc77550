"""Goals: the list, and one goal with its plan drawn, its assertions and its timeline."""

from __future__ import annotations

import flask
from markupsafe import Markup

from agentcom.v1 import goal_pb2, goal_service_pb2, hub_service_pb2, task_pb2, task_service_pb2
from dashboard import chart, format, pages
from kit import errors

blueprint = flask.Blueprint("goals", __name__, url_prefix="/goals")

STATES = tuple(format.word("goal", number) for number in goal_pb2.Goal.State.values() if number)
FINAL = (goal_pb2.Goal.STATE_SUCCEEDED, goal_pb2.Goal.STATE_FAILED, goal_pb2.Goal.STATE_CANCELLED)
TIMELINE = 100
"""Events on the page; the rest is a link away."""
MILESTONES = frozenset(
    {
        "goal.created", "goal.started", "goal.verifying", "goal.succeeded", "goal.failed", "goal.cancelled",
        "goal.paused", "goal.resumed", "goal.revived", "change.merged", "change.returned", "change.abandoned",
        "task.failed", "task.parked", "task.stuck", "task.returned", "task.revived", "task.cancelled", "task.dead",
    }
)  # fmt: skip
"""What stands in the timeline; the steps between stand in its small print."""
TASKS_MAX = 1000
"""A plan has at most 200 tasks; merges, verifications and repairs come on top."""


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """A page of goals."""
    state, repo = pages.wanted("state", STATES), pages.wanted("repo")
    caller = pages.caller()
    request = goal_service_pb2.ListGoalsRequest(
        page_size=pages.PAGE_SIZE,
        page_token=pages.wanted("after"),
        filter=pages.terms(state=state.replace(" ", "_"), repo=repo),
    )
    found = caller.read(caller.goals.ListGoals, request)
    return flask.render_template(
        "goals.html",
        goals=found.goals,
        next=found.next_page_token,
        states=STATES,
        asked={"state": state, "repo": repo},
        command=pages.command("goal list", state=state.replace(" ", "_"), repo=repo),
    )


@blueprint.get("/<id>")
def one(id: str) -> flask.typing.ResponseReturnValue:
    """One goal."""
    caller, name = pages.caller(), f"goals/{id}"
    goal = caller.read(caller.goals.GetGoal, goal_service_pb2.GetGoalRequest(name=name)).goal
    request = task_service_pb2.ListTasksRequest(page_size=TASKS_MAX, filter=f'goal = "{name}"')
    tasks = list(caller.read(caller.tasks.ListTasks, request).tasks)
    changes = caller.read(
        caller.goals.ListChanges, goal_service_pb2.ListChangesRequest(page_size=200, filter=f'goal = "{name}"')
    ).changes
    told = caller.read_if_open(
        caller.hub.ListEvents, hub_service_pb2.ListEventsRequest(subject=name, page_size=TIMELINE)
    )
    return flask.render_template(
        "goal.html",
        milestones=[event for event in told.events if event.type in MILESTONES] if told is not None else [],
        events=told.events if told is not None else [],
        more_events=told is not None and bool(told.next_page_token),
        goal=goal,
        tasks=tasks,
        changes=changes,
        drawing=drawing(goal, tasks),
        fulfilled_by=_fulfilled_by(goal),
        holding=sum(one.receipt.verdict == task_pb2.Receipt.VERDICT_PASS for one in goal.assertions),
        final=goal.state in FINAL,
        command=f"agentcom goal show {id}",
    )


@blueprint.post("/<id>/<verb>")
def act(id: str, verb: str) -> flask.typing.ResponseReturnValue:
    """Pause, resume or cancel it."""
    caller, name = pages.caller(), f"goals/{id}"
    match verb:
        case "pause":
            caller.act(caller.goals.PauseGoal, goal_service_pb2.PauseGoalRequest(name=name))
        case "resume":
            caller.act(caller.goals.ResumeGoal, goal_service_pb2.ResumeGoalRequest(name=name))
        case "cancel":
            reason = flask.request.form.get("reason", "")[:500]
            caller.act(caller.goals.CancelGoal, goal_service_pb2.CancelGoalRequest(name=name, reason=reason))
        case _:
            raise errors.NotFound(f"there is no action {verb[:40]!r}")
    words = {"pause": "paused", "resume": "goes on", "cancel": "cancelled"}
    return pages.done(words[verb], endpoint="goals.one", id=id)


def drawing(goal: goal_pb2.Goal, tasks: list[task_pb2.Task]) -> Markup:
    """The plan with the state of each of its tasks."""
    by_plan = {task.plan_task: task for task in tasks if task.plan_task}
    nodes = []
    for entry in goal.plan.tasks:
        task = by_plan.get(entry.id)
        state = format.word("task", task.state) if task is not None else "planned"
        tone = format.tone(state)
        href = flask.url_for("tasks.one", id=format.short(task.name)) if task is not None else "#plan"
        title = format.plain(entry.spec.title)
        nodes.append(chart.Node(entry.id, title, state, tone, format.SIGNS[tone], href, tuple(entry.depends_on)))
    return chart.graph(nodes, title=f"the plan of {goal.title}")


def _fulfilled_by(goal: goal_pb2.Goal) -> dict[str, list[str]]:
    """The plan's tasks by the assertion that they fulfil."""
    found: dict[str, list[str]] = {}
    for entry in goal.plan.tasks:
        for assertion in entry.fulfills:
            found.setdefault(assertion, []).append(entry.id)
    return found
