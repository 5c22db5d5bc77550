"""How things are written on the pages: pure functions from what the hub said to short text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf import duration_pb2, timestamp_pb2
from markupsafe import Markup, escape

from agentcom.v1 import agent_pb2, alert_pb2, change_pb2, event_pb2, goal_pb2, hub_pb2, task_pb2

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNITS = ("B", "KB", "MB", "GB", "TB")

#: Enum and prefix of each kind of state, by the word that the templates use.
_ENUMS: Final[Mapping[str, tuple[Any, str]]] = {
    "task": (task_pb2.Task.State, "STATE_"),
    "agent": (agent_pb2.Agent.State, "STATE_"),
    "goal": (goal_pb2.Goal.State, "STATE_"),
    "change": (change_pb2.Change.State, "STATE_"),
    "hub": (hub_pb2.Hub.State, "STATE_"),
    "lane": (task_pb2.Lane, "LANE_"),
    "tier": (task_pb2.Tier, "TIER_"),
    "kind": (task_pb2.TaskKind, "TASK_KIND_"),
    "outcome": (task_pb2.Attempt.Outcome, "OUTCOME_"),
    "verdict": (task_pb2.Receipt.Verdict, "VERDICT_"),
    "phase": (task_pb2.Receipt.Phase, "PHASE_"),
    "attribution": (task_pb2.Attribution, "ATTRIBUTION_"),
    "severity": (alert_pb2.Alert.Severity, "SEVERITY_"),
    "diagnosis": (hub_pb2.Diagnosis.Verdict, "VERDICT_"),
}
KINDS: Final = tuple(_ENUMS)

#: A sign for each tone, so that a state reads without colour.
SIGNS: Final[Mapping[str, str]] = {
    "good": "\N{HEAVY CHECK MARK}",
    "busy": "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}",
    "wait": "\N{WHITE CIRCLE}",
    "warn": "\N{BLACK UP-POINTING SMALL TRIANGLE}",
    "bad": "\N{HEAVY MULTIPLICATION X}",
    "none": "\N{MIDDLE DOT}",
}

_HIDDEN: Final = frozenset({"about", "advice", "rule", "threshold", "unit", "value"})
"""Fields of an alert's events that its subject, its message and its rule's page say as well."""

_TONES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("succeeded", "merged", "idle", "serving", "pass", "completed", "holds", "ok", "on"), "good"),
    **dict.fromkeys(("running", "working", "assigned", "merging", "active", "verifying"), "busy"),
    **dict.fromkeys(("queued", "pending", "scheduled", "waiting", "planned", "open", "muted", "offline"), "wait"),
    **dict.fromkeys(("parked", "paused", "draining", "blocked", "isolated", "returned", "warning", "unknown"), "warn"),
    **dict.fromkeys(("dead", "failed", "degraded", "fail", "critical", "lost", "error", "failing"), "bad"),
}


def word(kind: str, number: int) -> str:
    """`queued` for a task's STATE_QUEUED; a number that this version does not know stays one; "" for 0."""
    enum, prefix = _ENUMS[kind]
    if not number:
        return ""
    try:
        return str(enum.Name(number)).removeprefix(prefix).lower().replace("_", " ")
    except ValueError:
        return str(number)


def tone(text: str) -> str:
    """How a state is shown: good, busy, wait, warn, bad or none."""
    return _TONES.get(text, "none")


def short(name: str) -> str:
    """`x` from `tasks/x`."""
    return name.rpartition("/")[2]


def tail(name: str) -> str:
    """The part of a generated id that tells it from its neighbours: its last eight characters."""
    last = short(name)
    return last if len(last) <= 12 else last[-8:]


def number(value: int) -> str:
    """1 234 567, with thin spaces that do not break."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def about(value: int) -> str:
    """Roughly: 950, 12.3k, 1.2M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if abs(value) >= 10 * size or (unit == "M" and abs(value) >= size):
            return f"{value / size:.1f}".removesuffix(".0") + unit
    return number(value)


def size(count: float) -> str:
    """Bytes for people: 12.3 MB."""
    for unit in _UNITS[:-1]:
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def seconds(value: float) -> str:
    """A length of time: 1.3 ms, 0.3 s, 42 s, 3 m 05 s, 2 h 10 m, 3 d 4 h."""
    if value < 0.1:
        return f"{value * 1000:.1f} ms" if value else "0 s"
    if value < 10:
        return f"{value:.1f}".removesuffix(".0") + " s"
    if value < 60:
        return f"{value:.0f} s"
    minutes, rest = divmod(int(value), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def duration(value: duration_pb2.Duration) -> str:
    """A length of time of the contract's."""
    return seconds(value.seconds + value.nanos / 1e9)


def length_text(value: duration_pb2.Duration) -> str:
    """The same, to be typed in again: 90s, 15m, 2h, 1d."""
    whole = value.seconds
    if value.nanos:
        return f"{whole + value.nanos / 1e9:.3f}".rstrip("0") + "s"
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def measure(value: float, unit: str) -> str:
    """A value of an alert or a threshold, in its unit: 12 m 00 s, 35 %, 2.0 GB, 7 tasks."""
    match unit:
        case "seconds":
            return seconds(value)
        case "share":
            return f"{100 * value:.0f} %"
        case "bytes":
            return size(value)
        case _:
            return f"{value:g} {unit.removesuffix('s') if value == 1 else unit}".rstrip()


def typed(value: float, unit: str) -> str:
    """A threshold, to be typed in again."""
    match unit:
        case "seconds":
            made = duration_pb2.Duration()
            made.FromMilliseconds(round(value * 1000))
            return length_text(made)
        case "share":
            return f"{100 * value:g}%"
        case "bytes" if value and value % 2**20 == 0:
            return f"{value / 2**20:.0f}MiB"
        case _:
            return f"{value:.0f}" if value == round(value) else f"{value:g}"


def told(event: event_pb2.Event) -> list[tuple[str, str]]:
    """The fields of an event that say something to a person: none that is empty or said elsewhere on its line."""
    hidden = _HIDDEN if event.type.startswith("alert.") else frozenset[str]()
    found = []
    for key, value in sorted(event.fields.items()):
        if value and key not in hidden:
            found.append((key, _moment(value) if key == "until" else value))
    return found


def _moment(text: str) -> str:
    """Seconds since the epoch as a date; anything else as it is."""
    try:
        return datetime.fromtimestamp(float(text), UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return text


def cli(name: str) -> str:
    """The name of an alert or a rule, as `agentcom alert mute` takes it."""
    kind, _, id = name.partition("/")
    return f"{id} --rule" if kind == "alertRules" else id


def at(stamp: timestamp_pb2.Timestamp) -> float | None:
    """Seconds since the epoch; None when it is absent (zero)."""
    return stamp.seconds + stamp.nanos / 1e9 if stamp.seconds else None


def ago(stamp: timestamp_pb2.Timestamp, now: float) -> str:
    """`3 m ago`, `in 20 s`; "" when it is absent."""
    then = at(stamp)
    if then is None:
        return ""
    past = now - then
    if abs(past) < 1:
        return "now"
    text = seconds(float(int(abs(past)))) if abs(past) >= 10 else f"{round(abs(past))} s"
    return f"{text} ago" if past > 0 else f"in {text}"


def between(start: timestamp_pb2.Timestamp, end: timestamp_pb2.Timestamp, now: float) -> str:
    """How long something took, or takes so far; "" when it has not begun."""
    begun = at(start)
    return "" if begun is None else seconds(max(0.0, (at(end) or now) - begun))


def iso(stamp: timestamp_pb2.Timestamp) -> str:
    """For machines and hover texts: 2026-11-21T18:00:00Z; "" when it is absent."""
    then = at(stamp)
    return "" if then is None else datetime.fromtimestamp(then, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def plain(text: str) -> str:
    """Text from elsewhere without control characters and direction overrides; escaping is the template's."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def prose(text: str) -> Markup:
    """A sentence of the hub: what stands between backticks is code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(plain(text)))))


def diff(text: str) -> Markup:
    """A diff with a class for each run of lines of one kind."""
    # Escaped as a whole, which keeps the first character of each line of a kind: thousands of lines in milliseconds.
    runs = itertools.groupby(str(escape(text)).splitlines(keepends=True), _kind_of_line)
    return Markup("".join(f'<span class="{kind}">{"".join(lines)}</span>' for kind, lines in runs))


_CODE: Final = re.compile("`([^`\n]+)`")

_LINES: Final = {"+": "add", "-": "del", "@": "hunk"}


def _kind_of_line(line: str) -> str:
    return _LINES.get(line[:1], "same")


def percent(part: float, whole: float) -> int:
    """A share from 0 to 100; 0 of nothing."""
    return round(100 * part / whole) if whole else 0
