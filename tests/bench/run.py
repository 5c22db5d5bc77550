"""One run of the bench: its folder, its scale, which rows are wanted, and what they gave."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.figures import Row
from tests.bench.process import Process


@dataclass(slots=True)
class Run:
    """What every row is given."""

    folder: Path
    quick: bool
    only: frozenset[str]
    """Names of rows; empty: all."""
    rows: list[Row] = field(default_factory=list)
    _began: float = field(default_factory=time.perf_counter)

    def scaled(self, count: int, *, least: int = 0) -> int:
        """A size of the table, or a tenth of it in a quick run; a rate over fewer than `least` would say nothing."""
        return max(count // 10, least) if self.quick else count

    def wants(self, *rows: str) -> bool:
        """Is one of these rows asked for?"""
        return not self.only or not self.only.isdisjoint(rows)

    def say(self, text: str) -> None:
        """Progress, on stderr: the table alone goes to stdout."""
        print(f"[{time.perf_counter() - self._began:6.1f} s] {text}", file=sys.stderr, flush=True)

    def report(self, row: Row) -> None:
        """A row is measured."""
        if self.wants(row.row):
            self.rows.append(row)
            self.say(f"{row.what}: {row.measured}")


@asynccontextmanager
async def running(*processes: Process) -> AsyncIterator[None]:
    """Processes that run for the length of a block."""
    try:
        for process in processes:
            await process.start()
        yield
    finally:
        for process in processes:
            await process.stop()
