"""Which points of the product a fault can hit, and which were hit: the awaits, by their lines, and the transactions."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

#: What runs in the simulation, but for what only threads, sockets and files reach.
ROOMS = ("hub/engine/live", "hub/engine/desk", "hub/engine/care", "hub/engine/alerts", "hub/rpc", "sidecar/wire", "kit")
LEFT_OUT = frozenset(
    {
        "sidecar/wire/journal.py",
        "sidecar/wire/knock.py",
        "sidecar/wire/state.py",
        "hub/engine/desk/intake.py",
        "kit/serving.py",
        "kit/signals.py",
        "kit/channel.py",
        "kit/certificate.py",
    }
)


class Covered(NamedTuple):
    """Lines with an await, and how many of them had a fault."""

    hit: int
    all: int
    missed: list[str]


def awaits() -> set[str]:
    """Every line of the simulated rooms at which a task can be suspended."""
    found: set[str] = set()
    for room in ROOMS:
        for file in sorted((ROOT / room).glob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            if name in LEFT_OUT:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor):
                    found.add(f"{name}:{node.lineno}")
    return found


def covered(places: Counter[str]) -> Covered:
    """Of the awaits, those at which a step came late or a process died."""
    known = awaits()
    hit = {place for place in places if place in known}
    return Covered(len(hit), len(known), sorted(known - hit))
