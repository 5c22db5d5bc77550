"""Alerts: what a person should look at now."""

from __future__ import annotations

import flask

from agentcom.v1 import hub_service_pb2
from dashboard import pages

blueprint = flask.Blueprint("alerts", __name__, url_prefix="/alerts")


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """All that are raised."""
    caller = pages.caller()
    raised = caller.read_if_open(caller.hub.ListAlerts, hub_service_pb2.ListAlertsRequest())
    return flask.render_template(
        "alerts.html", alerts=raised.alerts if raised is not None else [], command="agentcom hub alerts"
    )
