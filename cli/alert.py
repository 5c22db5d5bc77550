"""`agentcom alert`: what a person should look at, who looks after it, and the rules by which it is found."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import typer
from google.protobuf import field_mask_pb2

from agentcom.v1 import alert_pb2, hub_service_pb2
from cli import output, words
from cli.command import command
from cli.session import Session
from kit import errors

app = typer.Typer(help="Alerts: what a person should look at, and the rules by which it is found.")

RULES: Final = "alertRules"

Alert = Annotated[str, typer.Argument(metavar="ALERT", help="alerts/ID or ID, as `alert list` shows it")]
Rule = Annotated[str, typer.Argument(metavar="RULE", help="alertRules/ID or ID, as `alert rules` shows it")]
Target = Annotated[str, typer.Argument(metavar="ALERT", help="an alert; it need not be raised now")]
OfRule = Annotated[bool, typer.Option("--rule", help="it is a rule that is named: all of its alerts")]
Etag = Annotated[str, typer.Option("--etag", help="refuse when the rule has changed since")]

_NUMBER: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(%|[KMGT]iB)?")
_BYTES: Final = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}


def severity_text(severity: int) -> str:
    """`warning` or `critical`."""
    return words.enum_word(alert_pb2.Alert.Severity, severity, "SEVERITY_")


def state_text(one: alert_pb2.Alert) -> str:
    """Whether people were told of it, and what they have said."""
    said = []
    if one.HasField("ack"):
        said.append(f"acked by {one.ack.principal}" + (f": {one.ack.note}" if one.ack.note else ""))
    if one.HasField("mute"):
        said.append(f"muted until {words.time_text(one.mute.expire_time)}")
    return "; ".join(said) or ("told" if one.told else "not told yet")


def amount_text(value: float, unit: str) -> str:
    """A value with its unit, as people write it; empty without a unit."""
    match unit:
        case "":
            return ""
        case "seconds":
            return words.seconds_text(value)
        case "share":
            return f"{value:.0%}"
        case "bytes":
            size = next((name for name in reversed(_BYTES) if value >= _BYTES[name]), "KiB")
            return f"{value / _BYTES[size]:.4g} {size}"
        case _:
            return f"{value:.12g} {unit if value != 1 else unit.removesuffix('s')}"


ALERTS: list[output.Column[alert_pb2.Alert]] = [
    ("ALERT", lambda one: one.name.partition("/")[2]),
    ("SEVERITY", lambda one: severity_text(one.severity)),
    ("SINCE", lambda one: words.time_text(one.start_time)),
    ("STATE", state_text),
    ("WHAT", lambda one: one.message),
    ("DO", lambda one: one.advice),
]

MUTES: list[output.Column[alert_pb2.AlertMute]] = [
    ("MUTED", lambda one: one.target),
    ("UNTIL", lambda one: words.time_text(one.expire_time)),
    ("BY", lambda one: one.principal),
    ("WHY", lambda one: one.reason),
]

RULE_COLUMNS: list[output.Column[alert_pb2.AlertRule]] = [
    ("RULE", lambda one: words.short_name(one.name)),
    ("THRESHOLD", lambda one: threshold_text(one)),
    ("HELD FOR", lambda one: _span(one.hold_duration)),
    ("COOLDOWN", lambda one: _span(one.cooldown_duration)),
    ("SEVERITY", lambda one: severity_text(one.severity)),
    ("IS", lambda one: rule_state_text(one)),
    ("RAISED", lambda one: str(one.alert_count or "")),
    ("WATCHES", lambda one: one.description),
]


def threshold_text(one: alert_pb2.AlertRule) -> str:
    """The threshold with its unit; empty where there is none."""
    if not one.unit:
        return ""
    return f"{'below' if one.below else 'from'} {amount_text(one.threshold, one.unit)}"


def rule_state_text(one: alert_pb2.AlertRule) -> str:
    """Whether it is in use, and as it was made."""
    if not one.enabled:
        return "disabled"
    muted = f"muted until {words.time_text(one.mute.expire_time)}" if one.HasField("mute") else ""
    return muted or ("edited" if one.HasField("update_time") else "default")


@command(app, "list")
async def list_alerts(session: Session) -> None:
    """Show what a person should look at now, the most urgent first."""
    reply = await session.call(session.hub.ListAlerts, hub_service_pb2.ListAlertsRequest())
    session.output.many(list(reply.alerts), ALERTS, empty="nothing")


@command(app, "ack")
async def ack(
    session: Session,
    name: Alert,
    note: Annotated[str, typer.Option("--note", help="what to say about it")] = "",
) -> None:
    """Say that you have seen it and look after it."""
    ask = hub_service_pb2.AckAlertRequest(name=words.full_name("alerts", name), note=note)
    reply = await session.call(session.hub.AckAlert, ask, again=False)
    session.output.one(reply.alert, lambda one: output.cell(f"{one.name} is {state_text(one)}"))


@command(app, "mute")
async def mute(
    session: Session,
    name: Target,
    duration: Annotated[str, typer.Option("--for", help="how long: 30m, 8h, 7d; at most 90d")],
    of_rule: OfRule = False,
    reason: Annotated[str, typer.Option("--reason", help="why")] = "",
) -> None:
    """Tell nobody of an alert, or of all alerts of a rule, for a time; they are still listed."""
    ask = hub_service_pb2.MuteAlertRequest(name=_target(name, of_rule=of_rule), reason=reason)
    ask.duration.CopyFrom(words.duration("--for", duration))
    reply = await session.call(session.hub.MuteAlert, ask, again=False)
    session.output.one(
        reply.mute, lambda one: output.cell(f"{one.target} is muted until {words.time_text(one.expire_time)}")
    )


@command(app, "unmute")
async def unmute(session: Session, name: Target, of_rule: OfRule = False) -> None:
    """End a mute before its time."""
    ask = hub_service_pb2.UnmuteAlertRequest(name=_target(name, of_rule=of_rule))
    reply = await session.call(session.hub.UnmuteAlert, ask, again=False)
    session.output.one(reply.mute, lambda one: output.cell(f"{one.target} is not muted any more"))


@command(app, "mutes")
async def mutes(session: Session) -> None:
    """Show what is muted, also of what is not raised now."""
    reply = await session.call(session.hub.ListAlerts, hub_service_pb2.ListAlertsRequest())
    session.output.many(list(reply.mutes), MUTES, empty="nothing is muted")


@command(app, "rules")
async def rules(session: Session) -> None:
    """Show all rules, with their thresholds and times."""
    session.output.many(await _rules(session), RULE_COLUMNS)


@command(app, "set")
async def set_rule(
    session: Session,
    name: Rule,
    threshold: Annotated[
        str, typer.Option("--threshold", help="a number in the rule's unit; or 10m, 80%, 2GiB where that is its unit")
    ] = "",
    hold: Annotated[str, typer.Option("--hold", help="how long it must be so before it is raised: 0s, 5m")] = "",
    cooldown: Annotated[str, typer.Option("--cooldown", help="how long it is not told again: 0s, 1h, 7d")] = "",
    severity: Annotated[str, typer.Option("--severity", help="warning, critical")] = "",
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="whether it raises anything")] = None,
    etag: Etag = "",
) -> None:
    """Change what is given of a rule; in force at once, and kept."""
    rule, paths = alert_pb2.AlertRule(name=words.full_name(RULES, name), etag=etag), []
    if threshold:
        rule.threshold = await _threshold(session, rule.name, threshold)
        paths.append("threshold")
    for field, option, text in (("hold_duration", "--hold", hold), ("cooldown_duration", "--cooldown", cooldown)):
        if text:
            getattr(rule, field).CopyFrom(words.duration(option, text))
            paths.append(field)
    if severity:
        rule.severity = words.enum_number("--severity", severity, alert_pb2.Alert.Severity, "SEVERITY_")
        paths.append("severity")
    if enabled is not None:
        rule.enabled = enabled
        paths.append("enabled")
    if not paths:
        raise errors.Invalid.of("request", "nothing to change is given")
    ask = hub_service_pb2.UpdateAlertRuleRequest(
        alert_rule=rule, update_mask=field_mask_pb2.FieldMask(paths=sorted(paths))
    )
    reply = await session.call(session.hub.UpdateAlertRule, ask, again=False)
    session.output.one(reply.alert_rule, _sheet)


@command(app, "reset")
async def reset(session: Session, name: Rule, etag: Etag = "") -> None:
    """Give a rule its defaults back."""
    ask = hub_service_pb2.ResetAlertRuleRequest(name=words.full_name(RULES, name), etag=etag)
    reply = await session.call(session.hub.ResetAlertRule, ask, again=False)
    session.output.one(reply.alert_rule, _sheet)


def _target(name: str, *, of_rule: bool) -> str:
    """What is muted: the hub-wide alert of a rule has the rule's own id, so a rule must be said to be one."""
    return words.full_name(RULES, name) if of_rule or name.startswith(f"{RULES}/") else words.full_name("alerts", name)


async def _rules(session: Session) -> list[alert_pb2.AlertRule]:
    reply = await session.call(session.hub.ListAlertRules, hub_service_pb2.ListAlertRulesRequest())
    return list(reply.alert_rules)


async def _threshold(session: Session, rule: str, text: str) -> float:
    """A plain number is in the rule's unit; one with a unit must be of that kind. Raises Invalid."""
    match = _NUMBER.fullmatch(text.strip())
    if match is not None and not match[2]:
        return float(match[1])
    unit = next((one.unit for one in await _rules(session) if one.name == rule), "")
    if match is not None and match[2] == "%" and unit == "share":
        return float(match[1]) / 100
    if match is not None and match[2] in _BYTES and unit == "bytes":
        return float(match[1]) * _BYTES[match[2]]
    if unit == "seconds":
        return words.duration("--threshold", text).ToNanoseconds() / 1e9
    wanted = f"must be a number of {unit}" if unit else "is not to be set: the rule has no unit"
    raise errors.Invalid.of("--threshold", f"{wanted}, not {text!r}")


def _sheet(one: alert_pb2.AlertRule) -> Any:
    default = one.defaults
    return output.sheet(
        [
            ("rule", one.name),
            ("watches", one.description),
            ("is", rule_state_text(one)),
            ("threshold", _beside(threshold_text(one), amount_text(default.threshold, one.unit))),
            ("held for", _beside(_span(one.hold_duration), _span(default.hold_duration))),
            ("cooldown", _beside(_span(one.cooldown_duration), _span(default.cooldown_duration))),
            ("severity", _beside(severity_text(one.severity), severity_text(default.severity))),
            ("raised now", str(one.alert_count)),
            ("edited", words.time_text(one.update_time)),
            ("etag", one.etag),
        ]
    )


def _beside(value: str, default: str) -> str:
    return f"{value} (default {default})" if value else ""


def _span(duration: Any) -> str:
    seconds = duration.ToNanoseconds() / 1e9
    return words.seconds_text(seconds) if seconds else "0"
