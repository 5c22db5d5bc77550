"""The holding: the fencing pair that every report quotes."""

from __future__ import annotations

from typing import NamedTuple


class Holding(NamedTuple):
    """This task at this generation."""

    task: str
    generation: int

    def __str__(self) -> str:
        return f"tasks/{self.task}@{self.generation}"
