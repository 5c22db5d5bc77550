"""The page of alerts: what is raised, acknowledged, muted; the rules, read and edited."""

from __future__ import annotations

import math
import re

import pytest

from agentcom.v1 import alert_pb2, hub_pb2, hub_service_pb2
from dashboard.views import alerts
from kit import clock, errors
from tests.dashboard.conftest import Browser
from tests.support import hub as hubs

RULE = "oldest-task"
ALERT = f"alerts/{RULE}"


@pytest.fixture
async def caller(tmp_path):
    async with hubs.running(tmp_path, parts={"clock": clock.ManualClock()}) as made:
        yield made


async def rule_of(caller, id=RULE):
    rules = (await caller.hubs.ListAlertRules(hub_service_pb2.ListAlertRulesRequest())).alert_rules
    return next(one for one in rules if one.name == f"alertRules/{id}")


async def listed(caller):
    return await caller.hubs.ListAlerts(hub_service_pb2.ListAlertsRequest())


async def raised(caller):
    """One alert: a task waits longer than the rule, brought down to the least, allows."""
    await caller.task("waits for nobody")
    wanted = alert_pb2.AlertRule(name=f"alertRules/{RULE}", threshold=1.0)
    wanted.hold_duration.FromSeconds(0)
    request = hub_service_pb2.UpdateAlertRuleRequest(alert_rule=wanted)
    request.update_mask.paths.extend(["threshold", "hold_duration"])
    await caller.hubs.UpdateAlertRule(request)
    caller.hub.ctx.clock.advance(10)
    await caller.hub.upkeep.board.run_once(caller.hub.ctx.clock.now())


def form(page, action):
    """The fields of a form of a page, as a browser would send them."""
    found = re.search(rf'<form[^>]*action="{re.escape(action)}".*?</form>', page, re.DOTALL)
    assert found is not None
    fields = {}
    for tag in re.findall(r"<input[^>]*>", found[0]):
        name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
        if name and not ('type="checkbox"' in tag and " checked" not in tag):
            fields[name[1]] = value[1] if value else ""
    chosen = re.search(r'<select name="severity">.*?<option selected>(\w+)', found[0], re.DOTALL)
    return fields | ({"severity": chosen[1]} if chosen else {})


async def test_an_alert_is_acknowledged_with_a_word_and_the_page_says_who_and_what(browser, caller):
    await raised(caller)
    page = (await browser.get("/alerts/")).text
    assert 'id="oldest-task"' in page
    assert "threshold 1 s" in page
    reply = await browser.post("/alerts/ack", {"name": ALERT, "reason": "I look after it"})
    assert reply.status_code == 303
    page = (await browser.get(reply.headers["Location"])).text
    assert "acknowledged by local" in page
    assert "I look after it" in page
    assert (await listed(caller)).alerts[0].ack.note == "I look after it"


async def test_an_alert_is_muted_for_a_time_and_told_of_again(browser, caller):
    await raised(caller)
    reply = await browser.post("/alerts/mute", {"name": ALERT, "length": "4h", "reason": "deploy"})
    assert reply.status_code == 303
    (mute,) = (await listed(caller)).mutes
    assert (mute.target, mute.reason) == (ALERT, "deploy")
    assert mute.expire_time.seconds - mute.create_time.seconds == 4 * 3600
    assert "Unmute" in (await browser.get("/alerts/")).text
    assert (await browser.post("/alerts/unmute", {"name": ALERT})).status_code == 303
    assert not (await listed(caller)).mutes


async def test_a_rule_is_muted_from_its_own_page_and_leads_back_there(browser, caller):
    name = f"alertRules/{RULE}"
    reply = await browser.post("/alerts/mute", {"name": name, "length": "1d", "from": "rule"})
    assert reply.headers["Location"].startswith(f"/alerts/rules/{RULE}")
    assert "muted by local" in (await browser.get(f"/alerts/rules/{RULE}")).text


async def test_a_rule_is_edited_and_given_its_defaults_back(browser, caller):
    path = f"/alerts/rules/{RULE}"
    fields = form((await browser.get(path)).text, path)
    assert (fields["threshold"], fields["hold_duration"], fields["enabled"]) == ("1h", "1m", "1")
    wanted = {**fields, "threshold": "90s", "hold_duration": "0", "cooldown_duration": "2h", "severity": "critical"}
    assert (await browser.post(path, wanted)).status_code == 303
    rule = await rule_of(caller)
    assert (rule.threshold, rule.hold_duration.seconds, rule.cooldown_duration.seconds) == (90.0, 0, 7200)
    assert rule.severity == alert_pb2.Alert.SEVERITY_CRITICAL
    assert rule.enabled
    page = (await browser.get("/alerts/")).text
    assert "edited" in page
    fresh = form((await browser.get(path)).text, f"{path}/reset")
    assert (await browser.post(f"{path}/reset", fresh)).status_code == 303
    assert (await rule_of(caller)).threshold == 3600.0


async def test_an_unticked_box_turns_a_rule_off_and_one_without_threshold_is_edited_without(browser, caller):
    path = "/alerts/rules/no-agents"
    fields = form((await browser.get(path)).text, path)
    assert "threshold" not in fields
    del fields["enabled"]
    assert (await browser.post(path, fields)).status_code == 303
    assert not (await rule_of(caller, "no-agents")).enabled
    assert "off" in (await browser.get("/alerts/")).text


async def test_a_form_that_is_older_than_the_rule_changes_nothing(browser, caller):
    path = f"/alerts/rules/{RULE}"
    old = form((await browser.get(path)).text, path)
    assert (await browser.post(path, {**old, "threshold": "2h"})).status_code == 303
    assert (await browser.post(path, {**old, "threshold": "5h"})).status_code == 409
    assert (await rule_of(caller)).threshold == 7200.0


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": "soon"}, {"threshold": "-3"}, {"threshold": "nan"}, {"hold_duration": "8d"}, {"severity": "mild"}],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(browser, caller, wrong):
    path = f"/alerts/rules/{RULE}"
    fields = form((await browser.get(path)).text, path)
    reply = await browser.post(path, {**fields, **wrong})
    assert reply.status_code == 400
    assert next(iter(wrong)) in reply.text
    assert (await rule_of(caller)).threshold == 3600.0


@pytest.mark.parametrize("path", ["/alerts/rules/nothing", "/alerts/rules/X"])
async def test_a_rule_that_is_not_there_is_a_404(browser, path):
    assert (await browser.get(path)).status_code == 404


async def test_an_alert_that_is_not_there_is_a_404(browser):
    assert (await browser.post("/alerts/ack", {"name": "alerts/nothing"})).status_code == 404


async def test_the_history_tells_what_was_raised_and_edited(browser, caller):
    await raised(caller)
    page = (await browser.get("/alerts/")).text
    assert "alert.raised" in page
    assert "alert_rule.updated" in page
    assert "alert_rule.updated" in (await browser.get(f"/alerts/rules/{RULE}")).text


async def test_a_viewer_sees_alerts_and_rules_and_has_no_buttons(tmp_path):
    async with hubs.running(tmp_path, auth__required=True, parts={"clock": clock.ManualClock()}) as guarded:
        secret = (guarded.hub.config.data / "admin.token").read_text().strip()
        async with hubs.as_token(guarded.hub, secret) as admin:
            await raised(admin)
            ask = hub_service_pb2.CreateTokenRequest(scope=hub_pb2.SCOPE_VIEWER)
            viewer = (await admin.hubs.CreateToken(ask)).secret
        browser = Browser(guarded.hub.address)
        try:
            browser.show(viewer)
            page = (await browser.get("/alerts/")).text
            assert 'id="oldest-task"' in page
            assert "Acknowledge" not in page
            assert "<button>Mute" not in page
            assert "<fieldset disabled>" in (await browser.get(f"/alerts/rules/{RULE}")).text
            assert (await browser.post("/alerts/ack", {"name": ALERT})).status_code == 403
        finally:
            browser.close()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400), (" 15 M ", 900)]
)
def test_a_length_of_time_is_read(text, seconds):
    assert alerts.read_length("x", text).ToMilliseconds() == seconds * 1000


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1e9", "9999999999s", "h"])
def test_what_is_no_length_of_time_is_refused_by_its_field(text):
    with pytest.raises(errors.Invalid) as caught:
        alerts.read_length("cooldown_duration", text)
    assert caught.value.violations[0].field == "cooldown_duration"


@pytest.mark.parametrize(
    ("unit", "text", "value"),
    [
        ("tasks", "7", 7), ("share", "35%", 0.35), ("share", "0.35", 0.35), ("seconds", "2m", 120),
        ("bytes", "256MiB", 2**28), ("bytes", "2 GB", 2e9), ("bytes", "1000", 1000), ("intervals", "2.5", 2.5),
    ],
)  # fmt: skip
def test_a_threshold_is_read_in_its_unit(unit, text, value):
    assert math.isclose(alerts.read_threshold(unit, text), value)


@pytest.mark.parametrize("text", ["", "inf", "nan", "many", "1 000", "12 MiB"])
def test_what_is_no_threshold_is_refused(text):
    with pytest.raises(errors.Invalid):
        alerts.read_threshold("tasks", text)
