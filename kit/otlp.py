"""Pushes snapshots to an OpenTelemetry collector, from a thread of its own.

The collector may be away, slow or wrong: nothing waits for it. The thread takes the newest snapshot; one that comes
while a push is under way replaces the one that waits. A push has a deadline, and so has the end: the last snapshot is
sent when that is quick, and given up when it is not. What fails is logged once a minute at most.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.sdk.metrics import Exemplar, export
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from kit import errors, logs, otlp_spans, tally
from kit.backlog import Backlog
from kit.metrics import Kind

log = logs.get(__name__)

PROTOCOLS: Final = ("grpc", "http")

HTTP_PATH: Final = "/v1/metrics"
"""What OTLP over HTTP adds to an endpoint, by its specification."""

LOG_EVERY_S: Final = 60.0
"""A collector that is away for a day is told of 1,440 times, not at each push."""

_LIBRARY: Final = "opentelemetry.exporter"
"""Its loggers tell of each try of each push; the last word of it is in our own line instead."""


class Pusher:
    """The thread and its exporter."""

    def __init__(
        self,
        endpoint: str,
        *,
        protocol: str = "grpc",
        timeout_s: float,
        resource: Mapping[str, str],
        scope: str = "",
        spans: Backlog | None = None,
    ) -> None:
        """`endpoint` is an http:// or https:// URL; headers (a key of the collector) come from the usual environment
        variables of OpenTelemetry. `resource` says who tells. `spans` are pushed after each snapshot.
        """
        self._endpoint = endpoint
        self._exporter = _exporter(endpoint, protocol, timeout_s)
        self._spans = (otlp_spans.exporter(endpoint, protocol, timeout_s), spans) if spans is not None else None
        self._resource = Resource(dict(resource))
        self._scope = InstrumentationScope("agentcom", scope)
        self._news = threading.Condition()
        self._waiting: tally.Snapshot | None = None
        self._ending = False
        self._shut_down = False
        #: Of the newest snapshot that was taken; exemplars from before it were told with it.
        self._pushed_at = 0.0
        self._logged_at = -LOG_EVERY_S
        self._hush = _Hush()
        #: Plain counts for the catalogue's `telemetry.pushes`.
        self.succeeded = self.failed = self.skipped = 0
        # A daemon: a push that hangs in a library must not keep the process from its end.
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)

    def start(self) -> None:
        """Begin to push what is offered."""
        logging.getLogger(_LIBRARY).addHandler(self._hush)
        logging.getLogger(_LIBRARY).propagate = False
        self._thread.start()

    def offer(self, snapshot: tally.Snapshot) -> None:
        """Push this as soon as the push under way has ended."""
        with self._news:
            self.skipped += self._waiting is not None
            self._waiting = snapshot
            self._news.notify()

    async def stop(self, deadline_s: float) -> bool:
        """Push what waits, then end; after `deadline_s` it is given up. Did it end by itself? One that was not started
        has nothing to end.
        """
        if self._thread.ident is None:
            return True
        with self._news:
            self._ending = True
            self._news.notify()
        await asyncio.to_thread(self._thread.join, deadline_s)
        if self._thread.is_alive():  # it stays hushed: nobody waits for what it says
            log.info("telemetry.push_abandoned", endpoint=self._endpoint, deadline_s=deadline_s)
            self._shut()  # it tries no more, and the thread ends with the try under way
            return False
        logging.getLogger(_LIBRARY).removeHandler(self._hush)
        logging.getLogger(_LIBRARY).propagate = True
        return True

    def _run(self) -> None:
        while (snapshot := self._next()) is not None:
            self._push(snapshot)
        self._shut()

    def _shut(self) -> None:
        """No more tries. The libraries warn when they are told twice."""
        with self._news:
            told, self._shut_down = self._shut_down, True
        if told:
            return
        self._exporter.shutdown()
        if self._spans is not None:
            self._spans[0].shutdown()

    def _next(self) -> tally.Snapshot | None:
        with self._news:
            while self._waiting is None and not self._ending:
                self._news.wait()
            snapshot, self._waiting = self._waiting, None
            return snapshot

    def _push(self, snapshot: tally.Snapshot) -> None:
        try:
            told = data(snapshot, self._resource, self._scope, self._pushed_at)
            good = self._exporter.export(told) is export.MetricExportResult.SUCCESS
            self._pushed_at = snapshot.at if good else self._pushed_at
            if self._spans is not None:
                exporter, waiting = self._spans
                good = good and otlp_spans.push(waiting, exporter, self._resource, self._scope)
            failure = "" if good else self._hush.last or "refused"
        except Exception as error:  # the top of the thread: a fault of a library must not end it
            failure = f"{type(error).__name__}: {error}"
        if failure:
            self._failed(failure)
        else:
            self.succeeded += 1

    def _failed(self, failure: str) -> None:
        self.failed += 1
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            log.warning("telemetry.push_failed", endpoint=self._endpoint, error=failure[:500], failed=self.failed)


def data(
    snapshot: tally.Snapshot, resource: Resource, scope: InstrumentationScope, exemplars_after: float = 0.0
) -> export.MetricsData:
    """A snapshot as OpenTelemetry wants it, with the exemplars that were seen after a time (of the last snapshot)."""
    times = _Times(round(snapshot.started_at * 1e9), round(snapshot.at * 1e9), exemplars_after)
    made = [_metric(family, times) for family in snapshot.families]
    scoped = export.ScopeMetrics(scope=scope, metrics=made, schema_url="")
    return export.MetricsData([export.ResourceMetrics(resource=resource, scope_metrics=[scoped], schema_url="")])


class _Times(NamedTuple):
    since_ns: int
    at_ns: int
    exemplars_after: float


def _metric(family: tally.Family, times: _Times) -> export.Metric:
    metric, cumulative = family.metric, export.AggregationTemporality.CUMULATIVE
    names = [attribute.name for attribute in metric.attributes]
    made: export.Sum | export.Gauge | export.Histogram
    if metric.kind is Kind.HISTOGRAM:
        spreads = [
            _distribution(dict(zip(names, key, strict=True)), spread, metric.bounds, times)
            for key, spread in family.spreads.items()
        ]
        made = export.Histogram(spreads, cumulative)
    else:
        points = [
            export.NumberDataPoint(dict(zip(names, key, strict=True)), times.since_ns, times.at_ns, value)
            for key, value in family.numbers.items()
        ]
        made = export.Gauge(points) if metric.kind is Kind.GAUGE else export.Sum(points, cumulative, is_monotonic=True)
    return export.Metric(metric.name, metric.meaning, metric.unit, made)


def _distribution(
    attributes: dict[str, Any], spread: tally.Spread, bounds: tuple[float, ...], times: _Times
) -> export.HistogramDataPoint:
    unknown: Any = None  # smallest and largest are not kept, and optional in the protocol
    fresh = [one for one in spread.exemplars if one is not None and one.seen.at > times.exemplars_after]
    return export.HistogramDataPoint(
        attributes, times.since_ns, times.at_ns, spread.size, spread.total, spread.counts, bounds, unknown, unknown,
        [Exemplar({}, one.value, round(one.seen.at * 1e9), one.seen.span, one.seen.trace) for one in fresh],
    )  # fmt: skip


def _exporter(endpoint: str, protocol: str, timeout_s: float) -> export.MetricExporter:
    assert protocol in PROTOCOLS, protocol
    if not endpoint.startswith(("http://", "https://")):
        raise errors.Invalid.of("telemetry.otlp_endpoint", f"{endpoint!r} does not begin with http:// or https://")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as by_grpc

        return by_grpc.OTLPMetricExporter(endpoint, insecure=endpoint.startswith("http://"), timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as by_http

    url = endpoint.rstrip("/")
    return by_http.OTLPMetricExporter(url if url.endswith(HTTP_PATH) else url + HTTP_PATH, timeout=timeout_s)


class _Hush(logging.Handler):
    """Keeps the last word of the exporter for our own log line."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()
