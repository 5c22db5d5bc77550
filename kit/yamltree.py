"""Reads one YAML document into plain nodes that know their line, within bounds, whatever the bytes say.

PyYAML's composer alone is not enough for text from strangers: it recurses as deep as the text nests, lets a later key
silently win over an earlier one, and hands out aliases whose expansion can be exponential. Here the depth and the
number of nodes are bounded *while* composing (the scanner is lazy, so what lies behind a bound is never read), the
number of nodes is counted once more as they are visited through aliases, and nothing is ever constructed from a tag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from kit import errors

# A plan of 200 tasks with 32 checks each has about 60,000 nodes at the very most, a real one below 5,000; pure-Python
# YAML reads about 20,000 nodes a second, and the hub reads files too.
NODES_MAX = 40_000
# The deepest path of a goal file (plan / tasks / [i] / checks / [j] / timeout_s) is 7 nodes deep.
DEPTH_MAX = 12

PREFIX = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as it was written: its text, its YAML type ("str", "int", "bool", ...) and its line."""

    text: str
    kind: str
    line: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with their values; a key is text, whatever YAML would make of it."""

    items: dict[str, Node]
    line: int
    key_lines: dict[str, int]


Node = Scalar | Sequence | Mapping


class _Composer(yaml.SafeLoader):
    """SafeLoader up to its nodes, with bounds; its constructors are never called."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the library has no types here
        self._count += 1
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {DEPTH_MAX} levels", mark)
        if self._count > NODES_MAX:
            raise yaml.composer.ComposerError(None, None, f"more than {NODES_MAX} values", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def read(text: str, *, line_first: int = 1) -> Node | None:
    """The one document in `text`, whose first line is `line_first` of its file; None when it is empty.

    Raises Invalid with the line and the reason.
    """
    try:
        loader = _Composer(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise refuse(line_first + mark.line if mark else line_first, f"not YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = line_first + text.count("\n", 0, error.position)
        raise refuse(line, f"not YAML: the character U+{int(error.character):04X} is not allowed") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # an escape such as \UFFFFFFFF, a %YAML of no version
        raise refuse(line_first, f"not YAML: {error}") from error
    return None if root is None else _Reader(line_first).node(root, 1)


def refuse(line: int, reason: str, field: str = "file") -> errors.Invalid:
    """The error for one line of a file."""
    return errors.Invalid.of(field, f"line {line}: {reason}", reason="BAD_FILE")


class _Reader:
    """Turns PyYAML's nodes into ours, counting every visit: an alias costs what it stands for."""

    def __init__(self, line_first: int) -> None:
        self._line_first = line_first
        self._visits = 0

    def node(self, node: yaml.Node, depth: int) -> Node:
        line = self._line(node)
        self._visits += 1
        if self._visits > NODES_MAX:
            raise refuse(line, f"more than {NODES_MAX} values, aliases followed")
        if depth > DEPTH_MAX:  # an alias may contain itself
            raise refuse(line, f"nested deeper than {DEPTH_MAX} levels")
        if isinstance(node, yaml.ScalarNode):
            return Scalar(node.value, node.tag.removeprefix(PREFIX), line)
        if isinstance(node, yaml.SequenceNode):
            return Sequence(tuple(self.node(item, depth + 1) for item in node.value), line)
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node, depth, line)

    def _mapping(self, node: yaml.MappingNode, depth: int, line: int) -> Mapping:
        items: dict[str, Node] = {}
        key_lines: dict[str, int] = {}
        for key, value in node.value:
            key_line = self._line(key)
            if not isinstance(key, yaml.ScalarNode):
                raise refuse(key_line, "a key must be text")
            if not key.value:
                raise refuse(key_line, "a key must not be empty")
            if key.value in items:
                raise refuse(
                    key_line, f"the key {key.value[:80]!r} is there twice, first in line {key_lines[key.value]}"
                )
            items[key.value] = self.node(value, depth + 1)
            key_lines[key.value] = key_line
        return Mapping(items, line, key_lines)

    def _line(self, node: yaml.Node) -> int:
        return self._line_first + int(node.start_mark.line)
