"""The course of alerts: pending, raised, told, acknowledged, muted, cleared; and that nothing cries again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.alerts import alert
from hub.core.alerts import course as alert_course
from hub.core.alerts import rule as alert_rule
from hub.core.alerts.alert import Ack, Alert, Mute, Severity
from hub.core.alerts.course import Course, Found, Given, News, Quiet, Reading

RULE = "agent-offline"
ID = "agent-offline.anna"
TARGET = f"alerts/{ID}"


def reading(holds: bool = True, **changes: Any) -> Reading:
    return Reading(RULE, "agents/anna", holds, 130.0, "anna went offline", "look")._replace(**changes)


class Play:
    """One rule, one agent, and a look now and then."""

    def __init__(self, **setting: Any) -> None:
        before = alert_rule.BY_ID[RULE].default
        self.settings = alert_rule.settings({})
        self.settings[RULE] = msgspec.structs.replace(before, **{"hold_s": 0.0, "cooldown_s": 100.0} | setting)
        self.acks: dict[str, Ack] = {}
        self.muted: set[str] = set()
        self.course = Course()
        self.now = 1_000.0

    def look(self, *readings: Reading, after_s: float = 10.0, unknown: Sequence[str] = ()) -> list[News]:
        self.now += after_s
        found = Found(list(readings), frozenset(unknown))
        self.course, news = alert_course.step(self.course, found, Given(self.settings, self.acks, self.muted), self.now)
        return news

    def change(self, **setting: Any) -> None:
        self.settings[RULE] = msgspec.structs.replace(self.settings[RULE], **setting)

    def ack(self) -> None:
        (one,) = self.course.raised
        self.acks[one.id] = Ack(since=one.since, severity=one.severity, principal="local", at=self.now)

    @property
    def one(self) -> Alert:
        (found,) = self.course.raised
        return found


def types(news: list[News]) -> list[str]:
    return [one.type for one in news]


def test_what_holds_is_raised_and_told_once_and_ends_with_its_cause():
    play = Play()
    (raised,) = play.look(reading())
    assert (raised.type, raised.alert.id, raised.alert.is_told, raised.untold_why) == ("alert.raised", ID, True, "")
    assert (raised.alert.value, raised.alert.threshold, raised.alert.unit) == (130.0, 120.0, "seconds")
    assert play.look(reading(value=140.0, message="still")) == []
    assert (play.one.value, play.one.message, play.one.since) == (140.0, "still", 1_010.0)
    (cleared,) = play.look()
    assert cleared.type == "alert.cleared" and cleared.alert.is_told and play.course.raised == ()


def test_it_must_hold_for_the_hold_time_without_a_gap():
    play = Play(hold_s=25.0)
    assert play.look(reading()) == [] and play.look(reading()) == []
    assert play.look(reading(holds=False)) == [] and play.course.pending == {}
    assert [types(play.look(reading())) for _ in range(4)] == [[], [], [], ["alert.raised"]]
    assert play.one.since == play.now - 30.0


def test_a_clock_that_is_set_back_does_not_prolong_the_wait():
    play = Play(hold_s=25.0)
    play.look(reading())
    play.look(reading(), after_s=-500.0)
    assert types(play.look(reading(), after_s=25.0)) == ["alert.raised"]


def test_what_is_back_over_its_threshold_but_not_far_keeps_an_alert_and_raises_none():
    play = Play()
    assert play.look(reading(holds=False)) == []
    play.look(reading())
    assert play.look(reading(holds=False)) == [] and play.one.id == ID


def test_an_alert_of_which_nothing_is_known_stays_as_it_is():
    play = Play()
    play.look(reading())
    play.change(threshold=60.0)
    assert play.look(reading(holds=False, message="", advice="")) == []
    assert play.look(unknown=[RULE]) == []
    assert (play.one.message, play.one.value, play.one.threshold) == ("anna went offline", 130.0, 60.0)
    play.change(enabled=False)
    assert types(play.look(unknown=[RULE])) == ["alert.cleared"]


def test_a_disabled_rule_raises_nothing_and_its_alerts_end():
    play = Play(enabled=False)
    assert play.look(reading()) == []
    play.change(enabled=True)
    assert types(play.look(reading())) == ["alert.raised"]
    play.change(enabled=False)
    assert types(play.look(reading())) == ["alert.cleared"]


def test_what_is_raised_again_within_the_cooldown_is_told_when_that_is_over_and_it_still_holds():
    play = Play()
    play.look(reading())
    play.look()
    (again,) = play.look(reading())
    assert (again.type, again.alert.is_told, again.untold_why) == ("alert.raised", False, "cooldown")
    assert play.look(reading(), after_s=50.0) == []
    (told,) = play.look(reading(), after_s=50.0)
    assert (told.type, told.alert.is_told) == ("alert.told", True)
    assert play.look(reading(), after_s=500.0) == []


def test_the_cooldown_runs_from_the_end_of_what_was_told_and_not_of_what_was_not():
    play = Play()
    play.look(reading())
    play.look(reading(), after_s=500.0)
    play.look()  # told, and ended here
    ended = play.now
    while play.now < ended + 90.0:
        assert [one.alert.is_told for one in play.look(reading())] == [False]
        play.look(after_s=5.0)
    assert [one.alert.is_told for one in play.look(reading(), after_s=15.0)] == [True]


def test_without_a_cooldown_each_raise_is_told():
    play = Play(cooldown_s=0.0)
    for _ in range(3):
        assert [one.alert.is_told for one in play.look(reading())] == [True]
        play.look()


@pytest.mark.parametrize("target", [TARGET, f"alertRules/{RULE}"])
def test_what_is_muted_is_raised_in_silence_and_told_when_the_mute_ends(target):
    play = Play()
    play.muted = {target}
    (raised,) = play.look(reading())
    assert (raised.alert.is_told, raised.untold_why) == (False, "muted")
    play.muted = set()
    assert types(play.look(reading())) == ["alert.told"]
    play.look()
    play.muted = {target}
    assert types(play.look()) == [] and types(play.look(reading())) == ["alert.raised"]
    assert types(play.look()) == ["alert.cleared"]


def test_what_is_acknowledged_before_it_was_told_is_not_told_any_more():
    play = Play()
    play.muted = {TARGET}
    play.look(reading())
    play.ack()
    play.muted = set()
    assert play.look(reading()) == []
    assert play.one.is_acked and not play.one.is_told


def test_an_acknowledgement_ends_with_its_alert():
    play = Play(cooldown_s=0.0)
    play.look(reading())
    play.ack()
    play.look(reading())
    assert play.one.is_acked
    play.look()
    (again,) = play.look(reading())
    assert again.alert.ack is None and again.alert.is_told


def test_what_becomes_more_urgent_is_told_again_although_it_was_acknowledged_and_cools_down():
    play = Play()
    play.look(reading())
    play.ack()
    (told,) = play.look(reading(urgent=True))
    assert (told.type, told.alert.severity, told.alert.ack) == ("alert.told", Severity.CRITICAL, None)
    assert play.look(reading()) == [] and play.one.severity is Severity.WARNING
    assert play.look(reading(urgent=True)) == []  # it was told at this severity already
    play.look()
    (again,) = play.look(reading(urgent=True))
    assert again.untold_why == "cooldown"


def test_a_rule_that_is_made_more_severe_tells_of_what_is_raised():
    play = Play()
    play.look(reading())
    play.change(severity=Severity.CRITICAL)
    assert types(play.look(reading())) == ["alert.told"]


def test_what_people_said_meanwhile_is_joined_to_what_is_raised():
    play = Play()
    play.look(reading())
    play.ack()
    assert not play.one.is_acked
    joined = alert_course.join(play.course, play.acks)
    assert joined.raised[0].is_acked
    assert not alert_course.join(joined, {}).raised[0].is_acked


def test_the_most_urgent_come_first_and_there_is_a_bound():
    play = Play()
    many = [reading(subject=f"agents/a{number:03}") for number in range(150)]
    news = play.look(*many, Reading("store-degraded", message="broken"))
    assert len(play.course.raised) == len(news) == alert.RAISED_MAX
    play.look(Reading("store-degraded", message="broken"), reading())
    assert [one.id for one in play.course.raised] == ["store-degraded", ID]


def test_the_memory_of_cooldowns_has_a_bound_and_forgets_what_has_passed():
    play = Play(cooldown_s=1_000.0)
    quiet = {
        f"agent-offline.a{number}": Quiet(at=1_000.0 - number / 10, severity=Severity.WARNING)
        for number in range(1_200)
    }
    gone = {"no-such-rule": Quiet(at=1_000.0, severity=Severity.WARNING)}
    play.course = Course(quiet=quiet | gone)
    play.look(after_s=0.0)
    assert len(play.course.quiet) == alert_course.QUIET_MAX and "agent-offline.a0" in play.course.quiet
    play.look(after_s=2_000.0)
    assert play.course.quiet == {}


def test_the_next_look_comes_when_something_passes_by_time_alone():
    def next_s(due_s: float | None = None) -> float | None:
        return alert_course.next_look(play.course, Found([], due_s=due_s), play.settings, play.now)

    play = Play(hold_s=25.0)
    assert next_s() is None
    play.look(reading())
    assert next_s() == 25.0
    assert next_s(7.0) == 7.0
    play.look(reading(), after_s=25.0)
    assert next_s() is None
    play.look()
    play.change(hold_s=0.0)
    play.look(reading(), after_s=60.0)
    assert next_s() == 40.0


def test_the_mutes_in_force_come_in_the_order_of_their_ends():
    made = [Mute(target=f"alerts/a{end}", principal="p", at=0.0, expires_at=end) for end in (30.0, 10.0, 20.0)]
    in_force, over = alert.part(made, 20.0)
    assert [one.expires_at for one in in_force] == [30.0] and [one.expires_at for one in over] == [10.0, 20.0]


def test_the_name_of_an_alert_says_rule_and_subject():
    assert alert.id_of("main-red", "repos/web") == "main-red.web" and alert.id_of("disk-low", "") == "disk-low"
    assert alert.rule_of("main-red.web") == "main-red" and alert.rule_of("disk-low") == "disk-low"
    assert alert.is_muted("main-red.web", {"alertRules/main-red"}) and not alert.is_muted(
        "main-red.web", {"alerts/main-red"}
    )


# Whatever happens in whatever order

Look = tuple[str, bool, bool, bool]
LOOKS = st.lists(
    st.tuples(st.sampled_from(["holds", "lingers", "gone", "unknown"]), st.booleans(), st.booleans(), st.booleans()),
    max_size=60,
)


@given(looks=LOOKS, hold_s=st.sampled_from([0.0, 15.0]), cooldown_s=st.sampled_from([0.0, 35.0, 200.0]))
def test_of_one_alert_people_hear_at_most_once_in_a_cooldown_and_never_what_they_do_not_want(looks, hold_s, cooldown_s):
    play = Play(hold_s=hold_s, cooldown_s=cooldown_s)
    told_at: dict[Severity, float] = {}
    ended_at = -1e9
    raised = False
    held_since: float | None = None
    for state, urgent, muted, acks in looks:
        play.muted = {TARGET} if muted else set()
        was_acked = raised and play.one.is_acked
        found = {"holds": [reading(urgent=urgent)], "lingers": [reading(holds=False)]}.get(state, [])
        news = play.look(*found, unknown=[RULE] if state == "unknown" else [])
        held_since = (held_since if held_since is not None else play.now) if state == "holds" else None
        for one in news:
            match one.type:
                case "alert.raised":
                    assert not raised and held_since is not None and play.now - held_since >= hold_s
                    raised = True
                case "alert.cleared":
                    assert raised and state == "gone"
                    raised = False
                    if one.alert.is_told:
                        ended_at = play.now
                case _:
                    assert raised
            if one.type != "alert.cleared" and one.alert.is_told:
                severity = one.alert.severity
                assert not muted
                assert not was_acked or severity is Severity.CRITICAL
                if one.type == "alert.raised":
                    same = [at for at in (told_at.get(severity), told_at.get(Severity.CRITICAL)) if at is not None]
                    assert all(play.now - at >= cooldown_s for at in same)
                    if told_at.get(severity) is not None:
                        assert play.now - ended_at >= cooldown_s
                told_at[severity] = play.now
        assert raised == bool(play.course.raised)
        if raised and acks:
            play.ack()


@given(looks=LOOKS)
def test_what_goes_on_holding_is_told_in_the_end_unless_somebody_looks_after_it(looks):
    play = Play(hold_s=15.0, cooldown_s=200.0)
    for state, urgent, muted, acks in looks:
        play.muted = {TARGET} if muted else set()
        play.look(*[reading(urgent=urgent)] if state == "holds" else [])
        if acks and play.course.raised:
            play.ack()
    play.muted = set()
    for _ in range(30):
        play.look(reading())
    assert play.one.is_told or play.one.is_acked


@given(looks=LOOKS)
def test_a_course_that_is_stored_and_read_goes_on_as_it_would_have(looks):
    straight, stored = Play(), Play()
    for state, urgent, muted, _ in looks:
        found = [reading(urgent=urgent)] if state == "holds" else []
        for play in (straight, stored):
            play.muted = {TARGET} if muted else set()
        stored.course = msgspec.msgpack.decode(msgspec.msgpack.encode(stored.course), type=Course)
        assert types(straight.look(*found)) == types(stored.look(*found))
