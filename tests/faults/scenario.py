"""What a scenario is, and where all of them are found.

A scenario does something bad to real processes and says by which figure it is judged. It holds only if its broken
twins fail: the same, with one guard taken out of a node.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.lab import Lab

FOLDER = Path(__file__).parent / "scenarios"
#: Seeds of the long run of a scenario that names no number of its own.
SEEDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """The scenario with guards taken out, which must fail."""

    #: The node ("hub" or "sidecar") and the names of guards in `tests/faults/guards`.
    node: str
    guards: tuple[str, ...]
    #: A regular expression: what the failure must say, so that a twin that fails by accident proves nothing.
    finds: str
    #: What the twin's size has otherwise than the scenario's quick size (or "long": to begin with that one).
    size: Mapping[str, Any] = field(default_factory=dict)
    #: Seeds tried until one fails: chance often has a say in whether the hole is hit.
    seeds: int = 3

    @property
    def name(self) -> str:
        return f"{self.node} without {' and '.join(self.guards)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One kind of fault."""

    name: str
    #: One line: when it counts as passed.
    passes: str
    #: Does it; returns the figure. Raises AssertionError when the criterion is not met, and lets the oracle judge.
    run: Callable[[Lab], Awaitable[str]]
    #: Its parameters, read with `lab.size`. Each must be in both.
    quick: Mapping[str, Any]
    long: Mapping[str, Any]
    twins: tuple[Twin, ...]
    #: Seeds of the long run.
    seeds: int = SEEDS
    #: Why it cannot run here; empty: it can.
    skip: Callable[[], str] = lambda: ""

    def __post_init__(self) -> None:
        assert self.quick.keys() == self.long.keys(), f"{self.name}: the two sizes have other parameters"
        assert self.twins, f"{self.name} has no broken twin, so it proves nothing"


def everything() -> dict[str, Scenario]:
    """All scenarios by name; each module of the folder has a tuple SCENARIOS."""
    found: dict[str, Scenario] = {}
    for file in sorted(FOLDER.glob("*.py")):
        for one in importlib.import_module(f"tests.faults.scenarios.{file.stem}").SCENARIOS:
            assert one.name not in found, one.name
            found[one.name] = one
    return found
