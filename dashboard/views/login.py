"""In and out."""

from __future__ import annotations

import flask

from agentcom.v1 import hub_service_pb2
from dashboard import pages, visitor
from kit import errors, tokens

blueprint = flask.Blueprint("login", __name__)


@blueprint.get("/login")
def form() -> flask.typing.ResponseReturnValue:
    """Asks for a token."""
    return flask.render_template("login.html", next=_next(), why=flask.request.args.get("why", ""))


@blueprint.post("/login")
def enter() -> flask.typing.ResponseReturnValue:
    """Takes a token that the hub knows."""
    visitor.must_be_ours()
    config, hub, _ = pages.parts()
    secret = flask.request.form.get("token", "").strip()
    try:
        if not tokens.is_token(secret):
            raise errors.Unauthenticated("this is not a token: it begins with act_ and has 47 characters")
        caller = hub.caller(secret)
        caller.act(caller.hub.GetHub, hub_service_pb2.GetHubRequest())
    except (errors.Unauthenticated, errors.Forbidden) as problem:
        return flask.render_template("login.html", next=_next(), why=problem.message), 401
    response = flask.make_response(flask.redirect(_next(), code=303))
    visitor.remember(response, secret, secure=config.https)
    return response


@blueprint.post("/logout")
def leave() -> flask.typing.ResponseReturnValue:
    """Forgets the token in this browser."""
    config, _, _ = pages.parts()
    response = flask.make_response(flask.redirect(flask.url_for("login.form"), code=303))
    visitor.remember(response, None, secure=config.https)
    return response


def _next() -> str:
    """Where to go afterwards: a path of ours only."""
    path = flask.request.values.get("next", "/")
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
