"""Telemetry of the hub: its counts, its spans, and who is told of them (`kit.telemetry`), each only when configured.

With nobody to tell, nothing is counted and nothing is imported. Otherwise the engine counts in plain integers
(`engine.live.tallies`), and what is told is made from a snapshot: at a scrape, or at the pace of the push. How far the
event log was made into spans that a collector took is kept in a file, so that a hub that was killed goes on from there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from hub import data
from hub.engine.live.context import Context
from hub.engine.live.tallies import Tallies
from hub.engine.live.traces import Traces
from kit import errors, logs, metrics, supervise, tally
from kit.telemetry import Numbers, Outlet, TelemetryConfig

log = logs.get(__name__)

Duty = Callable[[float], Awaitable[object]]

TRACED_FILE: Final = "traced"
"""In the data folder: the position of the event log up to which all spans were pushed."""

NO_MARK: Final = -1
"""Nothing is written there yet."""


class Who(NamedTuple):
    """Who tells."""

    version: str
    uid: str
    """Of the store; empty: it has none yet."""
    folder: Path | None = None
    """The data folder, where it is kept how far the spans were pushed; None: it is not."""


class Commits(Protocol):
    """The file of a store, as far as its commits are watched."""

    def commit(self) -> None:
        """Make the transaction durable."""


class Telemetry:
    """Made before the engine works, started when it is put together."""

    def __init__(self, ctx: Context, config: TelemetryConfig, who: Who) -> None:
        """Raises Unavailable when a library is missing."""
        self._ctx = ctx
        names = {"service.name": "agentcom-hub", "service.version": who.version, "service.instance.id": who.uid}
        self._outlet = outlet = Outlet(config, names, self.snapshot)
        self._measure: Callable[[], Numbers] = dict
        self._file = who.folder / TRACED_FILE if who.folder is not None and outlet.spans is not None else None
        self.traces = Traces(ctx, outlet.spans, ratio=config.otlp_sample_ratio) if outlet.spans is not None else None
        self._kept = self._replay()
        look = self.traces.seen if self.traces is not None else None
        self.tallies = Tallies(ctx, look) if config.active else None

    @property
    def address(self) -> str:
        """Where the page is; empty: there is none."""
        return self._outlet.address

    async def start(self, measure: Callable[[], Numbers]) -> None:
        """Tell from now on. Raises Unavailable when the port is taken."""
        self._measure = measure
        await self._outlet.start()

    def watch(self, environment: Commits | None) -> None:
        """Time the commits of a store and count what shares one. On the writer's thread, which is the only one here.

        The store knows nothing of it: this stands before the commit of its file.
        """
        if self.tallies is None or environment is None:
            return
        durations = self.tallies.tally.histogram(metrics.COMMIT)
        batches = self.tallies.tally.histogram(metrics.COMMIT_BATCH)
        facts, commit = self._ctx.store.facts, environment.commit
        before = facts().writes

        def watched() -> None:
            nonlocal before
            # The store has counted the batch before this one by now, and not yet this one.
            writes = facts().writes
            if writes > before:
                batches.observe(writes - before)
                before = writes
            began = time.perf_counter()
            commit()
            durations.observe(time.perf_counter() - began)

        vars(environment)["commit"] = watched

    def timed(self, run_once: Duty) -> Duty:
        """The dispatcher's duty, with its time taken when somebody is told of it."""
        return run_once if self.tallies is None else self.tallies.timed(run_once)

    def loops(self) -> list[supervise.Loop]:
        """The duty of the push; none without one."""
        return [dataclasses.replace(loop, run_once=self.run_once) for loop in self._outlet.loops()]

    async def run_once(self, now: float) -> None:
        """Offer the numbers of now to the push, and write down how far the one before it came."""
        await self._outlet.run_once(now)
        await asyncio.to_thread(self._keep)

    def snapshot(self) -> tally.Snapshot:
        """The numbers of now."""
        assert self.tallies is not None
        return self.tallies.tally.snapshot(self._ctx.clock.now(), {**self._measure(), **self._outlet.numbers()})

    async def stop(self) -> None:
        """The page goes, and the last numbers are pushed when that is quick. May be called without a start."""
        await self._outlet.stop()
        await asyncio.to_thread(self._keep)

    def _replay(self) -> int:
        """Make the spans that the last hub on this folder did not push any more; the position that the file tells."""
        if self._file is None or self.traces is None:
            return NO_MARK
        try:
            kept = int(self._file.read_text())
        except FileNotFoundError:
            return NO_MARK  # the first start that traces: it begins with what happens from now on
        except (OSError, ValueError) as error:
            log.warning("telemetry.mark_unread", file=str(self._file), error=str(error))
            return NO_MARK
        made = self.traces.replay(kept)
        if made:
            log.info("telemetry.replayed", position=kept, spans=made)
        return kept

    def _keep(self) -> None:
        """Write down how far the spans were pushed, when that has changed."""
        spans = self._outlet.spans
        if spans is None or self._file is None or spans.pushed == self._kept:
            return
        pushed = spans.pushed
        try:
            data.write(self._file, f"{pushed}\n", mode=0o600)
            self._kept = pushed
        except errors.Problem as problem:  # spans are told once more after a crash, which collectors bear
            log.warning("telemetry.mark_unwritten", file=str(self._file), problem=problem.message)
