"""Tasks: the list, and one task with everything that is known of it."""

from __future__ import annotations

from typing import Any

import flask

from agentcom.v1 import agent_pb2, agent_service_pb2, task_pb2, task_service_pb2
from dashboard import format, pages
from kit import errors

blueprint = flask.Blueprint("tasks", __name__, url_prefix="/tasks")

State = task_pb2.Task.State
STATES = tuple(format.word("task", number) for number in State.values() if number)
LANES = tuple(format.word("lane", number) for number in task_pb2.Lane.values() if number)
HELD = (State.STATE_ASSIGNED, State.STATE_RUNNING)
FINAL = (State.STATE_SUCCEEDED, State.STATE_CANCELLED, State.STATE_DEAD)
EVENTS_MAX = 200
"""Entries of the history on the page; the rest is a link away."""
LOG_BYTES_MAX = 256 * 1024
"""What an artefact may have, and the most that a page shows."""
SHOWN = ("log", "diff")


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """A page of tasks, newest first."""
    state, lane = pages.wanted("state", STATES), pages.wanted("lane", LANES)
    wanted = {name: pages.wanted(name) for name in ("goal", "repo", "agent")}
    caller = pages.caller()
    request = task_service_pb2.ListTasksRequest(
        page_size=pages.PAGE_SIZE,
        page_token=pages.wanted("after"),
        filter=pages.terms(state=state.replace(" ", "_"), lane=lane, **wanted),
        order_by="create_time desc",
    )
    found = caller.read(caller.tasks.ListTasks, request)
    return flask.render_template(
        "tasks.html",
        tasks=found.tasks,
        next=found.next_page_token,
        states=STATES,
        lanes=LANES,
        asked={"state": state, "lane": lane, **wanted},
        command=pages.command("task list", state=state.replace(" ", "_"), lane=lane, **wanted),
    )


@blueprint.get("/<id>")
def one(id: str) -> flask.typing.ResponseReturnValue:
    """One task: contract, attempts, receipts, diff, log, history, and why it is not running."""
    caller, name = pages.caller(), f"tasks/{id}"
    task = caller.read(caller.tasks.GetTask, task_service_pb2.GetTaskRequest(name=name)).task
    why = None
    if task.state not in FINAL:
        why = caller.read(caller.tasks.ExplainTask, task_service_pb2.ExplainTaskRequest(name=name))
    doing = _progress(task) if task.state in HELD and task.agent else None
    events = caller.read(
        caller.tasks.ListTaskEvents, task_service_pb2.ListTaskEventsRequest(name=name, page_size=EVENTS_MAX)
    )
    return flask.render_template(
        "task.html",
        task=task,
        why=why,
        events=events.events,
        more_events=bool(events.next_page_token),
        doing=doing,
        final=task.state in FINAL,
        shown=[(kind, _artifact(name, task, kind)) for kind in SHOWN],
        command=f"agentcom task show {id}",
    )


@blueprint.get("/<id>/log")
def log(id: str) -> flask.typing.ResponseReturnValue:
    """The live output of a running attempt, as it comes; plain text, for the page's script and for curl."""
    caller = pages.caller()
    _, _, seats = pages.parts()
    call = caller.watch(caller.tasks.TailTaskLog, task_service_pb2.TailTaskLogRequest(name=f"tasks/{id}"))
    if not seats.take():
        call.cancel()
        return "all live seats are taken\n", 503, {"Retry-After": "30"}

    def body() -> Any:
        try:
            for message in call:
                if message.dropped_bytes:
                    yield f"\n[{message.dropped_bytes} bytes left out]\n"
                yield format.plain(message.text)
                if message.end:
                    return
        finally:
            call.cancel()
            seats.leave()

    return flask.Response(body(), mimetype="text/plain", headers={"X-Accel-Buffering": "no"})


@blueprint.post("/<id>/cancel")
def cancel(id: str) -> flask.typing.ResponseReturnValue:
    """Cancel it."""
    caller, form = pages.caller(), flask.request.form
    request = task_service_pb2.CancelTaskRequest(
        name=f"tasks/{id}", reason=form.get("reason", "")[:500], etag=form.get("etag", "")
    )
    caller.act(caller.tasks.CancelTask, request)
    return pages.done("cancelled", endpoint="tasks.one", id=id)


@blueprint.post("/<id>/retry")
def retry(id: str) -> flask.typing.ResponseReturnValue:
    """Put a dead or parked one back into the queue."""
    caller, form = pages.caller(), flask.request.form
    request = task_service_pb2.RetryTaskRequest(name=f"tasks/{id}", etag=form.get("etag", ""))
    caller.act(caller.tasks.RetryTask, request)
    return pages.done("queued again", endpoint="tasks.one", id=id)


def _progress(task: task_pb2.Task) -> agent_pb2.Progress | None:
    """What the agent that has it told last of how it gets on; None: nothing yet."""
    caller = pages.caller()
    try:
        agent = caller.read(caller.agents.GetAgent, agent_service_pb2.GetAgentRequest(name=task.agent)).agent
    except errors.NotFound:
        return None
    for holding, progress in zip(agent.holdings, agent.progress, strict=False):
        if (holding.task, holding.generation) == (task.name, task.generation):
            return progress  # type: ignore[no-any-return]  # the stubs do not say what a call returns
    return None


def _artifact(name: str, task: task_pb2.Task, kind: str) -> str:
    """The newest artefact of a kind, as text; "" when there is none or it is gone by the retention."""
    having = [attempt for attempt in task.attempts if any(one.id == kind for one in attempt.result.artifacts)]
    if not task.attempts:
        return ""
    caller = pages.caller()
    generation = having[-1].generation if having else task.attempts[-1].generation
    request = task_service_pb2.GetTaskArtifactRequest(name=name, generation=generation, artifact=kind)
    try:
        found = caller.read_if_open(caller.tasks.GetTaskArtifact, request)
    except errors.NotFound:
        return ""
    content: bytes = found.artifact.content if found is not None else b""
    return format.plain(content[:LOG_BYTES_MAX].decode("utf-8", "replace"))
