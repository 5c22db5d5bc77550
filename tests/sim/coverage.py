"""Which points of the product a fault can hit, and which were hit: the awaits, by their lines, and the transactions."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from tests.sim import beyond

ROOT: Final = Path(__file__).resolve().parents[2]

#: Where the product awaits: everything but the nodes' roots, the commands and the dashboard, which no simulation runs.
ROOMS: Final = (
    "hub/engine/live",
    "hub/engine/desk",
    "hub/engine/care",
    "hub/engine/alerts",
    "hub/engine/notify",
    "hub/rpc",
    "hub/store",
    "sidecar/wire",
    "kit",
)

#: Entering them never waits, nor does leaving them: they only set a timer, and what they close (our own generators)
#: has no clean-up that waits.
NEVER_WAITS: Final = frozenset({"timeout", "timeout_at", "aclosing"})


Waits = ast.Await | ast.AsyncFor | ast.AsyncWith


class Await(NamedTuple):
    """A line at which a task can be suspended."""

    place: str
    """File and line."""
    owner: str
    """File, function and what is awaited, which survive a change of other lines:
    `hub/rpc/tasks.py::TaskService.CancelTask::self._tasks.cancel(id)`.
    """


class Covered(NamedTuple):
    """Awaits that had a fault of their own, of those that a simulation can reach."""

    hit: int
    all: int
    missed: list[Await]
    rare: list[Await]
    """Of the missed ones, those that may be."""


@cache
def awaits() -> tuple[Await, ...]:
    """Every await of the rooms, in the order of the files."""
    found: dict[str, Await] = {}
    for room in ROOMS:
        for file in sorted((ROOT / room).glob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            for owner, node in _lines(ast.parse(file.read_text(encoding="utf-8")), ""):
                place = f"{name}:{node.lineno}"
                if place not in found:
                    found[place] = Await(place, f"{name}::{owner}::{_told(node)}")
    return tuple(found.values())


def _told(node: Waits) -> str:
    if isinstance(node, ast.Await):
        return ast.unparse(node.value)
    return "async for" if isinstance(node, ast.AsyncFor) else "async with"


def _lines(node: ast.AST, owner: str) -> Iterator[tuple[str, Waits]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _lines(child, f"{owner}.{child.name}" if owner else child.name)
            continue
        if isinstance(child, ast.Await | ast.AsyncFor) or (isinstance(child, ast.AsyncWith) and _may_wait(child)):
            yield owner, child
        yield from _lines(child, owner)


def _may_wait(node: ast.AsyncWith) -> bool:
    called = [item.context_expr.func for item in node.items if isinstance(item.context_expr, ast.Call)]
    names = {getattr(one, "attr", getattr(one, "id", "")) for one in called}
    return len(called) < len(node.items) or not names <= NEVER_WAITS


def reachable() -> tuple[Await, ...]:
    """Those that the table of the others does not list."""
    return tuple(one for one in awaits() if not beyond.reason(one.owner))


def covered(struck: Counter[str]) -> Covered:
    """Of the awaits that can be reached, those at which something was done."""
    known = reachable()
    missed = [one for one in known if not struck[one.place]]
    return Covered(len(known) - len(missed), len(known), missed, [one for one in missed if beyond.rare(one.owner)])
