"""How people write things and how the contract does: names, words of an enum, durations, times, labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

from google.protobuf import duration_pb2, timestamp_pb2

from kit import errors

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?")
# Everything that a terminal could take for a command, but for the line feed and the tab.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Enum(Protocol):
    """An enum of the contract."""

    def Name(self, number: Any) -> str: ...  # noqa: N802  # protobuf's own name
    def items(self) -> Iterable[tuple[str, Any]]: ...


def full_name(collection: str, text: str) -> str:
    """`tasks/x` from `tasks/x` or `x`; whether it is a good name is the hub's business."""
    return text if text.startswith(f"{collection}/") else f"{collection}/{text}"


def full_names(collection: str, texts: Iterable[str] | None) -> list[str]:
    """The same for many."""
    return [full_name(collection, text) for text in texts or ()]


def short_name(name: str) -> str:
    """`x` from `tasks/x`."""
    return name.rpartition("/")[2]


def enum_number(field: str, text: str, enum: Enum, prefix: str) -> Any:
    """The number of `urgent` in LANE_URGENT and its kin; 0 for empty text. Raises Invalid naming the field.

    Typed Any because each enum of the contract has a type of its own.
    """
    if not text:
        return 0
    known = {name.removeprefix(prefix).lower().replace("_", "-"): number for name, number in enum.items() if number}
    number = known.get(text.lower().replace("_", "-"))
    if number is None:
        raise errors.Invalid.of(field, f"must be one of {', '.join(known)}, not {text!r}")
    return number


def enum_word(enum: Enum, number: int, prefix: str) -> str:
    """`queued` for STATE_QUEUED; a number that this version does not know stays one; "" for 0."""
    if not number:
        return ""
    try:
        return enum.Name(number).removeprefix(prefix).lower()
    except ValueError:
        return str(number)


def duration(field: str, text: str) -> duration_pb2.Duration:
    """`90`, `90s`, `5m`, `2h`, `7d`. Raises Invalid naming the field."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise errors.Invalid.of(field, f"must be a duration such as 90s, 5m, 2h or 7d, not {text!r}")
    seconds = float(match[1]) * _UNITS_S[match[2] or "s"]
    if seconds > 1e10:
        raise errors.Invalid.of(field, f"{text!r} is longer than any limit")
    result = duration_pb2.Duration()
    result.FromNanoseconds(round(seconds * 1_000_000_000))
    return result


def pairs(field: str, texts: Iterable[str] | None) -> dict[str, str]:
    """`key=value` texts as a mapping. Raises Invalid naming the field."""
    found: dict[str, str] = {}
    for text in texts or ():
        key, mark, value = text.partition("=")
        if not mark or not key or key in found:
            raise errors.Invalid.of(field, f"must be key=value, each key once, not {text!r}")
        found[key] = value
    return found


def seconds_text(seconds: float) -> str:
    """A short duration for a table: 0.3s, 42s, 3m 05s, 2h 10m."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours < 48 else f"{hours // 24}d {hours % 24}h"


def span_text(start: timestamp_pb2.Timestamp, end: timestamp_pb2.Timestamp) -> str:
    """The time between two stamps; "" when one is absent (zero)."""
    if not start.seconds or not end.seconds:
        return ""
    return seconds_text(max(0.0, (end.ToNanoseconds() - start.ToNanoseconds()) / 1e9))


def time_text(stamp: timestamp_pb2.Timestamp) -> str:
    """A time in the reader's zone, to the second; "" when it is absent."""
    if not stamp.seconds:
        return ""
    try:
        return stamp.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return str(stamp.seconds)


def time_stamp(field: str, text: str) -> timestamp_pb2.Timestamp:
    """`2026-11-21T18:00:00+01:00`, or without a zone in the reader's own. Raises Invalid naming the field."""
    stamp = timestamp_pb2.Timestamp()
    try:
        stamp.FromDatetime(datetime.fromisoformat(text).astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise errors.Invalid.of(field, f"must be a time such as 2026-11-21T18:00:00Z, not {text!r}") from error
    return stamp


def plain(text: str) -> str:
    """Text from elsewhere made harmless for a terminal: no escape sequence, no direction override gets through."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
