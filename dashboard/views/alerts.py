"""Alerts: what is raised, what is quiet, the rules behind it, and what was raised before."""

from __future__ import annotations

import math
import re
from typing import Any, Final, NamedTuple

import flask
from google.protobuf import duration_pb2, field_mask_pb2

from agentcom.v1 import alert_pb2, hub_service_pb2
from dashboard import format, pages
from kit import errors

blueprint = flask.Blueprint("alerts", __name__, url_prefix="/alerts")

HISTORY: Final = 25
"""Events on the page; the rest is a link away."""

MUTES: Final = {"1 hour": "1h", "4 hours": "4h", "1 day": "1d", "7 days": "7d", "30 days": "30d"}
"""For how long something can be muted by a press; the command takes any time up to 90 days."""

SEVERITIES: Final = ("warning", "critical")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([KMGTkmgt])(i?)B?")
_LENGTH = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd]?)")


class Row(NamedTuple):
    """One alert with what its page needs to know besides."""

    alert: alert_pb2.Alert
    measured: str
    """What was measured against what; empty where there is nothing to measure."""


@blueprint.get("/")
def page() -> flask.typing.ResponseReturnValue:
    """Everything about alerts."""
    caller = pages.caller()
    raised = caller.read_if_open(caller.hub.ListAlerts, hub_service_pb2.ListAlertsRequest())
    rules = caller.read_if_open(caller.hub.ListAlertRules, hub_service_pb2.ListAlertRulesRequest())
    told = caller.read_if_open(
        caller.hub.ListEvents, hub_service_pb2.ListEventsRequest(type_prefix="alert", page_size=HISTORY)
    )
    alerts = list(raised.alerts) if raised is not None else []
    return flask.render_template(
        "alerts.html",
        rows=[Row(alert, measured(alert)) for alert in sorted(alerts, key=_quiet)],
        mutes=raised.mutes if raised is not None else [],
        rules=rules.alert_rules if rules is not None else [],
        events=told.events if told is not None else [],
        more_events=told is not None and bool(told.next_page_token),
        lengths=MUTES,
        command="agentcom alert list",
    )


@blueprint.get("/rules/<id>")
def rule(id: str) -> flask.typing.ResponseReturnValue:
    """One rule, to be read or edited."""
    caller, found = pages.caller(), _rule(id)
    told = caller.read_if_open(
        caller.hub.ListEvents, hub_service_pb2.ListEventsRequest(subject=found.name, page_size=HISTORY)
    )
    return flask.render_template(
        "rule.html",
        rule=found,
        severities=SEVERITIES,
        lengths=MUTES,
        events=told.events if told is not None else [],
    )


@blueprint.post("/ack")
def acknowledge() -> flask.typing.ResponseReturnValue:
    """Say that somebody looks after it."""
    caller, name = pages.caller(), _name()
    request = hub_service_pb2.AckAlertRequest(name=name, note=flask.request.form.get("reason", "")[:500])
    caller.act(caller.hub.AckAlert, request)
    return pages.done(f"{format.short(name)} is acknowledged", endpoint="alerts.page")


@blueprint.post("/mute")
def mute() -> flask.typing.ResponseReturnValue:
    """Tell nobody of it for a time."""
    caller, name = pages.caller(), _name()
    length = flask.request.form.get("length", "")
    request = hub_service_pb2.MuteAlertRequest(name=name, reason=flask.request.form.get("reason", "")[:500])
    request.duration.CopyFrom(read_length("length", length))
    caller.act(caller.hub.MuteAlert, request)
    return _back(name, f"{format.short(name)} is muted for {length}")


@blueprint.post("/unmute")
def unmute() -> flask.typing.ResponseReturnValue:
    """Tell of it again."""
    caller, name = pages.caller(), _name()
    caller.act(caller.hub.UnmuteAlert, hub_service_pb2.UnmuteAlertRequest(name=name))
    return _back(name, f"{format.short(name)} is told of again")


@blueprint.post("/rules/<id>")
def edit(id: str) -> flask.typing.ResponseReturnValue:
    """Set the fields of a rule to what the form says."""
    caller, form = pages.caller(), flask.request.form
    wanted = alert_pb2.AlertRule(name=f"alertRules/{id}", etag=form.get("etag", "")[:64])
    wanted.enabled = bool(form.get("enabled"))
    severity = form.get("severity", "")
    if severity not in SEVERITIES:
        raise errors.Invalid.of("severity", f"must be one of {', '.join(SEVERITIES)}, not {severity[:40]!r}")
    wanted.severity = alert_pb2.Alert.Severity.Value(f"SEVERITY_{severity.upper()}")
    paths = ["enabled", "severity", "hold_duration", "cooldown_duration"]
    wanted.hold_duration.CopyFrom(read_length("hold_duration", form.get("hold_duration", "")))
    wanted.cooldown_duration.CopyFrom(read_length("cooldown_duration", form.get("cooldown_duration", "")))
    if "threshold" in form:
        wanted.threshold = read_threshold(form.get("unit", ""), form["threshold"])
        paths.append("threshold")
    request = hub_service_pb2.UpdateAlertRuleRequest(
        alert_rule=wanted, update_mask=field_mask_pb2.FieldMask(paths=paths)
    )
    caller.act(caller.hub.UpdateAlertRule, request)
    return pages.done("in force from the next look on", endpoint="alerts.rule", id=id)


@blueprint.post("/rules/<id>/reset")
def reset(id: str) -> flask.typing.ResponseReturnValue:
    """Give it its defaults back."""
    caller = pages.caller()
    request = hub_service_pb2.ResetAlertRuleRequest(
        name=f"alertRules/{id}", etag=flask.request.form.get("etag", "")[:64]
    )
    caller.act(caller.hub.ResetAlertRule, request)
    return pages.done("it has its defaults again", endpoint="alerts.rule", id=id)


def measured(alert: alert_pb2.Alert) -> str:
    """`12 m 00 s, threshold 10 m 00 s`; empty where there is nothing to measure."""
    if not alert.unit:
        return ""
    return f"{format.measure(alert.value, alert.unit)}, threshold {format.measure(alert.threshold, alert.unit)}"


def read_length(field: str, text: str) -> duration_pb2.Duration:
    """`90`, `90s`, `15m`, `2h` or `1d`. Raises Invalid."""
    found = _LENGTH.fullmatch(text.strip().lower())
    if found is None:
        raise errors.Invalid.of(field, f"is a length of time such as 90s, 15m, 2h or 1d, not {text[:40]!r}")
    made = duration_pb2.Duration()
    made.FromMilliseconds(round(float(found[1]) * _UNIT_S[found[2] or "s"] * 1000))
    return made


def read_threshold(unit: str, text: str) -> float:
    """A number; a share also in per cent, seconds also as a length of time, bytes also as 256MiB. Raises Invalid."""
    text = text.strip()
    if unit == "seconds":
        return read_length("threshold", text).ToMilliseconds() / 1000
    sized = _SIZE.fullmatch(text) if unit == "bytes" else None
    try:
        if sized is not None:
            step, power = 1024.0 if sized[3] else 1000.0, "KMGT".index(sized[2].upper()) + 1
            return float(sized[1]) * math.pow(step, power)
        value = float(text.rstrip("% ")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise errors.Invalid.of("threshold", f"is a number of {unit or 'something'}, not {text[:40]!r}")
    return value


def _rule(id: str) -> alert_pb2.AlertRule:
    caller, name = pages.caller(), f"alertRules/{id}"
    known: Any = caller.read(caller.hub.ListAlertRules, hub_service_pb2.ListAlertRulesRequest()).alert_rules
    for one in known:
        if one.name == name:
            return one  # type: ignore[no-any-return]  # the stubs do not say what a call returns
    raise errors.NotFound(f"alert rule {name[:80]} is not there")


def _name() -> str:
    return flask.request.form.get("name", "")[:200]


def _back(name: str, message: str) -> flask.typing.ResponseReturnValue:
    """To the page from which it was asked: a rule's own, or that of all alerts."""
    if flask.request.form.get("from") == "rule" and name.startswith("alertRules/"):
        return pages.done(message, endpoint="alerts.rule", id=format.short(name))
    return pages.done(message, endpoint="alerts.page")


def _quiet(alert: alert_pb2.Alert) -> tuple[bool, bool]:
    """Those that nobody looks after stand first; among them the hub's order stays."""
    return alert.HasField("ack"), alert.HasField("mute")
