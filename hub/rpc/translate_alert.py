"""Alerts, mutes and rules: from the records to the wire, and what an edit asks for."""

from __future__ import annotations

from typing import Any

from agentcom.v1 import alert_pb2
from hub.core.alerts import alert
from hub.core.alerts.alert import Mute
from hub.core.alerts.rule import Setting
from hub.engine.alerts.desk import Shown, ShownRule
from hub.rpc import translate


def write_alert(shown: Shown, into: alert_pb2.Alert) -> None:
    """Fill an alert."""
    one = shown.alert
    into.name = f"{alert.COLLECTION}/{one.id}"
    into.severity = one.severity  # type: ignore[assignment]  # the numbers are the same
    into.message = one.message
    into.advice = one.advice
    translate.write_time(one.since, into.start_time)
    into.rule = f"{alert.RULES}/{one.rule}"
    into.subject = one.subject
    into.unit = one.unit
    if one.unit:
        into.value = one.value
        into.threshold = one.threshold
    if one.ack is not None:
        into.ack.principal = one.ack.principal
        into.ack.note = one.ack.note
        translate.write_time(one.ack.at, into.ack.create_time)
    if shown.mute is not None:
        write_mute(shown.mute, into.mute)
    into.told = one.is_told


def write_mute(mute: Mute, into: alert_pb2.AlertMute) -> None:
    """Fill a mute."""
    into.target = mute.target
    into.principal = mute.principal
    into.reason = mute.reason
    translate.write_time(mute.at, into.create_time)
    translate.write_time(mute.expires_at, into.expire_time)


def write_rule(shown: ShownRule, into: alert_pb2.AlertRule) -> None:
    """Fill a rule."""
    rule = shown.rule
    into.name = rule.name
    into.description = rule.description
    into.unit = rule.unit
    _write_setting(shown.setting, into)
    _write_setting(rule.default, into.defaults)
    into.below = rule.below
    into.threshold_min, into.threshold_max = rule.low, rule.high
    if shown.mute is not None:
        write_mute(shown.mute, into.mute)
    translate.write_time(shown.updated_at, into.update_time)
    into.etag = str(shown.revision)
    into.alert_count = shown.alert_count


def read_setting(message: alert_pb2.AlertRule) -> dict[str, Any]:
    """What an edit asks for, by the names of the setting; which of it counts is said by the mask."""
    return {
        "enabled": message.enabled,
        "threshold": message.threshold,
        "hold_s": translate.read_duration(message.hold_duration),
        "cooldown_s": translate.read_duration(message.cooldown_duration),
        "severity": int(message.severity),
    }


def _write_setting(setting: Setting, into: alert_pb2.AlertRule | alert_pb2.AlertRule.Defaults) -> None:
    into.enabled = setting.enabled
    into.threshold = setting.threshold
    translate.write_duration(setting.hold_s, into.hold_duration)
    translate.write_duration(setting.cooldown_s, into.cooldown_duration)
    into.severity = setting.severity  # type: ignore[assignment]  # the numbers are the same
