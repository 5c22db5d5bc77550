"""The filter of the lists: `field = value AND field = value`, parsed into what it asks for.

A small, documented subset of AIP-160: equality only, terms joined by AND, quotes where a value has spaces. Each list
names its fields and how each value is read; everything else is refused with the place where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Final, Never, TypeVar

from kit import errors, ids

E = TypeVar("E", bound=IntEnum)

TERMS_MAX: Final = 16
"""Each term costs one comparison per record looked at."""

Read = Callable[[str], object]
"""Reads the text of a value; raises ValueError with a sentence that says what it must be."""

_TOKEN = re.compile(r'\s*(?:(?P<sign>=)|"(?P<quoted>(?:[^"\\]|\\["\\])*)"|(?P<bare>[^\s="]+))')


def parse(text: str, fields: Mapping[str, Read]) -> dict[str, object]:
    """What the filter asks for, by field. A name that ends in "." in `fields` admits any key behind it (`labels.os`).

    Raises Invalid naming `filter` and the position (counted from 1) of what it does not understand.
    """
    tokens = list(_tokens(text))
    wanted: dict[str, object] = {}
    at = 0
    while tokens:
        if wanted:
            if not _is_and(tokens, at):
                _refuse(_position(tokens, at, text), "expected AND between two terms")
            at += 1
        name, value, at = _term(tokens, at, text, fields)
        if name in wanted:
            _refuse(_position(tokens, at - 3, text), f"{name} is asked for twice")
        wanted[name] = value
        if len(wanted) > TERMS_MAX:
            _refuse(_position(tokens, at - 3, text), f"more than {TERMS_MAX} terms")
        if at == len(tokens):
            break
    return wanted


def choice(kind: type[E]) -> Read:
    """Reads a name of an enum in any case, with or without the proto's prefix (`QUEUED`, `queued`, `STATE_QUEUED`)."""
    by_name = {member.name: member for member in kind}

    def read(text: str) -> E:
        upper = text.upper()
        member = by_name.get(upper) or next(
            (m for name, m in by_name.items() if upper.endswith(f"_{name}") and upper[: -len(name) - 1] in _PREFIXES),
            None,
        )
        if member is None:
            raise ValueError(f"must be one of {', '.join(by_name)}")
        return member

    return read


def resource(collection: str) -> Read:
    """Reads the name of a resource (`goals/{id}`); gives its id."""

    def read(text: str) -> str:
        try:
            return ids.parse_name(collection, text)
        except errors.Invalid:
            raise ValueError(f"must be a name of the form {collection}/{{id}}") from None

    return read


def plain(text: str) -> str:
    """Reads any text."""
    return text


def flag(text: str) -> bool:
    """Reads true or false."""
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


_PREFIXES: Final = frozenset({"STATE", "LANE", "TIER", "TASK_KIND", "SCOPE", "DELIVERY"})

_Token = tuple[int, str, str]
"""Position from 1, sort (`sign`, `quoted`, `bare`), text."""


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            _refuse(at + 1 + len(text[at:]) - len(text[at:].lstrip()), "a quote is not closed")
        sort = match.lastgroup or ""
        value = match.group(sort)
        start = match.start(sort) + (0 if sort == "quoted" else 1)
        found.append((start, sort, re.sub(r"\\(.)", r"\1", value) if sort == "quoted" else value))
        at = match.end()
    return found


def _term(tokens: list[_Token], at: int, text: str, fields: Mapping[str, Read]) -> tuple[str, object, int]:
    if at >= len(tokens) or tokens[at][1] != "bare":
        _refuse(_position(tokens, at, text), "expected the name of a field")
    start, _, name = tokens[at]
    read = None if name.endswith(".") else fields.get(name)
    if read is None:
        read = next((r for f, r in fields.items() if f.endswith(".") and name.startswith(f) and name != f), None)
    if read is None:
        known = ", ".join(f"{f}KEY" if f.endswith(".") else f for f in fields)
        _refuse(start, f"{_short(name)} is not a field of this list, which are {known}")
    if at + 1 >= len(tokens) or tokens[at + 1][1] != "sign":
        _refuse(_position(tokens, at + 1, text), f"expected = after {_short(name)}")
    if at + 2 >= len(tokens) or tokens[at + 2][1] == "sign" or _is_and(tokens, at + 2):
        _refuse(_position(tokens, at + 2, text), f"expected a value for {_short(name)}")
    position, _, value = tokens[at + 2]
    try:
        return name, read(value), at + 3
    except ValueError as error:
        _refuse(position, f"{name} is {_short(value)}, {error}")


def _is_and(tokens: list[_Token], at: int) -> bool:
    return at < len(tokens) and tokens[at][1] == "bare" and tokens[at][2] == "AND"


def _position(tokens: list[_Token], at: int, text: str) -> int:
    return tokens[at][0] if at < len(tokens) else len(text.rstrip()) + 1


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."


def _refuse(position: int, sentence: str) -> Never:
    raise errors.Invalid.of("filter", f"at {position}: {sentence}", reason="BAD_FILTER")
