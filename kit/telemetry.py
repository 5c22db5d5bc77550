"""Whom a program tells its numbers and spans: a page for Prometheus, a push to an OpenTelemetry collector, or nobody.

The same settings and the same two ways for every program. Nothing here counts: what is told is made from a snapshot
(`kit.tally`), at a scrape or at the pace of the push. The libraries are imported only when they are asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from kit import channel, errors, logs, metrics, supervise, tally
from kit.backlog import Backlog
from kit.config import setting

if TYPE_CHECKING:
    from kit.otlp import Pusher
    from kit.promtext import Page

log = logs.get(__name__)

Numbers = dict[metrics.Metric, Mapping[tally.Key, float]]
"""What is known without having been counted: gauges, and counts that somebody else keeps anyway."""

LAST_PUSH_S: Final = 1.0
"""At the end the last numbers are given this long to get out."""


@dataclasses.dataclass(frozen=True)
class TelemetryConfig:
    """Whom this program tells its numbers (docs/telemetry.md). Both ways are off unless set, and then nothing is
    counted.
    """

    #: "host:port" of a page for Prometheus (GET /metrics); it asks for no token. Absent: there is none.
    prometheus_listen: str | None = setting(None)
    #: Must be set for a page beyond the loopback: whoever reaches it may read it.
    prometheus_public: bool = setting(False)
    #: URL of an OpenTelemetry collector, e.g. "http://127.0.0.1:4317". Absent: nothing is pushed. Headers come from the
    #: usual variable OTEL_EXPORTER_OTLP_HEADERS.
    otlp_endpoint: str | None = setting(None)
    #: By HTTP "/v1/metrics" is added to the URL; its usual port is 4318.
    otlp_protocol: str = setting("grpc", choices=("grpc", "http"))
    otlp_every_s: float = setting(15.0, low=0.05, high=3_600.0)
    #: Push spans, too: the hub those of goals, tasks, attempts and changes, a sidecar those of what an attempt did.
    otlp_traces: bool = setting(False)
    #: Which part of all traces is kept. The hub decides, by the trace's id, and tells sidecars with each assignment.
    otlp_sample_ratio: float = setting(1.0, low=0.0, high=1.0)
    #: A push that takes longer has failed; the next one tells as much.
    otlp_timeout_s: float = setting(5.0, low=0.1, high=60.0)

    def __post_init__(self) -> None:
        if self.otlp_endpoint is not None and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise errors.Invalid(f"otlp_endpoint {self.otlp_endpoint!r} does not begin with http:// or https://")
        page = self.page
        if page is not None and not (page.is_loopback or self.prometheus_public):
            raise errors.Invalid(
                f"prometheus_listen is {self.prometheus_listen}, beyond the loopback, where whoever reaches it may "
                "read it: set prometheus_public"
            )

    @property
    def page(self) -> channel.Address | None:
        """Where the page is; None: there is none."""
        listen = self.prometheus_listen
        return None if listen is None else channel.parse_address(listen, field="telemetry.prometheus_listen")

    @property
    def active(self) -> bool:
        """Is anything told at all?"""
        return bool(self.prometheus_listen or self.otlp_endpoint)

    @property
    def traced(self) -> bool:
        """Are spans told?"""
        return bool(self.otlp_endpoint and self.otlp_traces)


class Outlet:
    """The page and the push of one program, as far as they are asked for."""

    def __init__(self, config: TelemetryConfig, who: Mapping[str, str], take: Callable[[], tally.Snapshot]) -> None:
        """`who` are the resource attributes (service.name, service.version, ...), `take` gives the numbers of now.

        Raises Unavailable when a library is missing.
        """
        self._config = config
        self._take = take
        #: Where ended spans go; None: nobody wants them.
        self.spans = Backlog() if config.traced else None
        self._wake = asyncio.Event()
        if self.spans is not None:
            self.spans.wanted = self._wake.set
        self._page: Page | None = _page(take) if config.prometheus_listen else None
        self._pusher: Pusher | None = _pusher(config, who, self.spans) if config.otlp_endpoint else None
        #: Where the page is; empty: there is none.
        self.address = ""

    @property
    def pusher(self) -> Pusher | None:
        """The push; None: there is none."""
        return self._pusher

    async def start(self) -> None:
        """Tell from now on. Raises Unavailable when the port is taken."""
        config, page = self._config, self._config.page
        if self._page is not None and page is not None:
            port = await self._page.start(page.host, page.port)
            self.address = dataclasses.replace(page, port=port).target
            log.info("telemetry.page_served", address=self.address)
        if self._pusher is not None:
            self._pusher.start()
            log.info("telemetry.push_started", endpoint=config.otlp_endpoint, every_s=config.otlp_every_s)

    def loops(self) -> list[supervise.Loop]:
        """The duty of the push; none without one."""
        if self._pusher is None:
            return []
        return [supervise.Loop("telemetry", self.run_once, self._config.otlp_every_s, self._wake)]

    async def run_once(self, _now: float) -> None:
        """Offer the numbers of now to the push."""
        self.offer()

    def offer(self) -> None:
        """Give the numbers of now to the push."""
        if self._pusher is not None:
            self._pusher.offer(self._take())

    def numbers(self) -> Numbers:
        """What it knows of itself."""
        made: Numbers = {}
        if self._pusher is not None:
            pusher = self._pusher
            counts = {"succeeded": pusher.succeeded, "failed": pusher.failed, "skipped": pusher.skipped}
            made[metrics.PUSHES] = {(outcome,): count for outcome, count in counts.items()}
        if self.spans is not None:
            made[metrics.SPANS_DROPPED] = {(): self.spans.dropped}
        return made

    async def stop(self) -> None:
        """The page goes, and the last numbers are pushed when that is quick. May be called without a start."""
        if self._page is not None:
            await self._page.stop()
        if self._pusher is not None:
            with contextlib.suppress(errors.Problem):  # a damaged store must not keep a program from its end
                self.offer()
            await self._pusher.stop(LAST_PUSH_S)


def _page(take: Callable[[], tally.Snapshot]) -> Page:
    try:
        from kit import promtext
    except ImportError as error:
        raise _missing("telemetry.prometheus_listen", error) from error
    return promtext.Page(take)


def _pusher(config: TelemetryConfig, who: Mapping[str, str], spans: Backlog | None) -> Pusher:
    try:
        from kit import otlp
    except ImportError as error:
        raise _missing("telemetry.otlp_endpoint", error) from error
    return otlp.Pusher(
        config.otlp_endpoint or "",
        protocol=config.otlp_protocol,
        timeout_s=config.otlp_timeout_s,
        resource=who,
        scope=who.get("service.version", ""),
        spans=spans,
    )


def _missing(key: str, error: ImportError) -> errors.Unavailable:
    return errors.Unavailable(
        f"{key} needs {error.name}, which is not installed: pip install 'agentcom[telemetry]'", reason="NOT_INSTALLED"
    )
