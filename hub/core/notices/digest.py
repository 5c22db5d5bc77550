"""The digest: what happened since the last one, counted as it happens and told once.

Nothing that happened is kept but numbers and a few names for each line, so a digest of a million events costs as much
as one of ten. Nothing to tell means no digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from hub.core.event import Event
from hub.core.notices import notice
from hub.core.notices.notice import Kind, Notice
from kit import errors, ids

NAMES_MAX: Final = 5
"""Things named in one line of a digest; the others are counted."""

DAY_S: Final = 86_400.0

_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class Line(NamedTuple):
    """One line of a digest."""

    key: str
    """What its number is kept under. On disk: a new meaning needs a new key."""
    one: str
    many: str
    in_title: bool = False
    """Is it worth a place in the title?"""
    names: bool = False
    """Does it name what it counts?"""


LINES: Final = (
    Line("alert", "alert raised", "alerts raised", in_title=True, names=True),
    Line("goal_failed", "goal failed", "goals failed", in_title=True, names=True),
    Line("dead", "task dead-lettered", "tasks dead-lettered", in_title=True, names=True),
    Line("parked", "task parked", "tasks parked"),
    Line("refused_file", "goal file refused", "goal files refused", in_title=True, names=True),
    Line("goal_succeeded", "goal succeeded", "goals succeeded", in_title=True, names=True),
    Line("goal_created", "goal filed", "goals filed"),
    Line("merged", "change merged", "changes merged", in_title=True),
    Line("returned", "change came back from its merge", "changes came back from their merge"),
    Line("succeeded", "task succeeded", "tasks succeeded", in_title=True),
    Line("failed", "attempt failed", "attempts failed", in_title=True),
    Line("stuck", "attempt without progress", "attempts without progress"),
    Line("isolated", "agent isolated", "agents isolated", names=True),
    Line("lost", "agent lost", "agents lost"),
    Line("back", "agent back", "agents back"),
    Line("enrolled", "new agent", "new agents", names=True),
    Line("cleared", "alert cleared", "alerts cleared"),
    Line("shut_out", "caller refused for breaking the rules", "callers refused for breaking the rules", names=True),
    Line("started", "start of the hub", "starts of the hub"),
    Line("missed", "event that was forgotten before it was read", "events that were forgotten before they were read"),
)
"""In the order of a digest: what went wrong, what was done, who worked."""


class Tally(msgspec.Struct, kw_only=True, array_like=True):
    """What happened since `since`. Counted into in place: this is done for every event of a busy hub."""

    since: float
    looked_at: float
    """When a digest was due last, and was told or had nothing to tell."""
    counts: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    """Of lines that name things: the first subjects, or for alerts and files what was said."""


class Now(NamedTuple):
    """How it is at the time of the digest."""

    alerts: Sequence[str] = ()
    """What is raised, one sentence each, the most urgent first."""
    dead: int = 0
    """Dead letters that wait for somebody."""


def count(tally: Tally, event: Event) -> None:
    """Count an event, if its type is counted at all."""
    rule = _RULES.get(event.type)
    key = rule(event) if rule is not None else ""
    if key:
        add(tally, key, event)


def add(tally: Tally, key: str, event: Event | None = None, by: int = 1) -> None:
    """Count under a key, and keep the name of what `event` is about where the line names things."""
    tally.counts[key] = tally.counts.get(key, 0) + by
    if event is not None and key in _NAMED:
        names = tally.names.setdefault(key, [])
        if len(names) < NAMES_MAX:
            name = _said(event)
            if name not in names:
                names.append(name)


def subjects(tally: Tally) -> list[str]:
    """Resources that it names and that people may call something else."""
    return [name for names in tally.names.values() for name in names if name.startswith(("goals/", "tasks/"))]


def tell(tally: Tally, now: float, *, state: Now, titles: Mapping[str, str]) -> Notice | None:
    """The digest; None: there is nothing to tell, and what is small is told with the next one."""
    if not state.alerts and all(key in _MINOR for key in tally.counts):
        return None
    lines = [f"From {_hours(now - tally.since)}:"]
    head = []
    for line in LINES:
        number = tally.counts.get(line.key, 0)
        if not number:
            continue
        words = f"{number} {line.one if number == 1 else line.many}"
        if line.in_title:
            head.append(words)
        names = [titles.get(name) or name for name in tally.names.get(line.key, ())]
        more = f", … and {number - len(names)} more" if names and number > len(names) else ""
        lines.append(notice.plain(f"{words}: {'; '.join(names)}{more}" if names else words))
    if state.alerts:
        lines.append(f"Raised now: {len(state.alerts)}")
        lines += [notice.plain(f"- {one}") for one in state.alerts[:NAMES_MAX]]
    if state.dead:
        lines.append(f"Dead letters that wait for somebody: {state.dead}")
    title = ", ".join(head[:3]) or (f"{len(state.alerts)} raised" if state.alerts else "small things")
    return Notice(
        id=ids.derived(now, "digest", tally.since),
        kind=Kind.DIGEST,
        title=notice.plain(f"Digest: {title}", notice.TITLE_CHARS_MAX),
        text=notice.block(lines),
        at=now,
    )


def parse_clock(text: str) -> float:
    """Seconds after midnight of "HH:MM". Raises Invalid."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise errors.Invalid(f"digest_at {text!r} is not a time of the day of the form HH:MM")
    return int(found[1]) * 3600.0 + int(found[2]) * 60.0


def next_at(since: float, at_s: float, offset_s: Callable[[float], float]) -> float:
    """The first moment behind `since` at which clocks on the wall show `at_s` after midnight.

    `offset_s(t)` is how far those clocks are ahead of UTC at t. An hour that a change of the clocks leaves out is told
    up to that much later or earlier.
    """
    for days in (0, 1, 2):
        offset = offset_s(since)
        midnight = (since + offset) // DAY_S * DAY_S + days * DAY_S
        found = midnight + at_s - offset
        found = midnight + at_s - offset_s(found)
        if found > since:
            return found
    raise AssertionError("within two days every time of the day has been")


def _said(event: Event) -> str:
    fields = event.fields
    if event.type == "intake.refused":
        return notice.plain(f"{fields.get('file', '')}: {fields.get('reason', '')}")
    return notice.plain(fields["message"]) if fields.get("message") else event.subject


def _hours(seconds: float) -> str:
    if seconds >= 2 * DAY_S:
        return f"{seconds / DAY_S:.0f} days"
    return f"{seconds / 3600:.0f} hours" if seconds >= 5400 else f"{max(seconds, 0.0) / 60:.0f} minutes"


def _always(key: str) -> Callable[[Event], str]:
    return lambda _event: key


def _told_only(key: str) -> Callable[[Event], str]:
    return lambda event: key if event.fields.get("told", "true") == "true" else ""


def _left(event: Event) -> str:
    """A session that ended without a word; one that is drained or taken over by its successor is no loss."""
    return "lost" if event.fields.get("how") in _LOST else ""


def _came_back(event: Event) -> str:
    return "back" if event.fields.get("resumed") == "true" else ""


def _parked(event: Event) -> str:
    """Not those that a person holds back with their goal."""
    return "parked" if "attribution" in event.fields or event.fields.get("reason") == "DEPENDENCY_FAILED" else ""


_RULES: Final[dict[str, Callable[[Event], str]]] = {
    "alert.raised": _told_only("alert"),
    "alert.told": _always("alert"),
    "alert.cleared": _told_only("cleared"),
    "goal.created": _always("goal_created"),
    "goal.succeeded": _always("goal_succeeded"),
    "goal.failed": _always("goal_failed"),
    "task.succeeded": _always("succeeded"),
    "task.failed": _always("failed"),
    "task.dead": _always("dead"),
    "task.parked": _parked,
    "task.stuck": _always("stuck"),
    "change.merged": _always("merged"),
    "change.returned": _always("returned"),
    "agent.isolated": _always("isolated"),
    "agent.detached": _left,
    "agent.attached": _came_back,
    "agent.enrolled": _always("enrolled"),
    "violator.refused": _always("shut_out"),
    "intake.refused": _always("refused_file"),
    "hub.started": _always("started"),
}

COUNTED: Final = frozenset(_RULES)
_NAMED: Final = frozenset(line.key for line in LINES if line.names)
_LOST: Final = frozenset({"lost", "SILENT", "UNACKED", "SLOW_READER"})
"""How a session ends that nobody ended on purpose."""
_MINOR: Final = frozenset({"started", "back", "cleared", "goal_created"})
"""Lines that are no reason for a digest by themselves."""
