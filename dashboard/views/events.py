"""Events: everything that happened, newest first."""

from __future__ import annotations

import flask

from agentcom.v1 import hub_service_pb2
from dashboard import pages

blueprint = flask.Blueprint("events", __name__, url_prefix="/events")

PREFIXES = (
    "task.", "goal.", "agent.", "change.", "repo.", "hub.", "token.", "alert.",
    "alert_rule.", "violator.", "intake.", "push.",
)  # fmt: skip


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """A page of events."""
    prefix, subject = pages.wanted("type", PREFIXES), pages.wanted("subject")
    caller = pages.caller()
    request = hub_service_pb2.ListEventsRequest(
        page_size=pages.PAGE_SIZE, page_token=pages.wanted("after"), type_prefix=prefix, subject=subject
    )
    found = caller.read(caller.hub.ListEvents, request)
    return flask.render_template(
        "events.html",
        events=found.events,
        next=found.next_page_token,
        prefixes=PREFIXES,
        asked={"type": prefix, "subject": subject},
        command=pages.command("hub history", type=prefix, about=subject),
    )
