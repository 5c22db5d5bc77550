"""Messages made from the descriptors: every field, oneof, map and enum, well within the rules, at their edge or beyond.

A message is drawn with a `malice` from 0 to 100: how many of a hundred fields get a value that the rules beside them
forbid, or that nobody would think of. With 0 every rule is kept, so that the handlers behind the rules are reached.
Names of things that exist are drawn from `Names`, mixed with names of things that do not.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from buf.validate import validate_pb2
from google.protobuf import descriptor, message_factory
from google.protobuf import message as protobuf
from hypothesis import strategies as st

from hub.core import page

Draw = Callable[[st.SearchStrategy[Any]], Any]
Kind = Any
"""A descriptor of a message or a field; their stubs say None where these are never none."""
Field: Any = descriptor.FieldDescriptor

DEPTH_MAX: Final = 5
"""Of what is drawn; AttachRequest holds itself. The wire's own depth is the business of `mutation`."""
ITEMS_MAX: Final = 3
"""Of most lists; now and then one is as long as its rule allows, or longer."""

TIMES: Final = (0, 1, -1, 1_700_000_000, 1_700_000_060, 4_000_000_000, 253_402_300_799, -62_135_596_800)
"""Seconds that a timestamp may hold: the epoch, about now, later, the ends of the calendar."""
OUTSIDE: Final = (2**63 - 1, -(2**63), 253_402_300_800, -62_135_596_801, 315_576_000_001, 2**53)
"""Seconds that no timestamp or duration may hold."""
NUMBERS: Final = (0, 1, 2, 3, -1, 7, 100, 1_000, 2**31 - 1, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)
ODD: Final = (
    "",
    " ",
    "\0",
    "a\0b",
    "\n",
    "a\nb\r\n",
    "\t\x01\x07\x1b[31m\x7f\x80\x9f",
    "\u202eevil\u202c\u2066x\u2069",
    "\ufeff\u200b\u200d\u00ad",
    "\u2028\u2029",
    "\ud7ff\ue000\uffff\ufffe\U0010ffff",
    "e" + "\u0301" * 50,
    "İıſK",
    "../../../etc/passwd",
    "-rf",
    "--upload-pack=touch /tmp/x",
    "$(touch x)`touch y`; rm -rf / | & ' \" \\",
    "%s%n%x {0} {{x}} ${jndi:x}",
    "tasks/",
    "tasks/" + "0" * 20 + "\n",
    "tasks/ilouilouilouilouilou",
    "agents/-",
    "NaN",
    "1e999",
    "99999999999999999999999999",
    "x" * 201,
    "x" * 1_025,
    "é" * 40_000,
)
FILTERS: Final = (
    "",
    "state = QUEUED",
    "state=dead",
    "lane = LANE_HIGH AND labels.os = linux",
    'labels."x y" = "\\"" AND kind = WORK',
    "agent = agents/anna",
    "repo = repos/main",
    "goal = goals/" + "0" * 20,
    "state = QUEUED AND state = QUEUED",
    " AND ".join(f"labels.k{n} = v" for n in range(40)),
    '"',
    "labels. = x",
    "state = \0",
)
CURSORS: Final = ("", "0", "-1", "1", "x", "\0", "99999999999999999999", "0" * 20, "é" * 100, "z" * 600, "\U0010ffff")


@dataclass
class Names:
    """What there is: ids by collection, and page tokens that a list gave."""

    ids: dict[str, list[str]] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)

    def of(self, collection: str) -> list[str]:
        """Full names of that collection."""
        return [f"{collection}/{id}" for id in self.ids.get(collection, [])]


MISSING: Final[Mapping[str, tuple[str, ...]]] = {
    "agents": ("nobody", "a" * 63),
    "repos": ("nothing", "r" * 63),
}
_MISSING_ID: Final = ("0" * 20, "z" * 20, "ilouilouilouilouilou", "0123456789abcdefghij")
_COLLECTION = re.compile(r"(tasks|agents|repos|goals|tokens|changes|backups)/")


@dataclass(frozen=True)
class Maker:
    """Draws messages for one world."""

    draw: Draw
    names: Names
    malice: int
    density: int
    """How many of a hundred fields that may be absent are there."""

    def message(self, kind: Kind, depth: int = 0) -> Any:
        """A message of that type."""
        made = _class_of(kind)()
        chosen = {oneof.name: self._choice(oneof.fields) for oneof in kind.oneofs if not _is_optional(oneof)}
        for one in kind.fields:
            oneof = one.containing_oneof
            if oneof is not None and not _is_optional(oneof):
                if chosen[oneof.name] is not one:
                    continue
                if not self._wanted(_oneof_required(oneof) or self._roll(8) > 0):
                    continue
            elif not self._wanted(self._present(one)):
                continue
            self._fill(made, one, depth)
        if "page_token" in kind.fields_by_name:
            made.page_token = self._page_token(made)
        return made

    def _present(self, one: Kind) -> bool:
        rules = _rules(one)
        if rules.required or _min(rules) > 0:
            return True
        return self._roll(100) < self.density

    def _wanted(self, wanted: bool) -> bool:
        return wanted and not (self.malice and self._roll(100) < self.malice // 4)

    def _fill(self, made: protobuf.Message, one: Kind, depth: int) -> None:
        kind = one.message_type
        if kind is not None and kind.GetOptions().map_entry:
            self._map(getattr(made, one.name), one, depth)
        elif one.is_repeated:
            self._list(getattr(made, one.name), one, depth)
        elif kind is not None:
            if depth < DEPTH_MAX:
                getattr(made, one.name).CopyFrom(self._inner(one, _rules(one), depth))
        else:
            setattr(made, one.name, self._scalar(one, _rules(one)))

    def _map(self, into: Any, one: Kind, depth: int) -> None:
        rules = _rules(one).map
        key, value = one.message_type.fields_by_name["key"], one.message_type.fields_by_name["value"]
        for _ in range(self._count(0, rules.max_pairs or 32)):
            text = self._scalar(key, rules.keys)
            if value.message_type is None:
                into[text] = self._scalar(value, rules.values)
            else:
                into[text].CopyFrom(self._inner(value, rules.values, depth))

    def _list(self, into: Any, one: Kind, depth: int) -> None:
        rules = _rules(one).repeated
        count = self._count(rules.min_items, rules.max_items or 100)
        if one.message_type is not None:
            if depth >= DEPTH_MAX:
                return
            few = [self._inner(one, rules.items, depth) for _ in range(min(count, ITEMS_MAX))]
            into.extend(few[n % len(few)] for n in range(count) if few)
            return
        values = [self._scalar(one, rules.items) for _ in range(min(count, ITEMS_MAX))]
        if values and count > len(values):
            values += [values[n % len(values)] for n in range(count - len(values))]
        if rules.unique and not (self.malice and self._spoils()):
            values = list(dict.fromkeys(values))
        into.extend(values)

    def _count(self, low: int, high: int) -> int:
        size = self._roll(20)
        if self.malice and self._spoils():
            return high + 1 if size % 2 else 0
        if size == 0:
            return min(high, 300)
        return max(low, min(high, size % (ITEMS_MAX + 1)))

    def _inner(self, one: Kind, rules: Any, depth: int) -> Any:
        kind = one.message_type
        if kind.full_name == "google.protobuf.Duration":
            return self._duration(kind, rules)
        if kind.full_name == "google.protobuf.Timestamp":
            return self._stamp(kind)
        if kind.full_name == "google.protobuf.FieldMask":
            paths = st.sampled_from(["*", "display_name", "url", "checks", "default_branch", "merge_style", "paused"])
            odd = st.sampled_from([*ODD, "name", "state", "repo.url", "offer.slots"])
            count = self.draw(st.integers(0 if self.malice else 1, 4))
            made = _class_of(kind)()
            made.paths.extend(self.draw(odd if self.malice and self._spoils() else paths) for _ in range(count))
            return made
        return self.message(kind, depth + 1)

    def _duration(self, kind: Kind, rules: Any) -> Any:
        made = _class_of(kind)()
        low = rules.duration.gte.seconds or (1 if rules.duration.HasField("gt") else 0)
        high = rules.duration.lte.seconds or 315_576_000_000
        if self.malice and self._spoils():
            made.seconds = self.draw(st.sampled_from([*OUTSIDE, -1, 0, high + 1]))
            made.nanos = self.draw(st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31), 999_999_999]))
        else:
            made.seconds = self.draw(st.sampled_from([low, high, min(low + 1, high), min(low + 600, high)]))
            made.nanos = 0 if made.seconds == high else self.draw(st.sampled_from([0, 0, 1, 999_999_999]))
        return made

    def _stamp(self, kind: Kind) -> Any:
        made = _class_of(kind)()
        spoiled = self.malice and self._spoils()
        # The rules beside the fields say nothing of what a timestamp may hold, so a few are odd in any case.
        odd = spoiled or self._roll(10) == 0
        made.seconds = self.draw(st.sampled_from(OUTSIDE if odd else TIMES))
        made.nanos = self.draw(st.sampled_from([0, -1, 2**31 - 1, -(2**31)] if odd else [0, 1, 999_999_999]))
        return made

    def _scalar(self, one: Kind, rules: Any) -> Any:
        if one.type == Field.TYPE_STRING:
            return self._text(one, rules.string)
        if one.type == Field.TYPE_BYTES:
            return self._bytes(rules.bytes)
        if one.type == Field.TYPE_BOOL:
            return self._roll(2) == 1
        if one.type == Field.TYPE_ENUM:
            return self._enum(one, rules.enum)
        if one.type in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT):
            return self.draw(st.sampled_from([0.0, 0.5, -1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324]))
        return self._number(one, rules)

    def _number(self, one: Kind, rules: Any) -> int:
        if one.name == "generation" and self._roll(3):
            return 1  # what is held is mostly held for the first time
        low, high = _RANGE[one.cpp_type]
        numbers = rules.int32 if one.type == Field.TYPE_INT32 else rules.int64
        if not (self.malice and self._spoils()):
            low = max(low, numbers.gte) if numbers.HasField("gte") else low
            high = min(high, numbers.lte) if numbers.HasField("lte") else high
        fitting = [number for number in (*NUMBERS, low, high) if low <= number <= high]
        return int(self.draw(st.sampled_from(fitting)))

    def _enum(self, one: Kind, rules: Any) -> int:
        if self.malice and self._spoils():
            return int(self.draw(st.sampled_from([0, 4, 99, -1, 2**31 - 1, -(2**31)])))
        known = [value.number for value in one.enum_type.values if value.number not in rules.not_in]
        return int(self.draw(st.sampled_from(known)))

    def _bytes(self, rules: Any) -> bytes:
        size = self.draw(st.sampled_from([0, 1, 40, 1_000, 5_000]))
        if self.malice and self._spoils():
            size = (rules.max_len or 300_000) + 1
        return bytes([self._roll(256)]) * int(size)

    def _text(self, one: Kind, rules: Any) -> str:
        if self.malice and self._spoils():
            return str(self.draw(st.one_of(st.sampled_from(ODD), st.text(max_size=40))))
        special = self._special(one)
        if special is not None:
            return special
        collection = _COLLECTION.search(rules.pattern)
        if collection is not None and "wip" not in rules.pattern:
            missing = [f"{collection[1]}/{id}" for id in MISSING.get(collection[1], _MISSING_ID)]
            existing = self.names.of(collection[1])
            chosen = missing if self._roll(5) == 0 or not existing else existing
            return str(self.draw(st.sampled_from(chosen)))
        if rules.pattern:
            made = str(self.draw(_matching(rules.pattern)))
            return made[: rules.max_len] if rules.max_len else made
        return self._prose(rules)

    def _special(self, one: Kind) -> str | None:
        """A value for fields whose meaning no rule tells."""
        if one.name == "page_token":
            return ""  # when the fields that it is bound to are known
        if one.name == "filter":
            return str(self.draw(st.sampled_from(FILTERS)))
        if one.name == "etag":
            return str(self.draw(st.sampled_from(["", "", "1", "2", "99", "-1", "x", "\0"])))
        if one.name == "request_id":
            return str(self.draw(st.sampled_from(["", "", "request-1", "request-2", "0" * 64])))
        if one.name == "order_by":
            return str(self.draw(st.sampled_from(["", "create_time", "create_time desc"])))
        if one.name in ("goal", "repo", "agent", "task", "backup") and not _rules(one).string.pattern:
            return str(self.draw(st.sampled_from(["", *self.names.of(f"{one.name}s")])))
        if one.name == "repo_id" and self._roll(2):
            return str(self.draw(st.sampled_from(self.names.ids.get("repos") or ["main"])))
        if one.name == "url":
            return str(self.draw(st.sampled_from(URLS)))
        return None

    def _page_token(self, made: Any) -> str:
        """None, one that a list gave, or one that somebody made up and hashed well: the hash is no secret."""
        tied = bound(made)
        forged = page.encode(self.draw(st.sampled_from(CURSORS)), *tied)
        token = self.draw(st.sampled_from(["", "", forged, forged, not_text(tied), "AAAA", "é", *self.names.tokens]))
        return str(token)[:1_024]

    def _prose(self, rules: Any) -> str:
        most = rules.max_len or rules.max_bytes // 4 or 4_096
        sort = self._roll(12)
        if sort == 0:
            text = "x" * most
        elif sort == 1:
            text = "\U0001f980" * most
        elif sort < 6:
            text = str(self.draw(st.sampled_from(ODD)))
        else:
            text = str(self.draw(st.sampled_from(["true", "a word", "make test", "main", "src/*.py", "x"])))
        text = text[:most]
        return text if len(text) >= rules.min_len else "x" * rules.min_len

    def _choice(self, among: Any) -> Any:
        return self.draw(st.sampled_from(list(among)))

    def _roll(self, sides: int) -> int:
        return int(self.draw(st.integers(0, sides - 1)))

    def _spoils(self) -> bool:
        return self._roll(100) < self.malice


URLS: Final = (
    "https://example.com/a/b.git",
    "git@example.com:a/b.git",
    "ssh://git@example.com/a/b",
    "file:///srv/repo",
    "/srv/repo",
    "https://user:secret@example.com/x",
    "ext::sh -c touch% /tmp/x",
    "-oProxyCommand=touch",
    "http://[::1",
    "https://example.com:99999999/x",
    "file://\0",
    "https://\u202eexample.com/",
    "ssh://-oProxyCommand=x/y",
)
_RANGE: Final = {
    Field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    Field.CPPTYPE_UINT32: (0, 2**32 - 1),
    Field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Field.CPPTYPE_UINT64: (0, 2**64 - 1),
}

MALICE: Final = (0, 0, 0, 3, 15, 60)
"""Half of all messages keep every rule; the others break one, some or most."""
DENSITY: Final = (3, 15, 60)


def of(kind: Kind, names: Names, likely: bytes = b"") -> st.SearchStrategy[Any]:
    """Messages of that type. `likely` is one that is served: some are drawn on top of it."""

    @st.composite
    def drawn(draw: Draw) -> Any:
        maker = Maker(draw, names, draw(st.sampled_from(MALICE)), draw(st.sampled_from(DENSITY)))
        made = maker.message(kind)
        if likely and draw(st.booleans()):
            base = _class_of(kind).FromString(likely)
            base.MergeFrom(made)
            return base
        return made

    return drawn()


def bound(asked: Any) -> tuple[object, ...]:
    """What a page token of this request is bound to."""
    kind = asked.DESCRIPTOR.name.removeprefix("List").removesuffix("Request").lower()
    if kind == "taskevents":
        return ("events", asked.name)
    if kind == "events":
        return ("events", asked.type_prefix, asked.subject)
    if kind == "tasks":
        return (kind, asked.filter, asked.order_by == "create_time desc")
    return (kind, asked.filter) if "filter" in asked.DESCRIPTOR.fields_by_name else (kind,)


def not_text(tied: tuple[object, ...]) -> str:
    """A page token that checks and whose cursor is no text, as `page.encode` would never make it."""
    raw = b"\xff\xfe"
    digest = hashlib.blake2b(raw + b"\0\0" + "\0".join(map(str, tied)).encode(), digest_size=8).digest()
    return base64.urlsafe_b64encode(b"\x01" + digest + raw).decode().rstrip("=")


def _class_of(kind: Kind) -> Any:
    return message_factory.GetMessageClass(kind)


def _rules(one: Kind) -> Any:
    return one.GetOptions().Extensions[validate_pb2.field]


def _min(rules: Any) -> int:
    """Is there a rule that an absent value breaks?"""
    text = rules.string
    needs = text.pattern and not re.search(text.pattern.removesuffix("$") + r"\Z", "")
    return int(bool(rules.repeated.min_items or text.min_len or needs or rules.int64.gte > 0 or 0 in rules.enum.not_in))


def _is_optional(oneof: Any) -> bool:
    return len(oneof.fields) == 1 and oneof.name.startswith("_")


def _oneof_required(oneof: Any) -> bool:
    return bool(oneof.GetOptions().Extensions[validate_pb2.oneof].required)


_MATCHING: dict[str, st.SearchStrategy[str]] = {}


def _matching(pattern: str) -> st.SearchStrategy[str]:
    if pattern not in _MATCHING:
        exact = pattern.removesuffix("$") + r"\Z"
        _MATCHING[pattern] = st.from_regex(exact, fullmatch=True)
    return _MATCHING[pattern]
