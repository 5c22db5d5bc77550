"""The one way to standard output: tables and text for people, proto JSON for scripts.

JSON keeps the names of the proto's fields and prints fields that hold their default, so that a script finds every key.
One thing is one object, a list is one list, a watch is one object a line. Text that comes from elsewhere (titles,
paths, output of commands) never reaches the terminal unfiltered, nor is it taken for markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf import message as protobuf
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cli import words

M = TypeVar("M", bound=protobuf.Message)

# A pipe has no width: lines are as long as their content. Rich needs a number.
PIPE_WIDTH = 4096

#: Header of a column, and the text of its cell.
Column = tuple[str, Callable[[M], str]]

STYLES = {
    "succeeded": "green", "merged": "green", "idle": "green", "serving": "green", "holds": "green",
    "running": "cyan", "merging": "cyan", "assigned": "cyan", "working": "cyan", "active": "cyan", "verifying": "cyan",
    "dead": "red", "failed": "red", "error": "red", "offline": "red", "isolated": "red", "blocked": "red",
    "parked": "yellow", "returned": "yellow", "cancelled": "yellow", "draining": "yellow", "paused": "yellow",
    "warning": "yellow",
}  # fmt: skip


class Format(Enum):
    """What standard output is for."""

    TABLE = "table"
    JSON = "json"


class Output:
    """Standard output in one of the formats."""

    def __init__(self, format: Format) -> None:
        self.format = format
        terminal = sys.stdout.isatty()
        self.console = Console(highlight=False, width=None if terminal else PIPE_WIDTH)

    @property
    def is_json(self) -> bool:
        return self.format is Format.JSON

    @property
    def is_live(self) -> bool:
        """May a display be redrawn in place?"""
        return not self.is_json and self.console.is_terminal and not self.console.is_dumb_terminal

    def one(self, message: M, view: Callable[[M], RenderableType]) -> None:
        """One thing."""
        if self.is_json:
            print(json.dumps(as_dict(message), indent=2, ensure_ascii=False), flush=True)
        else:
            self.show(view(message))

    def many(self, messages: Sequence[M], columns: Sequence[Column[M]], empty: str = "nothing") -> None:
        """A list of things of one kind."""
        if self.is_json:
            print(json.dumps([as_dict(message) for message in messages], indent=2, ensure_ascii=False), flush=True)
        elif messages:
            self.show(table(messages, columns))
        else:
            self.show(cell(empty))

    def line(self, message: M, text: Callable[[M], str]) -> None:
        """One of many that come one by one."""
        if self.is_json:
            print(json.dumps(as_dict(message), ensure_ascii=False), flush=True)
        else:
            print(words.plain(text(message)), flush=True)

    def show(self, what: RenderableType) -> None:
        """Something for people only."""
        if self.console.is_terminal:
            self.console.print(what, markup=False)
            return
        with self.console.capture() as capture:
            self.console.print(what, markup=False)
        # A table pads its last column to the width of the widest cell: of no use in a pipe.
        print("\n".join(line.rstrip() for line in capture.get().splitlines()), flush=True)


def as_dict(message: protobuf.Message) -> dict[str, Any]:
    """Proto JSON with the proto's own field names."""
    result: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return result


def table(messages: Iterable[M], columns: Sequence[Column[M]]) -> Table:
    """A table without lines: it reads well on a terminal and survives `cut` and `awk`."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for index, (header, _) in enumerate(columns):
        grid.add_column(header, overflow="fold", no_wrap=index == 0)
    for message in messages:
        grid.add_row(*(cell(text(message)) for _, text in columns))
    return grid


def sheet(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values, one a line; rows without a value are left out."""
    grid = Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value:
            grid.add_row(name, cell(value))
    return grid


def cell(text: str) -> Text:
    """Text that is only text, in the colour of the state that it names."""
    return Text(words.plain(text), style=STYLES.get(text, ""))
