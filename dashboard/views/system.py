"""System: the store, its backups, the versions, and the examination."""

from __future__ import annotations

import flask

from agentcom.v1 import hub_service_pb2
from dashboard import pages
from kit import errors, version

blueprint = flask.Blueprint("system", __name__, url_prefix="/system")

FRAGMENT = "X-Fragment"
"""Sent by a page that asks for itself again."""
BACKUPS = 20
"""Backups on the page: more than are kept by default."""


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """How the hub itself is."""
    caller = pages.caller()
    hub = caller.read(caller.hub.GetHub, hub_service_pb2.GetHubRequest()).hub
    stats = caller.read(caller.hub.GetStats, hub_service_pb2.GetStatsRequest()).stats
    kept = caller.read_if_open(caller.hub.ListBackups, hub_service_pb2.ListBackupsRequest(page_size=BACKUPS))
    # An examination costs the hub a sync and some looks: once a load of the page, and not whenever something changes.
    again = flask.request.headers.get(FRAGMENT) is not None
    examined = None if again else caller.read_if_open(caller.hub.DiagnoseHub, hub_service_pb2.DiagnoseHubRequest())
    return flask.render_template(
        "system.html",
        hub=hub,
        stats=stats,
        backups=kept.backups if kept is not None else [],
        diagnoses=examined.diagnoses if examined is not None else [],
        examined=examined is not None or (again and pages.can_act()),
        own_version=version.VERSION,
        version_warning=version.warning(version.Node("hub", hub.version), version.Node("dashboard", version.VERSION)),
        command="agentcom hub doctor",
    )


@blueprint.post("/<verb>")
def act(verb: str) -> flask.typing.ResponseReturnValue:
    """Pause, resume, back up."""
    caller, reason = pages.caller(), flask.request.form.get("reason", "")[:500]
    match verb:
        case "pause":
            caller.act(caller.hub.PauseHub, hub_service_pb2.PauseHubRequest(reason=reason))
            return pages.done("paused: nothing is assigned", endpoint="system.page")
        case "resume":
            caller.act(caller.hub.ResumeHub, hub_service_pb2.ResumeHubRequest())
            return pages.done("work is assigned again", endpoint="system.page")
        case "backup":
            made = caller.act(caller.hub.CreateBackup, hub_service_pb2.CreateBackupRequest()).backup
            return pages.done(f"{made.name} is written and verified", endpoint="system.page")
        case _:
            raise errors.NotFound(f"there is no action {verb[:40]!r}")
