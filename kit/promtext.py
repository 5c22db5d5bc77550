"""A page for Prometheus: answers `GET /metrics` on a port of its own, and nothing else.

It runs on the event loop whose numbers it tells: a loop that stands still does not answer, which is what a monitor
should see. The page is small and its server smaller: one request a connection, a bound for the request, for the number
of connections and for the time that each may take.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from itertools import accumulate, starmap
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as PrometheusFamily
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Exemplar

from kit import errors, logs, tally
from kit.metrics import Kind

log = logs.get(__name__)

PATH: Final = "/metrics"

REQUEST_BYTES_MAX: Final = 8_192
"""A scrape is a line and some headers."""

CONNECTIONS_MAX: Final = 16
"""Two monitors and a person with a browser, with room; more are closed at once."""

TIMEOUT_S: Final = 10.0
"""For one connection, from its start to its end; Prometheus gives up after as long by default."""

STOP_S: Final = 1.0
"""A page that is being read when the process ends is cut after so long."""


class Page:
    """The server."""

    def __init__(self, take: Callable[[], tally.Snapshot]) -> None:
        """`take` gives the numbers as of now; it is called once for each scrape, on the event loop."""
        self._take = take
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; the port. Raises Unavailable when it is taken."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_BYTES_MAX)
        except OSError as error:
            raise errors.Unavailable(
                f"cannot listen on {host}:{port} for Prometheus: {error.strerror or error}", reason="BIND_FAILED"
            ) from error
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def stop(self) -> None:
        """Listen no more, and end what is open."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                writer.write(self.answer(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever it was speaks no HTTP, or has gone
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    def answer(self, head: str) -> bytes:
        """The whole response to a request of which this is the head."""
        request, *lines = head.split("\r\n")
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if path != PATH:
            return _response("404 Not Found", "text/plain", f"the page is {PATH}\n".encode())
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", "text/plain", b"GET or HEAD\n")
        headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        encode, content_type = choose_encoder(headers.get("accept", ""))
        registry = CollectorRegistry()
        registry.register(_Given(self._take()))
        text = encode(registry)
        return _response("200 OK", content_type, text, bodiless=method == "HEAD")


class _Given(Collector):
    """A snapshot as prometheus_client wants it."""

    def __init__(self, snapshot: tally.Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[PrometheusFamily]:
        for family in self._snapshot.families:
            yield _family(family)


def _family(family: tally.Family) -> PrometheusFamily:
    metric = family.metric
    name, labels = metric.prometheus, [attribute.name for attribute in metric.attributes]
    match metric.kind:
        case Kind.COUNTER:
            counter = CounterMetricFamily(name, metric.meaning, labels=labels)
            for key, value in family.numbers.items():
                counter.add_metric(key, value)  # since when is in agentcom_hub_start_time_seconds, once
            return counter
        case Kind.GAUGE:
            gauge = GaugeMetricFamily(name, metric.meaning, labels=labels)
            for key, value in family.numbers.items():
                gauge.add_metric(key, value)
            return gauge
        case Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(name, metric.meaning, labels=labels)
            limits = [*(f"{bound:g}" for bound in metric.bounds), "+Inf"]
            for key, spread in family.spreads.items():
                exemplars = spread.exemplars or (None,) * len(limits)
                cumulated = zip(limits, map(float, accumulate(spread.counts)), exemplars, strict=True)
                histogram.add_metric(key, list(starmap(_bucket, cumulated)), spread.total)
            return histogram


def _bucket(limit: str, count: float, found: tally.Exemplar | None) -> tuple[str, float] | tuple[str, float, Exemplar]:
    """A bucket, with its exemplar as OpenMetrics wants it; the older text format has no place for one."""
    if found is None:
        return limit, count
    labels = {"trace_id": f"{found.seen.trace:032x}", "span_id": f"{found.seen.span:016x}"}
    return limit, count, Exemplar(labels, found.value, found.seen.at)


def _response(status: str, content_type: str, body: bytes, *, bodiless: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if bodiless else body)
