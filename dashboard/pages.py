"""What every page needs: the parts of the application, the caller of this request, and the way around."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib import parse

import flask
from markupsafe import Markup

from agentcom.v1 import goal_pb2, hub_pb2, hub_service_pb2
from dashboard import chart
from dashboard.config import Config
from dashboard.hub import Caller, Hub
from dashboard.live import Seats
from kit import errors

PAGE_SIZE: Final = 50
"""Rows of a list."""


class Entry(NamedTuple):
    """One entry of the navigation."""

    endpoint: str
    label: str
    key: str
    """Pressed after `g`."""


class Group(NamedTuple):
    """Entries that belong together. A later page (approvals: work; endpoints: fleet; cost: hub) joins one."""

    label: str
    entries: tuple[Entry, ...]


NAVIGATION: Final = (
    Group("", (Entry("overview.page", "Overview", "o"),)),
    Group(
        "Work",
        (
            Entry("goals.page", "Goals", "g"),
            Entry("tasks.page", "Tasks", "t"),
            Entry("changes.page", "Changes", "c"),
            Entry("dead.page", "Dead letters", "d"),
        ),
    ),
    Group("Fleet", (Entry("agents.page", "Agents", "a"), Entry("repos.page", "Repos", "r"))),
    Group(
        "Hub",
        (
            Entry("alerts.page", "Alerts", "l"),
            Entry("events.page", "Events", "e"),
            Entry("system.page", "System", "s"),
        ),
    ),
)


def parts() -> tuple[Config, Hub, Seats]:
    """Configuration, connection and seats of this application."""
    found: tuple[Config, Hub, Seats] = flask.current_app.extensions["agentcom"]
    return found


def caller() -> Caller:
    """The hub, as the one who looks."""
    found: Caller = flask.g.caller
    return found


def can_act() -> bool:
    """May the visitor act? A viewer's pages have no buttons; the hub refuses in any case."""
    if "can_act" not in flask.g:
        asker = caller()
        who = asker.read_if_open(asker.hub.GetCaller, hub_service_pb2.GetCallerRequest())
        flask.g.can_act = who is None or who.scope in (hub_pb2.SCOPE_ADMIN, hub_pb2.SCOPE_OPERATOR)
    return bool(flask.g.can_act)


def wanted(name: str, choices: tuple[str, ...] = ()) -> str:
    """A word of the query, "" when it is absent. Raises Invalid when it is none of the choices."""
    text = flask.request.args.get(name, "").strip()
    if text and choices and text not in choices:
        raise errors.Invalid.of(name, f"must be one of {', '.join(choices)}, not {text[:40]!r}")
    return text


def terms(**values: str) -> str:
    """A filter of the contract from what was asked for; empty values are left out."""
    return " AND ".join(f'{name} = "{_quoted(value)}"' for name, value in values.items() if value)


def command(words: str, **options: str) -> str:
    """A command line that asks for the same; empty options are left out."""
    given = [f"--{name} {shlex.quote(value)}" for name, value in options.items() if value]
    return " ".join(["agentcom", words, *given])


def done(message: str, **where: Any) -> flask.typing.ResponseReturnValue:
    """Back to a page after an action, which then says what was done."""
    endpoint = where.pop("endpoint")
    return flask.redirect(flask.url_for(endpoint, done=message, **where), code=303)


def keep(asked: Mapping[str, str], **more: str) -> str:
    """The query that asks for the same again, with `more`."""
    return parse.urlencode({name: value for name, value in {**asked, **more}.items() if value})


def progress(goal: goal_pb2.Goal) -> Markup:
    """How far a goal is, as a bar."""
    counts = goal.task_counts
    parts = [
        chart.Part("done", counts.succeeded, "good"),
        chart.Part("moving", counts.active, "busy"),
        chart.Part("failed", counts.failed, "bad"),
        chart.Part("waiting", counts.waiting, "wait"),
    ]
    return chart.bar(parts, title="tasks")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
