"""Typed reading of YAML nodes that collects what is wrong instead of stopping at the first mistake.

Each value that is read is also *placed*: which field of the proto it became, where it stood. So a rule of the proto
that is broken later can be told to a person as a path and a line of their own file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kit import errors, yamltree

# Mistakes told of one file. A person mends a few at a time, and the list travels in an error message.
VIOLATIONS_MAX = 50
# Longer numbers say nothing that the rules of the contract would accept.
DIGITS_MAX = 15
# What is repeated of a wrong value in a message.
SHOWN_CHARS_MAX = 60

# All the words that YAML 1.1 has for it.
TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

_WHOLE = re.compile(rf"[+-]?[0-9]{{1,{DIGITS_MAX}}}")
_SECONDS = re.compile(rf"[0-9]{{1,{DIGITS_MAX}}}(\.[0-9]{{1,9}})?")
# "merge" and "value" are how YAML 1.1 sees a bare `<<` and `=`.
_TEXT_KINDS = ("str", "merge", "value")
_KINDS = {"int": "a number", "float": "a number", "bool": "true/false", "timestamp": "a date"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the file a field of the goal stands."""

    path: str
    line: int


class Shape:
    """What is wrong with one file, and where each field of the goal came from."""

    def __init__(self) -> None:
        self._violations: list[errors.Violation] = []
        self._places: dict[str, Place] = {}

    def refuse(self, path: str, line: int, reason: str) -> None:
        """Note one mistake."""
        if len(self._violations) < VIOLATIONS_MAX:
            self._violations.append(errors.Violation(path, f"line {line}: {reason}"))

    def place(self, target: str, path: str, line: int) -> None:
        """Remember where the proto field `target` was read from."""
        self._places[target] = Place(path, line)

    def raise_if_refused(self) -> None:
        """Raise Invalid with every mistake noted so far."""
        if self._violations:
            raise errors.Invalid(violations=self._violations, reason="BAD_FILE")

    def locate(self, violation: errors.Violation) -> errors.Violation:
        """The same violation in terms of the file: of its field, or of the nearest thing around it."""
        around = violation.field
        while around and around not in self._places:
            around = around[: max(around.rfind("."), around.rfind("["), 0)]
        place = self._places.get(around, Place("", 1))
        rest = violation.field[len(around) :] if place.path else violation.field
        return errors.Violation(
            f"{place.path}{rest}" or "file", f"line {place.line}: {violation.description}", violation.rule
        )


@dataclass(frozen=True, slots=True)
class Item:
    """One value of the file: its friendly path and its node."""

    shape: Shape
    path: str
    node: yamltree.Node

    @property
    def line(self) -> int:
        return self.node.line

    def refuse(self, reason: str) -> None:
        """Note that this value is wrong."""
        self.shape.refuse(self.path, self.line, reason)

    def text(self, target: str) -> str:
        """Any text; "" when it is refused."""
        text = self._scalar(target, "text")
        if text is None:
            return ""
        assert isinstance(self.node, yamltree.Scalar)
        if self.node.kind in _KINDS:
            self.refuse(f"must be text, {_shown(text)} is {_KINDS[self.node.kind]} to YAML: put it in quotes")
        elif self.node.kind not in _TEXT_KINDS:
            self.refuse("must be plain text: YAML tags are not taken")
        elif "\0" in text:
            self.refuse("must not contain a NUL character")
        elif not _is_encodable(text):
            self.refuse("contains half of a surrogate pair, which is no character")
        else:
            return text
        return ""

    def line_text(self, target: str) -> str:
        """Text of one line."""
        text = self.text(target)
        if "\n" in text or "\r" in text:
            self.refuse("must be one line")
            return ""
        return text

    def word(self, target: str, words: Mapping[str, int]) -> int:
        """One of a few words, as its number; 0 when it is refused."""
        text = self._scalar(target, "a word")
        if text is not None and text.lower() not in words:
            self.refuse(f"must be one of {', '.join(words)}, not {_shown(text)}")
        return words.get((text or "").lower(), 0)

    def truth(self, target: str) -> bool:
        """true or false; False when it is refused."""
        text = self._scalar(target, "true or false")
        if text is not None and text.lower() not in TRUTHS:
            self.refuse(f"must be true or false, not {_shown(text)}")
        return TRUTHS.get((text or "").lower(), False)

    def whole(self, target: str) -> int:
        """A whole number; 0 when it is refused. Its range is the contract's business."""
        text = self._scalar(target, "a whole number")
        if text is None:
            return 0
        number = int(text) if _WHOLE.fullmatch(text) else None
        if number is None or not -(2**31) <= number < 2**31:
            self.refuse(f"must be a whole number, not {_shown(text)}")
            return 0
        return number

    def seconds(self, target: str) -> float | None:
        """A number of seconds; None when it is refused."""
        text = self._scalar(target, "a number of seconds")
        if text is None:
            return None
        if not _SECONDS.fullmatch(text) or float(text) > 1e9:
            self.refuse(f"must be a number of seconds, not {_shown(text)}")
            return None
        return float(text)

    def list(self) -> Iterator[Item]:
        """The items of a list; none when it is refused."""
        if not isinstance(self.node, yamltree.Sequence):
            self.refuse("must be a list")
            return
        for index, node in enumerate(self.node.items):
            yield Item(self.shape, f"{self.path}[{index}]", node)

    def fields(self, keys: Sequence[str] | None) -> Fields:
        """The values by key; keys outside of `keys` are refused (None: any key may be there)."""
        if not isinstance(self.node, yamltree.Mapping):
            self.refuse("must hold keys and values")
            return Fields(self, {}, broken=True)
        found = {}
        for key, node in self.node.items.items():
            path = f"{self.path}.{key}" if self.path else key
            if keys is not None and key not in keys:
                where = path if len(key) <= SHOWN_CHARS_MAX else self.path or "file"
                self.shape.refuse(
                    where, self.node.key_lines[key], f"unknown key {_shown(key)}; known are {', '.join(keys)}"
                )
            elif not (isinstance(node, yamltree.Scalar) and node.kind == "null"):
                found[key] = Item(self.shape, path, node)
        return Fields(self, found)

    def _scalar(self, target: str, wanted: str) -> str | None:
        self.shape.place(target, self.path, self.line)
        if isinstance(self.node, yamltree.Scalar) and self.node.kind != "null":
            return self.node.text
        self.refuse(f"must be {wanted}")
        return None


class Fields:
    """The values of a mapping by key; a key without a value (`lane:`) counts as absent."""

    def __init__(self, holder: Item, items: dict[str, Item], *, broken: bool = False) -> None:
        self.holder = holder
        self._items = items
        self._broken = broken

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def get(self, key: str) -> Item | None:
        """The value of a key; None when it is absent."""
        return self._items.get(key)

    def need(self, key: str) -> Item | None:
        """The same, noting its absence as a mistake."""
        item = self._items.get(key)
        if item is None and not self._broken:
            path = f"{self.holder.path}.{key}" if self.holder.path else key
            self.holder.shape.refuse(path, self.holder.line, "is required")
        return item

    def text(self, key: str, target: str) -> str:
        item = self.get(key)
        return item.text(target) if item else ""

    def line_text(self, key: str, target: str) -> str:
        item = self.get(key)
        return item.line_text(target) if item else ""

    def word(self, key: str, target: str, words: Mapping[str, int]) -> int:
        item = self.get(key)
        return item.word(target, words) if item else 0

    def truth(self, key: str, target: str) -> bool:
        item = self.get(key)
        return item.truth(target) if item else False

    def whole(self, key: str, target: str) -> int:
        item = self.get(key)
        return item.whole(target) if item else 0

    def seconds(self, key: str, target: str) -> float | None:
        item = self.get(key)
        return item.seconds(target) if item else None

    def texts(self, key: str, target: str) -> list[str]:
        """A list of one-line texts."""
        item = self.get(key)
        if item is None:
            return []
        self.holder.shape.place(target, item.path, item.line)
        return [entry.line_text(f"{target}[{index}]") for index, entry in enumerate(item.list())]

    def labels(self, key: str, target: str) -> dict[str, str]:
        """A mapping of one-line texts."""
        item = self.get(key)
        if item is None:
            return {}
        self.holder.shape.place(target, item.path, item.line)
        values = item.fields(None)
        return {name: value.line_text(f'{target}["{name}"]') for name, value in values if _is_label(name, value)}

    def __iter__(self) -> Iterator[tuple[str, Item]]:
        return iter(self._items.items())


def _is_label(name: str, value: Item) -> bool:
    good = _is_encodable(name) and "\0" not in name
    if not good:
        value.refuse("its key contains a character that is none")
    return good


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}...")
