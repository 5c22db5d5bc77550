"""Dead letters: what was given up, with its whole history; retried one by one or by a filter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import flask

from agentcom.v1 import task_service_pb2
from dashboard import pages
from dashboard.views.tasks import LANES
from kit import errors

blueprint = flask.Blueprint("dead", __name__, url_prefix="/dead")

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

BULK_MAX: Final = 200
"""Tasks that one press retries; the page then shows what is left."""


FIELDS: Final = ("goal", "repo", "lane", "label")
"""What dead letters can be narrowed by; a label is written KEY=VALUE."""


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """A page of dead letters, newest first."""
    wanted = {name: pages.wanted(name) for name in FIELDS}
    caller = pages.caller()
    request = task_service_pb2.ListTasksRequest(
        page_size=pages.PAGE_SIZE,
        page_token=pages.wanted("after"),
        filter=_filter(wanted),
        order_by="create_time desc",
    )
    found = caller.read(caller.tasks.ListTasks, request)
    return flask.render_template(
        "dead.html",
        tasks=found.tasks,
        next=found.next_page_token,
        asked=wanted,
        bulk_max=BULK_MAX,
        lanes=LANES,
        command=pages.command("task list", state="dead", **wanted),
    )


@blueprint.post("/retry")
def retry() -> flask.typing.ResponseReturnValue:
    """Retry those that were chosen, or all that the filter finds."""
    wanted = {name: flask.request.form.get(name, "") for name in FIELDS}
    chosen = flask.request.form.getlist("task")[:BULK_MAX]
    caller = pages.caller()
    if flask.request.form.get("all"):
        request = task_service_pb2.ListTasksRequest(
            page_size=BULK_MAX, filter=_filter(wanted), order_by="create_time desc"
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


def _filter(wanted: Mapping[str, str]) -> str:
    """Raises Invalid for a label that is none."""
    key, equals, value = wanted["label"].partition("=")
    if wanted["label"] and not (_LABEL.fullmatch(key) and equals):
        raise errors.Invalid.of("label", f"is written KEY=VALUE, not {wanted['label'][:40]!r}")
    found = {name: wanted[name] for name in FIELDS if name != "label"}
    return pages.terms(state="DEAD", **found, **({f"labels.{key}": value} if key else {}))
