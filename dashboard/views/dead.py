"""Dead letters: what was given up, with its whole history; retried one by one or by a filter."""

from __future__ import annotations

from typing import Final

import flask

from agentcom.v1 import task_service_pb2
from dashboard import pages
from kit import errors

blueprint = flask.Blueprint("dead", __name__, url_prefix="/dead")

BULK_MAX: Final = 200
"""Tasks that one press retries; the page then shows what is left."""


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """A page of dead letters, newest first."""
    wanted = {name: pages.wanted(name) for name in ("goal", "repo")}
    caller = pages.caller()
    request = task_service_pb2.ListTasksRequest(
        page_size=pages.PAGE_SIZE,
        page_token=pages.wanted("after"),
        filter=pages.terms(state="DEAD", **wanted),
        order_by="create_time desc",
    )
    found = caller.read(caller.tasks.ListTasks, request)
    return flask.render_template(
        "dead.html",
        tasks=found.tasks,
        next=found.next_page_token,
        asked=wanted,
        bulk_max=BULK_MAX,
        command="agentcom task list --state dead",
    )


@blueprint.post("/retry")
def retry() -> flask.typing.ResponseReturnValue:
    """Retry those that were chosen, or all that the filter finds."""
    wanted = {name: flask.request.form.get(name, "") for name in ("goal", "repo")}
    chosen = flask.request.form.getlist("task")[:BULK_MAX]
    caller = pages.caller()
    if flask.request.form.get("all"):
        request = task_service_pb2.ListTasksRequest(
            page_size=BULK_MAX, filter=pages.terms(state="DEAD", **wanted), order_by="create_time desc"
        )
        chosen = [task.name for task in caller.act(caller.tasks.ListTasks, request).tasks]
    good, refused = 0, ""
    for name in chosen:
        try:
            caller.act(caller.tasks.RetryTask, task_service_pb2.RetryTaskRequest(name=name))
            good += 1
        except (errors.IllegalState, errors.NotFound) as problem:  # somebody was faster; the others go on
            refused = problem.message
    message = f"{good} queued again" + (f"; the last one that was not: {refused}" if refused else "")
    return pages.done(message, endpoint="dead.page", **{key: value for key, value in wanted.items() if value})
