"""Telemetry of the hub: a page for Prometheus and a push to an OpenTelemetry collector, each only when configured.

Without either nothing is counted and nothing is imported. With them the engine counts in plain integers
(`engine.live.tallies`), and what is told is made from a snapshot: at a scrape, or at the pace of the push.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from hub.config import TelemetryConfig
from hub.engine.desk.measure import Numbers
from hub.engine.live.context import Context
from hub.engine.live.tallies import Tallies
from hub.engine.live.traces import Traces
from kit import errors, logs, metrics, supervise, tally

if TYPE_CHECKING:
    from kit.otlp import Pusher
    from kit.promtext import Page

log = logs.get(__name__)

Duty = Callable[[float], Awaitable[object]]

LAST_PUSH_S: Final = 1.0
"""At the end the last numbers are given this long to get out."""


class Who(NamedTuple):
    """Who tells."""

    version: str
    uid: str
    """Of the store; empty: it has none yet."""


class Commits(Protocol):
    """The file of a store, as far as its commits are watched."""

    def commit(self) -> None:
        """Make the transaction durable."""


class Telemetry:
    """Made before the engine works, started when it is put together."""

    def __init__(self, ctx: Context, config: TelemetryConfig, who: Who) -> None:
        """Raises Unavailable when a library is missing."""
        self._ctx = ctx
        self._config = config
        self.traces = Traces(ctx) if config.otlp_endpoint and config.otlp_traces else None
        self._page: Page | None = _page(self.snapshot) if config.prometheus_listen else None
        self._pusher: Pusher | None = _pusher(config, who, self.traces) if config.otlp_endpoint else None
        self._measure: Callable[[], Numbers] = dict
        #: Where the page is; empty: there is none.
        self.address = ""
        self.tallies = Tallies(ctx) if config.active else None

    async def start(self, measure: Callable[[], Numbers]) -> None:
        """Tell from now on. Raises Unavailable when the port is taken."""
        self._measure = measure
        config, page = self._config, self._config.page
        if self._page is not None and page is not None:
            port = await self._page.start(page.host, page.port)
            self.address = dataclasses.replace(page, port=port).target
            log.info("telemetry.page_served", address=self.address)
        if self._pusher is not None:
            self._pusher.start()
            log.info("telemetry.push_started", endpoint=config.otlp_endpoint, every_s=config.otlp_every_s)

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
        return [supervise.Loop("telemetry", self.run_once, self._config.otlp_every_s)] if self._pusher else []

    async def run_once(self, _now: float) -> None:
        """Offer the numbers of now to the push."""
        if self._pusher is not None:
            self._pusher.offer(self.snapshot())

    def snapshot(self) -> tally.Snapshot:
        """The numbers of now."""
        assert self.tallies is not None
        given = self._measure()
        if self._pusher is not None:
            pusher = self._pusher
            counts = {"succeeded": pusher.succeeded, "failed": pusher.failed, "skipped": pusher.skipped}
            given[metrics.PUSHES] = {(outcome,): count for outcome, count in counts.items()}
        return self.tallies.tally.snapshot(self._ctx.clock.now(), given)

    async def stop(self) -> None:
        """The page goes, and the last numbers are pushed when that is quick. May be called without a start."""
        if self._page is not None:
            await self._page.stop()
        if self._pusher is not None:
            with contextlib.suppress(errors.Problem):  # a damaged store must not keep the hub from its end
                self._pusher.offer(self.snapshot())
            await self._pusher.stop(LAST_PUSH_S)


def _page(take: Callable[[], tally.Snapshot]) -> Page:
    try:
        from kit import promtext
    except ImportError as error:
        raise _missing("telemetry.prometheus_listen", error) from error
    return promtext.Page(take)


def _pusher(config: TelemetryConfig, who: Who, traces: Traces | None) -> Pusher:
    try:
        from kit import otlp
    except ImportError as error:
        raise _missing("telemetry.otlp_endpoint", error) from error
    resource = {"service.name": "agentcom-hub", "service.version": who.version, "service.instance.id": who.uid}
    return otlp.Pusher(
        config.otlp_endpoint or "",
        protocol=config.otlp_protocol,
        timeout_s=config.otlp_timeout_s,
        resource=resource,
        scope=who.version,
        spans=traces.ended if traces is not None else None,
    )


def _missing(key: str, error: ImportError) -> errors.Unavailable:
    return errors.Unavailable(
        f"{key} needs {error.name}, which is not installed: pip install 'agentcom[telemetry]'", reason="NOT_INSTALLED"
    )
