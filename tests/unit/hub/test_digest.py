"""The digest: what it counts, that it says nothing when there is nothing, and when it is due."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.event import EVENT_TYPES, Event
from hub.core.notices import digest
from hub.core.notices.digest import Now, Tally
from hub.core.notices.notice import Kind
from kit import errors

AT = 1_700_000_000.0


def event(type, subject="tasks/t1", **fields):
    return Event(position=1, at=AT, type=type, subject=subject, fields=fields)


def told(*events, state=None, titles=None, after_s=86_400.0):
    tally = Tally(since=AT, looked_at=AT)
    for one in events:
        digest.count(tally, one)
    return digest.tell(tally, AT + after_s, state=state or Now(), titles=titles or {})


def test_every_type_that_is_counted_is_in_the_catalogue_and_has_a_line():
    assert set(EVENT_TYPES) >= digest.COUNTED
    keys = [line.key for line in digest.LINES]
    assert len(set(keys)) == len(keys)
    tally = Tally(since=AT, looked_at=AT)
    for type in digest.COUNTED:
        digest.count(tally, event(type, told="true", how="lost", resumed="true", attribution="TASK"))
    assert set(tally.counts) == set(keys) - {"missed"}


def test_a_day_in_one_message():
    made = told(
        event("change.merged", "changes/c1"),
        event("change.merged", "changes/c2"),
        event("task.failed"),
        event("goal.succeeded", "goals/g1"),
        event("alert.raised", "alerts/x", told="true", message="the queue grows"),
        event("agent.detached", "agents/a", how="lost"),
        event("agent.attached", "agents/a", resumed="true"),
        state=Now(alerts=["the queue grows"], dead=3),
        titles={"goals/g1": "Faster start"},
    )
    assert made is not None and made.kind is Kind.DIGEST
    assert made.title == "Digest: 1 alert raised, 1 goal succeeded, 2 changes merged"
    assert made.text.split("\n") == [
        "From 24 hours:",
        "1 alert raised: the queue grows",
        "1 goal succeeded: Faster start",
        "2 changes merged",
        "1 attempt failed",
        "1 agent lost",
        "1 agent back",
        "Raised now: 1",
        "- the queue grows",
        "Dead letters that wait for somebody: 3",
    ]


@pytest.mark.parametrize("how", ["lost", "SILENT", "UNACKED", "SLOW_READER"])
def test_an_agent_that_did_not_mean_to_go_is_lost(how):
    made = told(event("agent.detached", "agents/a", how=how))
    assert made is not None and "1 agent lost" in made.text


@pytest.mark.parametrize(
    ("after_s", "words"), [(3 * 86_400.0, "3 days"), (7_200.0, "2 hours"), (1_800.0, "30 minutes")]
)
def test_it_says_of_how_long_it_tells(after_s, words):
    made = told(event("change.merged"), after_s=after_s)
    assert made is not None and made.text.startswith(f"From {words}:")


def test_nothing_to_tell_is_no_digest():
    assert told() is None
    assert told(event("task.created"), event("task.assigned")) is None
    assert told(event("hub.started", "hub"), event("alert.cleared", "alerts/x", told="true")) is None
    assert told(state=Now(dead=5)) is None, "old dead letters alone were told before"


def test_what_is_raised_is_told_again_although_nothing_happened():
    made = told(state=Now(alerts=["the store is nearly full"]))
    assert made is not None and "the store is nearly full" in made.text


SILENT = {
    "raised while muted": event("alert.raised", "alerts/x", told="false", message="m"),
    "cleared, and nobody was told": event("alert.cleared", "alerts/x", told="false"),
    "a session that ended on purpose": event("agent.detached", "agents/a", how="goodbye"),
    "a session whose successor came": event("agent.detached", "agents/a", how="SUPERSEDED"),
    "a first session": event("agent.attached", "agents/a", resumed="false"),
    "a task that its paused goal holds back": event("task.parked", reason="its goal is paused"),
}


@pytest.mark.parametrize("case", SILENT)
def test_what_nobody_misses_is_not_counted(case):
    tally = Tally(since=AT, looked_at=AT)
    digest.count(tally, SILENT[case])
    assert not tally.counts


@given(st.integers(1, 3000))
def test_a_large_day_costs_no_more_than_a_small_one(number):
    tally = Tally(since=AT, looked_at=AT)
    for n in range(number):
        digest.count(tally, event("task.dead", f"tasks/t{n}"))
    assert len(tally.names["dead"]) <= digest.NAMES_MAX
    made = digest.tell(tally, AT + 60, state=Now(), titles={})
    assert made is not None and f"{number} task" in made.text
    if number > digest.NAMES_MAX:
        assert f"… and {number - digest.NAMES_MAX} more" in made.text


@pytest.mark.parametrize(("text", "seconds"), [("00:00", 0.0), ("08:00", 28_800.0), ("23:59", 86_340.0)])
def test_a_time_of_the_day(text, seconds):
    assert digest.parse_clock(text) == seconds


@pytest.mark.parametrize("text", ["", "8:00", "24:00", "08:60", "08:00:00", "noon", " 08:00"])
def test_no_time_of_the_day(text):
    with pytest.raises(errors.Invalid, match="HH:MM"):
        digest.parse_clock(text)


ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati")


@given(
    zone=st.sampled_from(ZONES),
    since=st.floats(1_600_000_000, 1_900_000_000),
    minutes=st.integers(0, 24 * 60 - 1),
)
def test_the_next_digest_is_within_a_day_and_when_the_clock_on_the_wall_says_so(zone, since, minutes):
    place = ZoneInfo(zone)

    def offset_s(at):
        return datetime.fromtimestamp(at, place).utcoffset().total_seconds()

    found = digest.next_at(since, minutes * 60.0, offset_s)
    assert since < found <= since + 86_400 + 3_600
    wall = datetime.fromtimestamp(found, place)
    shown = wall.hour * 60 + wall.minute
    changes = {offset_s(found - 86_400), offset_s(found), offset_s(found + 86_400)}
    if len(changes) == 1:
        assert shown == minutes
    else:  # the night in which the clocks are changed: off by the change at most
        off = timedelta(minutes=abs(shown - minutes))
        assert min(off, timedelta(days=1) - off) <= timedelta(hours=1)
