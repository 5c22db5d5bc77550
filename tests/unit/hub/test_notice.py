"""What is told at once, as what, and that a burst of it is one notice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.event import EVENT_TYPES, Event
from hub.core.notices import notice
from hub.core.notices.notice import Kind, Topic

AT = 1_700_000_000.0


def event(type, subject="tasks/t1", position=1, at=AT, **fields):
    return Event(position=position, at=at, type=type, subject=subject, fields=fields)


ALERT = {"severity": "CRITICAL", "told": "true", "message": "the disk is full", "advice": "make room"}

AT_ONCE = {
    "a critical alert that is told": event("alert.raised", "alerts/disk-low", **ALERT),
    "one that was raised in silence": event("alert.told", "alerts/disk-low", **ALERT),
    "a goal that failed": event("goal.failed", "goals/g1", reason="A1 does not hold"),
    "a dead letter": event("task.dead", reason="ATTEMPTS_EXHAUSTED", attribution="TASK"),
    "a change that its task cannot mend": event("change.returned", "changes/c1", reason="X", attribution="HUB"),
    "a task whose dependency is lost": event("task.parked", reason="DEPENDENCY_FAILED"),
}
LATER = {
    "a warning": event("alert.raised", "alerts/x", **{**ALERT, "severity": "WARNING"}),
    "a critical alert that is muted": event("alert.raised", "alerts/x", **{**ALERT, "told": "false"}),
    "an alert that ended": event("alert.cleared", "alerts/x", **ALERT),
    "an attempt that failed": event("task.failed", reason="X", attribution="TASK"),
    "a change that goes back to its task": event("change.returned", "changes/c1", reason="RED", attribution="TASK"),
    "a task that is tried again by itself": event("task.parked", reason="NO_SPACE", attribution="ENVIRONMENT"),
    "a task that a person holds back": event("task.parked", reason="its goal is paused"),
    "a goal that a person ended": event("goal.cancelled", "goals/g1"),
    "an agent that went": event("agent.detached", "agents/a", how="lost"),
}


@pytest.mark.parametrize("case", AT_ONCE)
def test_what_needs_a_person_is_told_at_once(case):
    item = notice.urgent(AT_ONCE[case])
    assert item is not None and item.subject == AT_ONCE[case].subject
    told = notice.close(notice.gather(None, AT_ONCE[case], item), {})
    assert told.kind is Kind.URGENT and told.title and told.text
    assert told.path.startswith("/")


@pytest.mark.parametrize("case", LATER)
def test_everything_else_waits_for_the_digest(case):
    assert notice.urgent(LATER[case]) is None


def test_every_type_that_is_told_at_once_is_in_the_catalogue():
    assert set(EVENT_TYPES) >= notice.URGENT


def gathered(events):
    found = None
    for one in events:
        item = notice.urgent(one)
        assert item is not None
        found = notice.gather(found, one, item)
    assert found is not None
    return found


def test_a_burst_is_one_notice_that_names_some_and_counts_all():
    dead = [event("task.dead", f"tasks/t{n}", n, reason="POISON") for n in range(1, 101)]
    told = notice.close(gathered([*dead, event("goal.failed", "goals/g1", 101, reason="lost")]), {"tasks/t1": "Build"})
    assert told.title == "1 goal failed, 100 tasks dead-lettered"
    assert "Build (tasks/t1): POISON" in told.text
    assert "… and 91 more" in told.text
    assert told.path == "/"


def test_one_thing_is_told_by_its_name_and_leads_to_its_page():
    told = notice.close(gathered([AT_ONCE["a goal that failed"]]), {"goals/g1": "Faster start"})
    assert (told.title, told.path) == ("Goal failed: Faster start", "/goals/g1")
    assert told.text == "Goal failed: Faster start (goals/g1): A1 does not hold"


def test_the_same_thing_twice_is_one_thing():
    found = gathered([AT_ONCE["a dead letter"], AT_ONCE["a dead letter"]])
    assert found.counts == {Topic.TASK: 1}


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60, unique=True))
def test_however_it_comes_the_counts_are_right_and_the_text_is_bounded(numbers):
    numbers.sort()
    found = gathered([event("task.dead", f"tasks/t{n}", n, reason="x" * n) for n in numbers])
    again = gathered([event("task.dead", f"tasks/t{n}", n, reason="x" * n) for n in numbers])
    told = notice.close(found, {})
    assert found == again and told.id == found.id, "a hub that reads the log again makes the same notice"
    assert sum(found.counts.values()) == len(numbers)
    assert len(found.items) <= notice.ITEMS_MAX
    assert len(told.text) <= notice.TEXT_CHARS_MAX and len(told.title) <= notice.TITLE_CHARS_MAX


def urgent(number):
    return notice.Notice(id=f"n{number}", kind=Kind.URGENT, title=f"thing {number}", text="why", at=AT)


@given(st.lists(st.integers(2, 5), min_size=1, max_size=8))
def test_folded_notices_are_counted_however_often_they_are_folded(sizes):
    number, rest = 0, []
    for size in sizes:
        fresh = [urgent(number + n) for n in range(size)]
        number += size
        rest = [notice.fold([*rest, *fresh])]
    (one,) = rest
    assert one.stands_for == number
    assert one.title == f"{number} more notices"
    lines = one.text.split("\n")
    assert len(lines) <= notice.ITEMS_MAX + 1
    if number > notice.ITEMS_MAX:
        assert lines[-1] == f"… and {number - notice.ITEMS_MAX} more"


@given(st.text(max_size=900))
def test_text_of_others_is_one_line_that_only_is_text(text):
    line = notice.plain(text, 80)
    assert len(line) <= 80
    assert all(one.isprintable() or one == "\u200d" for one in line)
    assert line == line.strip()


def test_the_direction_of_writing_cannot_be_turned_in_a_notice():
    assert notice.plain("evil\u202egpj.exe\r\nBcc: x") == "evil gpj.exe Bcc: x"


def test_a_long_text_ends_at_a_line_and_says_how_much_is_left_out():
    text = notice.block([f"line {n} " + "x" * 100 for n in range(50)], 500)
    assert len(text) <= 500
    assert text.endswith("… and 46 more lines")
