"""Telemetry of a real hub: the page, the push, and that neither can hold up work."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time

import grpc
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from agentcom.v1 import agent_service_pb2, task_pb2, task_service_pb2
from hub.store import folder
from kit import errors, metrics, promtext
from tests.rpc.test_store_degraded import with_damaged_task
from tests.support.collector import PATIENCE_S, gone, points, receiving, silent
from tests.support.hub import configuration, refused, running

PAGE = {"telemetry__prometheus_listen": "127.0.0.1:0"}


async def scrape(caller, *, path="/metrics"):
    """The page as a monitor reads it, by (name, label values)."""
    head, body = await ask(caller, f"GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n".encode())
    assert head.startswith("HTTP/1.1 200"), head
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


async def ask(caller, request):
    host, _, port = caller.hub.telemetry.address.rpartition(":")
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        answer = (await reader.read()).decode()
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


async def work(caller, agent="anna"):
    """A task is filed, taken by hand and done."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id=agent))
    task = await caller.task()
    held = await caller.tasks.ClaimTask(task_service_pb2.ClaimTaskRequest(name=task.name, agent=f"agents/{agent}"))
    report = task_service_pb2.ReportTaskRequest(holding=held.holding, result=task_pb2.Result(summary="done"))
    await caller.tasks.ReportTask(report)


async def test_the_page_tells_every_metric_that_this_hub_can_know(tmp_path):
    async with running(tmp_path, store__kind="lmdb", **PAGE) as caller:
        await work(caller)
        await caller.task()
        await caller.hub.upkeep.board.run_once(caller.hub.ctx.clock.now())
        found = await scrape(caller)
        assert found["agentcom_tasks", "normal", "succeeded"] == 1
        assert found["agentcom_tasks", "normal", "queued"] == 1
        assert found["agentcom_task_submitted_total",] == 2
        assert found["agentcom_task_ended_total", "succeeded"] == 1
        assert found["agentcom_attempt_run_seconds_count", "completed"] == 1
        assert found["agentcom_task_end_to_end_seconds_count",] == 1
        assert found["agentcom_queue_oldest_age_seconds",] > 0
        assert found["agentcom_agents", "offline"] == 1
        assert found["agentcom_hub_state", "serving"] == 1
        assert found["agentcom_dispatch_duration_seconds_count",] > 0
        commits = found["agentcom_store_commits_total",]
        assert found["agentcom_store_commit_duration_seconds_count",] == commits > 5
        assert found["agentcom_store_commit_batch_count",] == commits - 1  # the newest is counted with the next one
        assert found["agentcom_store_used_bytes",] > 0
        told = {name for name, *_ in found}
        silent_metrics = {
            "agentcom_backup_age_seconds",
            "agentcom_telemetry_pushes",
            "agentcom_telemetry_spans_dropped",
        }  # no backup yet, no push asked for
        for metric in (one for one in metrics.CATALOGUE if "hub" in one.node):
            suffix = {metrics.Kind.COUNTER: "_total", metrics.Kind.HISTOGRAM: "_count"}.get(metric.kind, "")
            assert (metric.prometheus + suffix in told) != (metric.prometheus in silent_metrics), metric.name


async def test_refusals_are_counted_by_their_cause(tmp_path):
    limits = {"limits__local": True, "limits__submit_per_s": 0.001, "limits__submit_burst": 2.0}
    async with running(tmp_path, **PAGE, **limits) as caller:
        before = await scrape(caller)
        await refused(caller.tasks.CreateTask(task_service_pb2.CreateTaskRequest(request_id="x" * 999)))
        await caller.task()
        problem = await refused(caller.task())
        assert problem.reason == "RATE_LIMITED"
        after = await scrape(caller)
    assert after["agentcom_request_invalid_total",] > before["agentcom_request_invalid_total",]
    assert after["agentcom_request_throttled_total",] == 1


async def test_a_hub_whose_store_is_damaged_still_tells(tmp_path):
    async with with_damaged_task(tmp_path, **PAGE) as (caller, bad, *_):
        assert (await scrape(caller))["agentcom_hub_state", "serving"] == 1
        with pytest.raises(errors.DataLoss):
            caller.hub.ctx.store.read(lambda reader: reader.task(bad.name.removeprefix("tasks/")))
        await caller.hub.upkeep.board.run_once(caller.hub.ctx.clock.now())
        found = await scrape(caller)
        assert found["agentcom_hub_state", "degraded"] == 1
        assert found["agentcom_alerts", "critical"] >= 1
        assert found["agentcom_backup_age_seconds",] >= 0


async def test_a_store_that_cannot_be_opened_is_told_of(tmp_path):
    async with running(tmp_path, store__kind="lmdb"):
        pass
    file = tmp_path / "hub" / "store" / folder.DATA_NAME
    file.write_bytes(b"nonsense" * 4_096)
    async with running(tmp_path, store__kind="lmdb", **PAGE) as caller:
        assert (await scrape(caller))["agentcom_hub_state", "degraded"] == 1


async def test_without_configuration_nothing_is_counted_and_nothing_listens(tmp_path):
    async with running(tmp_path) as caller:
        await work(caller)
        telemetry = caller.hub.telemetry
        assert (telemetry.tallies, telemetry.address, telemetry.loops()) == (None, "", [])
        assert caller.hub.ctx.figures.on_wait is None


async def test_what_speaks_no_http_or_says_too_much_gets_no_page_and_leaves_room_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr(promtext, "CONNECTIONS_MAX", 2)
    monkeypatch.setattr(promtext, "TIMEOUT_S", 2 * PATIENCE_S)  # what is cut here is not cut by the clock
    async with running(tmp_path, **PAGE) as caller:
        assert await ask(caller, b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 20_000) == ("", "")
        assert (await ask(caller, b"\xff\xfe\0\r\n\r\n"))[0].startswith("HTTP/1.1 404")
        host, _, port = caller.hub.telemetry.address.rpartition(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        assert await ask(caller, b"") == ("", "")  # the third is closed at once
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(AssertionError, OSError):
                    assert await scrape(caller)
                    break


async def test_a_reader_that_says_nothing_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(promtext, "TIMEOUT_S", 0.05)
    async with running(tmp_path, **PAGE) as caller:
        host, _, port = caller.hub.telemetry.address.rpartition(":")
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()


async def test_an_open_connection_is_cut_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(promtext, "TIMEOUT_S", 2 * PATIENCE_S)
    async with contextlib.AsyncExitStack() as stack:
        caller = await stack.enter_async_context(running(tmp_path, **PAGE))
        host, _, port = caller.hub.telemetry.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics")
        await scrape(caller)  # it came later, so the other one was let in before
        began = time.monotonic()
        await stack.aclose()
        assert time.monotonic() - began < 5.0
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_collector_is_told_the_same(tmp_path, protocol):
    with receiving(protocol) as (receiver, endpoint):
        push = {"telemetry__otlp_endpoint": endpoint, "telemetry__otlp_protocol": protocol}
        async with running(tmp_path, telemetry__otlp_every_s=0.05, **push) as caller:
            await work(caller)
            told, _ = await receiver.numbers("agentcom.task.ended", lambda found: found.get(("succeeded",)) == 1)
            resource = {one.key: one.value.string_value for one in told.resource_metrics[0].resource.attributes}
            assert resource["service.name"] == "agentcom-hub"
            found = points(told)
            assert found["agentcom.task.submitted"] == {(): 1}
            assert found["agentcom.attempt.run"]["completed",] == 1
            await receiver.numbers("agentcom.telemetry.pushes", lambda found: (found.get(("succeeded",)) or 0) >= 2)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_task_and_its_attempts_are_one_trace(tmp_path, protocol):
    with receiving(protocol) as (receiver, endpoint):
        push = {"telemetry__otlp_endpoint": endpoint, "telemetry__otlp_protocol": protocol}
        async with running(tmp_path, telemetry__otlp_every_s=0.05, telemetry__otlp_traces=True, **push) as caller:
            await work(caller)
            attempt, task = await receiver.traced.next(), await receiver.traced.next()
    assert (attempt.name, task.name) == ("attempt", "task")
    assert attempt.trace_id == task.trace_id
    assert attempt.parent_span_id == task.span_id
    assert task.parent_span_id == b""
    assert task.start_time_unix_nano <= attempt.start_time_unix_nano + 1_000_000  # an id tells milliseconds
    assert attempt.end_time_unix_nano == task.end_time_unix_nano > attempt.start_time_unix_nano
    assert {one.key: one.value.string_value for one in attempt.attributes}["agentcom.agent"] == "anna"


async def test_the_last_numbers_are_told_at_the_end_although_the_next_push_is_far(tmp_path):
    with receiving("http") as (receiver, endpoint):
        push = {"telemetry__otlp_endpoint": endpoint, "telemetry__otlp_protocol": "http"}
        async with running(tmp_path, telemetry__otlp_every_s=3_600.0, **push) as caller:
            await receiver.numbers("agentcom.task.submitted", lambda found: found.get(()) == 0)
            await work(caller)
        assert points(receiver.pushes.get_nowait())["agentcom.task.ended"]["succeeded",] == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("collector", ["gone", "silent"])
async def test_a_collector_that_is_away_or_hangs_neither_holds_up_work_nor_the_end(
    tmp_path, protocol, collector, caplog
):
    with contextlib.ExitStack() as stack, capture_logs() as records:
        endpoint = gone() if collector == "gone" else stack.enter_context(silent())
        push = {"telemetry__otlp_endpoint": endpoint, "telemetry__otlp_protocol": protocol}
        async with contextlib.AsyncExitStack() as hub:
            pace = {"telemetry__otlp_every_s": 0.05, "telemetry__otlp_timeout_s": 0.3}
            caller = await hub.enter_async_context(running(tmp_path, **PAGE, **push, **pace))
            pusher = caller.hub.telemetry._outlet.pusher
            async with asyncio.timeout(PATIENCE_S):
                while pusher.failed < 2 or (collector == "silent" and not pusher.skipped):
                    await work(caller)
            found = await scrape(caller)
            assert found["agentcom_telemetry_pushes_total", "failed"] >= 2
            assert (found["agentcom_telemetry_pushes_total", "skipped"] >= 1) or collector == "gone"
            began = time.monotonic()
            await hub.aclose()
            assert time.monotonic() - began < 5.0
    told = [record for record in records if record["event"] == "telemetry.push_failed"]
    assert len(told) == 1, told  # once a minute at most
    assert told[0]["error"]
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_a_collector_that_hangs_for_long_is_given_up_at_the_end(tmp_path):
    with silent() as endpoint, capture_logs() as records:
        push = {"telemetry__otlp_endpoint": endpoint, "telemetry__otlp_protocol": "http"}
        async with contextlib.AsyncExitStack() as hub:
            caller = await hub.enter_async_context(
                running(tmp_path, telemetry__otlp_every_s=0.05, telemetry__otlp_timeout_s=6.0, **push)
            )
            async with asyncio.timeout(PATIENCE_S):
                while not caller.hub.telemetry._outlet.pusher.skipped:
                    await work(caller)
            began = time.monotonic()
            await hub.aclose()
            assert time.monotonic() - began < 5.0
    assert "telemetry.push_abandoned" in [record["event"] for record in records]


async def test_a_port_that_is_taken_is_said_before_the_store_is_opened(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(errors.Unavailable, match="cannot listen on 127"):
            async with running(tmp_path, store__kind="lmdb", telemetry__prometheus_listen=listen):
                pass
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("key", "value", "library", "module"),
    [
        ("prometheus_listen", "127.0.0.1:0", "prometheus_client", "kit.promtext"),
        ("otlp_endpoint", "http://127.0.0.1:1", "opentelemetry", "kit.otlp"),
    ],
)
async def test_a_missing_library_is_named(tmp_path, monkeypatch, key, value, library, module):
    for name in [one for one in sys.modules if one == module or one.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(module, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(errors.Unavailable, match=r"agentcom\[telemetry\]"):
        async with running(tmp_path, **{f"telemetry__{key}": value}):
            pass


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"telemetry__prometheus_listen": "0.0.0.0:9464"}, "set prometheus_public"),
        ({"telemetry__prometheus_listen": "9464"}, "host:port"),
        ({"telemetry__otlp_endpoint": "127.0.0.1:4317"}, "http:// or https://"),
        ({"telemetry__otlp_protocol": "udp"}, "must be one of grpc, http"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, keys, words):
    with pytest.raises(errors.Invalid, match=words):
        configuration(tmp_path, **keys)


def test_a_page_for_everybody_must_be_asked_for(tmp_path):
    made = configuration(tmp_path, telemetry__prometheus_listen="0.0.0.0:9464", telemetry__prometheus_public=True)
    assert made.telemetry.page.port == 9464


async def test_a_monitor_that_asks_for_exemplars_is_led_to_the_trace_that_the_collector_has(tmp_path):
    with receiving("grpc") as (receiver, endpoint):
        push = {"telemetry__otlp_endpoint": endpoint, "telemetry__otlp_every_s": 0.05, "telemetry__otlp_traces": True}
        async with running(tmp_path, **PAGE, **push) as caller:
            await work(caller)
            attempt = await receiver.traced.next()
            accept = "application/openmetrics-text; version=1.0.0"
            _, body = await ask(caller, f"GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode())
            _, plain = await ask(caller, b"GET /metrics HTTP/1.1\r\n\r\n")
            pushed, _ = await receiver.numbers("agentcom.attempt.run", lambda found: found.get(("completed",)) == 1)
    families = {one.name: one.samples for one in openmetrics.text_string_to_metric_families(body)}
    exemplars = [one.exemplar for one in families["agentcom_attempt_run_seconds"] if one.exemplar is not None]
    led = {one.labels["span_id"] for one in exemplars}
    assert led == {attempt.span_id.hex()}
    assert "trace_id" not in plain
    (run,) = [one for one in pushed.resource_metrics[0].scope_metrics[0].metrics if one.name == "agentcom.attempt.run"]
    assert {one.trace_id for point in run.histogram.data_points for one in point.exemplars} <= {attempt.trace_id}
