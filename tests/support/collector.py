"""A collector in this process, over gRPC and HTTP, and two that are of no use: one is gone, one never answers."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import queue
import socket
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

Push = metrics_service_pb2.ExportMetricsServiceRequest

#: A bound for failures, never a pace.
PATIENCE_S = 20.0


class SpanReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """The same for spans."""

    def __init__(self):
        self.spans: queue.Queue = queue.Queue()
        #: All so far: which program (service.name/service.instance.id) told which span.
        self.told: list[tuple[str, trace_pb2.Span]] = []

    def Export(self, request, context):  # noqa: N802  # the contract's name
        for resource in request.resource_spans:
            who = {one.key: one.value.string_value for one in resource.resource.attributes}
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                self.told.append((f"{who['service.name']}/{who['service.instance.id']}", span))
                self.spans.put(span)
        return trace_service_pb2.ExportTraceServiceResponse()

    async def next(self):
        return await asyncio.to_thread(self.spans.get, timeout=PATIENCE_S)


class Receiver(metrics_service_pb2_grpc.MetricsServiceServicer):
    """An OpenTelemetry collector, as far as metrics go: over gRPC and over HTTP."""

    def __init__(self):
        self.pushes: queue.Queue[Push] = queue.Queue()
        self.traced = SpanReceiver()

    def Export(self, request, context):  # noqa: N802  # the contract's name
        self.pushes.put(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()

    async def numbers(self, name, until):
        """The points of a metric by the values of their attributes, of the first push for which `until` holds."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                push = await asyncio.to_thread(self.pushes.get, timeout=PATIENCE_S)
                found = points(push).get(name, {})
                if until(found):
                    return push, found


def points(push):
    found = {}
    for metric in push.resource_metrics[0].scope_metrics[0].metrics:
        data = getattr(metric, metric.WhichOneof("data")).data_points
        found[metric.name] = {
            tuple(one.value.string_value for one in point.attributes): getattr(point, "as_int", None)
            or getattr(point, "as_double", None)
            or getattr(point, "count", 0)
            for point in data
        }
    return found


@contextlib.contextmanager
def receiving(protocol):
    receiver = Receiver()
    if protocol == "grpc":
        server = grpc.server(futures.ThreadPoolExecutor(2))
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(receiver, server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver.traced, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield receiver, f"http://127.0.0.1:{port}"
        finally:
            server.stop(0).wait(PATIENCE_S)
        return

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                receiver.traced.Export(trace_service_pb2.ExportTraceServiceRequest.FromString(body), None)
            elif self.path == "/v1/metrics":
                receiver.pushes.put(Push.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield receiver, f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join(PATIENCE_S)


@contextlib.contextmanager
def silent():
    """A collector that takes everything in and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def refusing():
    """A collector that takes nothing, and says so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(400)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join(PATIENCE_S)


def gone():
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"
