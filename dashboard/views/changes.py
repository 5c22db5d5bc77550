"""Changes: what waits for its merge, what was merged, what came back and why."""

from __future__ import annotations

import flask

from agentcom.v1 import change_pb2, goal_service_pb2
from dashboard import format, pages

blueprint = flask.Blueprint("changes", __name__, url_prefix="/changes")

STATES = tuple(format.word("change", number) for number in change_pb2.Change.State.values() if number)


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """A page of changes."""
    state, repo = pages.wanted("state", STATES), pages.wanted("repo")
    caller = pages.caller()
    request = goal_service_pb2.ListChangesRequest(
        page_size=pages.PAGE_SIZE, page_token=pages.wanted("after"), filter=pages.terms(state=state, repo=repo)
    )
    found = caller.read(caller.goals.ListChanges, request)
    return flask.render_template(
        "changes.html",
        changes=found.changes,
        next=found.next_page_token,
        states=STATES,
        asked={"state": state, "repo": repo},
        command="agentcom goal changes",
    )
