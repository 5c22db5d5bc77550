"""The dashboard put together: pages, security headers, errors as pages, and the hub's absence as a page."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Final

import flask
from google.protobuf import timestamp_pb2
from werkzeug import exceptions

from dashboard import format, live, pages, visitor
from dashboard.config import Config
from dashboard.hub import Caller, Hub
from dashboard.views import BLUEPRINTS
from kit import errors, logs

log = logs.get(__name__)

FORM_BYTES_MAX: Final = 64 * 1024
"""The largest form of ours is a token or a reason."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")

_STATUS: Final[dict[type[errors.Problem], int]] = {
    errors.Invalid: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.IllegalState: 409,
    errors.Conflict: 409,
    errors.Exhausted: 429,
    errors.Unavailable: 503,
}


def make(config: Config, hub: Hub | None = None) -> flask.Flask:
    """The application. `hub` for tests that bring their own connection."""
    app = flask.Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=FORM_BYTES_MAX, TRUSTED_HOSTS=[*LOOPBACK_HOSTS, *config.hosts])
    app.extensions["agentcom"] = (config, hub or Hub(config.hub), live.Seats(config.live.pages_max))
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    filters: dict[str, Callable[..., object]] = {name: getattr(format, name) for name in _FILTERS}
    filters |= {f"{kind}_word": functools.partial(format.word, kind) for kind in format.KINDS}
    app.jinja_env.filters.update(filters, keep=pages.keep, progress=pages.progress)
    app.jinja_env.globals |= {
        "SIGNS": format.SIGNS,
        "NAVIGATION": pages.NAVIGATION,
        "hub_address": config.hub.address,
        "none_stamp": timestamp_pb2.Timestamp(),
    }
    app.before_request(_begin)
    app.after_request(_end)
    app.context_processor(_context)
    app.register_error_handler(errors.Problem, _problem)
    app.register_error_handler(exceptions.HTTPException, _http)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    return app


_FILTERS: Final = (
    "tone", "short", "tail", "number", "about", "size", "seconds", "duration", "at", "ago", "between", "iso",
    "plain", "percent", "length_text", "measure", "typed", "cli", "told", "diff", "prose",
)  # fmt: skip


def _begin() -> flask.typing.ResponseReturnValue | None:
    config, hub, _ = pages.parts()
    flask.g.now = time.time()
    if flask.request.endpoint in ("static", "login.form", "login.enter"):
        return None
    token = visitor.token()
    if token is None and config.login_required:
        return flask.redirect(flask.url_for("login.form", next=_here()))
    flask.g.caller = hub.caller(token)
    if flask.request.method == "POST":
        visitor.must_be_ours()
    return None


def _end(response: flask.Response) -> flask.Response:
    config, _, _ = pages.parts()
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if flask.request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
        visitor.keep_key(response, secure=config.https)
    return response


def _context() -> dict[str, Any]:
    caller: Caller | None = flask.g.get("caller")
    return {
        "now": flask.g.get("now", time.time()),
        "proof": visitor.proof,
        "can_act": pages.can_act,
        "stale_s": lambda: caller.stale_s if caller is not None else None,
        "logged_in": visitor.token() is not None,
        "fragment": flask.request.headers.get("X-Fragment") == "main",
    }


def _problem(problem: errors.Problem) -> flask.typing.ResponseReturnValue:
    if isinstance(problem, errors.Unauthenticated) and flask.request.endpoint != "login.enter":
        return flask.redirect(flask.url_for("login.form", next=_here(), why=problem.message))
    code = next((code for kind, code in _STATUS.items() if isinstance(problem, kind)), 500)
    away = isinstance(problem, errors.Unavailable)
    page = flask.render_template("away.html" if away else "problem.html", problem=problem, code=code)
    return page, code


def _http(error: exceptions.HTTPException) -> flask.typing.ResponseReturnValue:
    if isinstance(error, exceptions.SecurityError):  # the browser means a host that is not ours: no page of ours for it
        return "this host name is not one of the dashboard's; see `hosts` in its configuration\n", 400
    problem = errors.Problem(error.description or error.name, reason=error.name.upper().replace(" ", "_"))
    return flask.render_template("problem.html", problem=problem, code=error.code), error.code or 500


def _here() -> str:
    """The path to come back to after the login."""
    return flask.request.full_path.rstrip("?") if flask.request.method == "GET" else "/"
