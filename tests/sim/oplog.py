"""The operation log of a run: what clients, sidecars and whoever runs them say that they did, on the true clock."""

from __future__ import annotations

from typing import Any, Protocol

from tests.oracle.record import Op, Verb
from tests.sim.process import EPOCH, Process


class Held(Protocol):
    """A holding, as sidecars know it."""

    @property
    def task(self) -> str: ...
    @property
    def generation(self) -> int: ...


class OpLog:
    """All operations, in their order."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.ops: list[Op] = []

    def note(self, node: str, verb: Verb, **fields: Any) -> None:
        """One operation, now."""
        self.ops.append(Op(EPOCH + self._loop.time(), node, verb, **fields))

    def began(self, process: Process, held: Held) -> None:
        """A sidecar's hands began."""
        self.note(f"sidecar/{process.name}", Verb.WORK_BEGUN, task=held.task, generation=held.generation)

    def ended(self, process: Process, held: Held) -> None:
        """They ended, whichever way."""
        if not process.dead:
            self.note(f"sidecar/{process.name}", Verb.WORK_ENDED, task=held.task, generation=held.generation)

    def acked(self, process: Process, held: Held, detail: str) -> None:
        """The hub said that the outcome is stored."""
        fields = {"task": held.task, "generation": held.generation, "detail": detail}
        self.note(f"sidecar/{process.name}", Verb.REPORT_ACKED, **fields)

    def process(self, process: Process, verb: Verb) -> None:
        """A process began, died, stood still or went on."""
        node = f"sidecar/{process.name}" if process.kind == "agent" else process.name
        self.note(node, verb)
