"""The notice: what people are told, and which events are told at once because they need one of them now.

Everything else is counted for the digest (`digest.py`). What happens within a short time is one notice: a goal that
failed because forty of its tasks are dead is one message and not forty-one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Final

import msgspec

from hub.core.event import Event
from kit import errors, ids

TITLE_CHARS_MAX: Final = 120
"""What a phone shows of a title, and then some."""
LINE_CHARS_MAX: Final = 300
TEXT_CHARS_MAX: Final = 2_500
"""A push message has room for about 3,900 bytes, one of ntfy for 4,096."""
ITEMS_MAX: Final = 10
"""Things named in one notice; the others are counted."""


class Kind(IntEnum):
    """What sort of notice it is. The numbers are on disk: never change one."""

    URGENT = 1
    """It needs a person now."""
    DIGEST = 2
    SUMMARY = 3
    """It stands for several urgent ones that could not be sent one by one."""
    TEST = 4


class Topic(IntEnum):
    """What needs a person. The numbers are on disk: never change one."""

    ALERT = 1
    GOAL = 2
    TASK = 3
    CHANGE = 4
    WAITING = 5


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One thing that needs a person."""

    topic: Topic
    subject: str
    """Resource name."""
    text: str
    """Why, in one line."""


class Gather(msgspec.Struct, frozen=True, kw_only=True):
    """What needs a person and is not told yet: more of it may come in the next seconds."""

    id: str
    """Of the notice that it will be. Made from its first event, so that a hub that comes back makes the same one."""
    opened_at: float
    items: tuple[Item, ...] = ()
    counts: dict[Topic, int] = {}


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people are told."""

    id: str
    """The same however often it is sent: receivers know it again."""
    kind: Kind
    title: str
    text: str
    at: float
    path: str = "/"
    """Of the page to look at, on the dashboard."""
    stands_for: int = 1
    """How many notices it is; more than 1 for a summary."""


class Failed(errors.Unavailable):
    """A sink did not take a notice; it is tried again. `retry_delay_s` is what the other side asked for."""

    default_reason = "SINK_FAILED"


class Refused(Failed):
    """A sink refuses this very notice: trying again is likely to end the same way."""


class Gone(Failed):
    """Whoever was to be told is not there any more, for good."""


def plain(text: str, chars_max: int = LINE_CHARS_MAX) -> str:
    """One line that is only text: others wrote it, and it goes to places that give meaning to characters."""
    line = " ".join("".join(c if c.isprintable() or c == "\u200d" else " " for c in text[: 4 * chars_max]).split())
    return line if len(line) <= chars_max else f"{line[: chars_max - 1]}…"


def block(lines: list[str], chars_max: int = TEXT_CHARS_MAX) -> str:
    """Lines as one text within the bound; what is left out is said."""
    text = "\n".join(lines)
    if len(text) <= chars_max:
        return text
    kept: list[str] = []
    size = 0
    for number, line in enumerate(lines):
        size += len(line) + 1
        if size > chars_max - 40:
            return "\n".join([*kept, f"… and {len(lines) - number} more lines"])
        kept.append(line)
    raise AssertionError("a text that is too long has a line at which it is")


def urgent(event: Event) -> Item | None:
    """What this event asks of a person now; None: nothing, or not now."""
    rule = _RULES.get(event.type)
    return rule(event) if rule is not None else None


def gather(before: Gather | None, event: Event, item: Item) -> Gather:
    """What is to be told, with one thing more. The same thing twice is one thing."""
    if before is None:
        id = ids.derived(event.at, "notice", event.position)
        return Gather(id=id, opened_at=event.at, items=(item,), counts={item.topic: 1})
    if any(one.subject == item.subject and one.topic is item.topic for one in before.items):
        return before
    counts = {**before.counts, item.topic: before.counts.get(item.topic, 0) + 1}
    items = (*before.items, item) if len(before.items) < ITEMS_MAX else before.items
    return Gather(id=before.id, opened_at=before.opened_at, items=items, counts=counts)


def close(found: Gather, titles: Mapping[str, str]) -> Notice:
    """The notice of what was gathered; `titles` tells what people call a subject."""
    total = sum(found.counts.values())
    lines = [_line(one, titles.get(one.subject, "")) for one in found.items]
    if total > len(found.items):
        lines.append(f"{_REST}{total - len(found.items)} more")
    if total == 1:
        one = found.items[0]
        title = f"{_ONE[one.topic]}: {titles.get(one.subject) or one.text or one.subject}"
        path = page_of(one.subject)
    else:
        title = ", ".join(count_of(topic, count) for topic, count in sorted(found.counts.items()))
        path = "/" if len(found.counts) > 1 else _PAGES[next(iter(found.counts))]
    return Notice(
        id=found.id,
        kind=Kind.URGENT,
        title=plain(title, TITLE_CHARS_MAX),
        text=block(lines),
        at=found.opened_at,
        path=path,
    )


def fold(notices: list[Notice]) -> Notice:
    """One notice in the place of several. Its id follows from theirs."""
    assert len(notices) > 1
    lines = [line for one in notices for line in (one.text.split("\n") if one.kind is Kind.SUMMARY else [one.title])]
    lines = [line for line in lines if not line.startswith(_REST)]
    count = sum(one.stands_for for one in notices)
    shown = lines[:ITEMS_MAX]
    if count > len(shown):
        shown.append(f"{_REST}{count - len(shown)} more")
    return Notice(
        id=ids.derived(notices[0].at, "summary", *(one.id for one in notices)),
        kind=Kind.SUMMARY,
        title=f"{count} more notices",
        text=block(shown),
        at=notices[0].at,
        stands_for=count,
    )


def test(id: str, now: float, sink: str) -> Notice:
    """A trial."""
    text = f"This is a test of {sink}: whoever reads it will be told what needs a person."
    return Notice(id=id, kind=Kind.TEST, title="AgentCom: test", text=text, at=now, path="/alerts/")


def page_of(subject: str) -> str:
    """Path of the page about a resource."""
    collection, _, id = subject.partition("/")
    return f"/{collection}/{id}" if collection in _WITH_PAGES and id else f"/{collection}/" if id else "/"


def count_of(topic: Topic, count: int) -> str:
    """So many of them, in words."""
    one, many = _MANY[topic]
    return f"{count} {one if count == 1 else many}"


def _line(item: Item, title: str) -> str:
    what = f"{title} ({item.subject})" if title else item.subject
    return plain(f"{_ONE[item.topic]}: {what}: {item.text}" if item.text else f"{_ONE[item.topic]}: {what}")


def _alert(event: Event) -> Item | None:
    # Whether people are to be told (mutes, cooldowns, acks) was decided where it was raised.
    told = event.fields.get("told") == "true" or event.type == "alert.told"
    if not told or event.fields.get("severity") != "CRITICAL":
        return None
    advice = event.fields.get("advice", "")
    text = event.fields.get("message", "") + (f" ({advice})" if advice else "")
    return Item(Topic.ALERT, event.subject, plain(text))


def _failed(topic: Topic) -> Callable[[Event], Item]:
    return lambda event: Item(topic, event.subject, plain(event.fields.get("reason", "")))


def _returned(event: Event) -> Item | None:
    """A change that its own task can mend goes back to it; what the merge failed of otherwise needs a person."""
    mends_itself = event.fields.get("attribution", "TASK") == "TASK"
    return None if mends_itself else Item(Topic.CHANGE, event.subject, plain(event.fields.get("reason", "")))


def _parked(event: Event) -> Item | None:
    """Most parked tasks are tried again by themselves; one whose dependency is lost is not."""
    waits = event.fields.get("reason") == "DEPENDENCY_FAILED"
    return Item(Topic.WAITING, event.subject, "what it depends on has failed") if waits else None


_RULES: Final[dict[str, Callable[[Event], Item | None]]] = {
    "alert.raised": _alert,
    "alert.told": _alert,
    "goal.failed": _failed(Topic.GOAL),
    "task.dead": _failed(Topic.TASK),
    "task.parked": _parked,
    "change.returned": _returned,
}
"""Events that may need a person now."""

URGENT: Final = frozenset(_RULES)

_ONE: Final = {
    Topic.ALERT: "Alert",
    Topic.GOAL: "Goal failed",
    Topic.TASK: "Task dead-lettered",
    Topic.CHANGE: "Change came back",
    Topic.WAITING: "Task waits for a person",
}
_MANY: Final = {
    Topic.ALERT: ("critical alert", "critical alerts"),
    Topic.GOAL: ("goal failed", "goals failed"),
    Topic.TASK: ("task dead-lettered", "tasks dead-lettered"),
    Topic.CHANGE: ("change came back", "changes came back"),
    Topic.WAITING: ("task waits for a person", "tasks wait for a person"),
}
_PAGES: Final = {
    Topic.ALERT: "/alerts/",
    Topic.GOAL: "/goals/",
    Topic.TASK: "/dead/",
    Topic.CHANGE: "/changes/",
    Topic.WAITING: "/tasks/",
}
_WITH_PAGES: Final = frozenset({"goals", "tasks", "agents"})
_REST: Final = "… and "
