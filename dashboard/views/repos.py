"""Repos: where the fleet works."""

from __future__ import annotations

import flask

from agentcom.v1 import registry_service_pb2
from dashboard import pages
from kit import errors

blueprint = flask.Blueprint("repos", __name__, url_prefix="/repos")


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """A page of repos."""
    caller = pages.caller()
    request = registry_service_pb2.ListReposRequest(page_size=pages.PAGE_SIZE, page_token=pages.wanted("after"))
    found = caller.read(caller.registry.ListRepos, request)
    return flask.render_template(
        "repos.html", repos=found.repos, next=found.next_page_token, asked={}, command="agentcom repo list"
    )


@blueprint.post("/<id>/<verb>")
def act(id: str, verb: str) -> flask.typing.ResponseReturnValue:
    """Pause or resume its work."""
    caller, name = pages.caller(), f"repos/{id}"
    if verb == "pause":
        caller.act(caller.registry.PauseRepo, registry_service_pb2.PauseRepoRequest(name=name))
        return pages.done(f"{id} is paused", endpoint="repos.page")
    if verb == "resume":
        caller.act(caller.registry.ResumeRepo, registry_service_pb2.ResumeRepoRequest(name=name))
        return pages.done(f"{id} goes on", endpoint="repos.page")
    raise errors.NotFound(f"there is no action {verb[:40]!r}")
