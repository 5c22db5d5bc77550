"""The rules of alerts: the catalogue holds together, and an edit is taken or refused as a whole."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hub.core.alerts import rule as alert_rule
from hub.core.alerts.alert import Severity
from hub.core.alerts.rule import BY_ID, CATALOGUE, FIELDS, Edited, Setting
from kit import errors, ids

OFFLINE = BY_ID["agent-offline"]
WANTED: dict[str, Any] = {"enabled": False, "threshold": 300.0, "hold_s": 1.0, "cooldown_s": 2.0, "severity": 2}


@pytest.mark.parametrize("rule", CATALOGUE, ids=lambda rule: rule.id)
def test_a_rule_of_the_catalogue_keeps_its_own_limits(rule):
    assert ids.is_slug(rule.id) and rule.name == f"alertRules/{rule.id}" and rule.description.endswith(".")
    default = rule.default
    if rule.unit:
        assert rule.low <= default.threshold <= rule.high
    else:
        assert (default.threshold, rule.low, rule.high) == (0, 0, 0)
    assert 0 <= default.hold_s <= alert_rule.HOLD_S_MAX and 0 <= default.cooldown_s <= alert_rule.COOLDOWN_S_MAX
    wanted = {own: getattr(default, own) for own in FIELDS.values()}
    assert alert_rule.edit(rule, default, wanted, alert_rule.masked(rule, ["*"])) == default


def test_no_two_rules_share_an_id():
    assert len(BY_ID) == len(CATALOGUE)


def test_only_what_the_mask_names_is_set():
    before = OFFLINE.default
    after = alert_rule.edit(OFFLINE, before, WANTED, alert_rule.masked(OFFLINE, ["threshold", "severity"]))
    assert (after.threshold, after.severity) == (300.0, Severity.CRITICAL)
    assert (after.enabled, after.hold_s, after.cooldown_s) == (before.enabled, before.hold_s, before.cooldown_s)
    assert alert_rule.edit(OFFLINE, before, WANTED, list(FIELDS)) == Setting(
        severity=Severity.CRITICAL, enabled=False, threshold=300.0, hold_s=1.0, cooldown_s=2.0
    )


@pytest.mark.parametrize("mask", [[], ["name"], ["threshold", "etag"]])
def test_a_mask_that_names_nothing_or_what_cannot_be_set_is_refused(mask):
    with pytest.raises(errors.Invalid) as caught:
        alert_rule.masked(OFFLINE, mask)
    assert [one.field for one in caught.value.violations] == ["update_mask"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", 0.5),
        ("threshold", 2e9),
        ("threshold", math.nan),
        ("threshold", math.inf),
        ("hold_duration", -1.0),
        ("hold_duration", 604_801.0),
        ("cooldown_duration", 2_592_001.0),
        ("severity", 0),
    ],
)
def test_a_value_beyond_its_limit_is_refused_and_names_its_field(field, value):
    with pytest.raises(errors.Invalid) as caught:
        alert_rule.edit(OFFLINE, OFFLINE.default, WANTED | {FIELDS[field]: value}, [field])
    assert [one.field for one in caught.value.violations] == [f"alert_rule.{field}"]


def test_all_that_is_wrong_is_told_at_once():
    bad = {"threshold": 0.0, "hold_s": -1.0, "cooldown_s": -1.0, "severity": 0, "enabled": True}
    with pytest.raises(errors.Invalid) as caught:
        alert_rule.edit(OFFLINE, OFFLINE.default, bad, list(FIELDS))
    assert len(caught.value.violations) == 4


def test_a_rule_without_a_unit_has_no_threshold_to_set():
    rule = BY_ID["main-red"]
    assert "threshold" not in alert_rule.masked(rule, ["*"])
    with pytest.raises(errors.Invalid):
        alert_rule.edit(rule, rule.default, WANTED, ["threshold"])


def test_a_rule_that_there_is_not_is_refused():
    with pytest.raises(errors.NotFound) as caught:
        alert_rule.found("nonsense")
    assert caught.value.reason == "ALERT_RULE_NOT_FOUND"


def test_a_reset_and_an_edit_back_to_the_defaults_both_follow_later_defaults():
    edited = alert_rule.revised(OFFLINE, None, Setting(severity=Severity.WARNING, threshold=9.0), 5.0)
    assert alert_rule.in_force(OFFLINE, edited).threshold == 9.0
    for setting in (None, OFFLINE.default):
        back = alert_rule.revised(OFFLINE, edited, setting, 6.0)
        assert back == Edited(setting=None, revision=2, updated_at=6.0)
        assert alert_rule.in_force(OFFLINE, back) == OFFLINE.default
    assert [alert_rule.revision(one) for one in (None, edited, back)] == [0, 1, 2]


def test_what_is_in_force_is_the_edit_where_there_is_one():
    edited = {"disk-low": Edited(setting=Setting(severity=Severity.CRITICAL, threshold=5.0))}
    found = alert_rule.settings(edited)
    assert found["disk-low"].threshold == 5.0
    assert {id: one for id, one in found.items() if id != "disk-low"} == {
        rule.id: rule.default for rule in CATALOGUE if rule.id != "disk-low"
    }
