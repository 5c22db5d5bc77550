"""A server that starts once, tells its health, and ends in order; a client that knows where and who."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from kit import channel, errors, interceptors, serving, wire
from tests.unit.kit.wire_service import NAME, Echo, Wire

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def deny(_context, _method):
    raise errors.Unauthenticated("no token")


async def health_of(wire_, service=""):
    stub = health_pb2_grpc.HealthStub(wire_.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_health_follows_the_node_and_needs_no_token():
    async with Wire(deny) as wire_:
        assert await health_of(wire_, NAME) == NOT_SERVING
        await wire_.server.set_serving(True)
        assert [await health_of(wire_, name) for name in ("", NAME)] == [SERVING, SERVING]
        await wire_.server.set_serving(False)
        assert await health_of(wire_) == NOT_SERVING


async def test_a_health_watch_survives_the_interceptor():
    async with Wire(deny) as wire_:
        stub = health_pb2_grpc.HealthStub(wire_.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await watch.read()).status == NOT_SERVING
        await wire_.server.set_serving(True)
        assert (await watch.read()).status == SERVING
        watch.cancel()


async def test_reflection_lists_the_services_and_needs_no_token():
    async with Wire(deny) as wire_:
        stub = reflection_pb2_grpc.ServerReflectionStub(wire_.channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = [s.name async for answer in call for s in answer.list_services_response.service]
    assert {NAME, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} == set(names)


async def test_a_second_server_on_the_same_port_is_refused_in_one_line():
    async with Wire() as wire_:
        second = serving.Server(services=[])
        with pytest.raises(errors.Unavailable) as refused:
            await second.start(wire_.address.target)
        await second.grpc.stop(0)
    assert refused.value.reason == "BIND_FAILED"
    assert wire_.address.target in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_the_end_is_not_serving_then_drain_then_stop():
    goaway, steps = asyncio.Event(), []

    async def attach(requests, context):
        await context.write(Echo(name="hello"))
        await goaway.wait()
        await context.write(Echo(name="goaway"))

    async with Wire(stream_stream=attach) as wire_:
        await wire_.server.set_serving(True)
        call = wire_.call("stream_stream")
        assert (await call.read()).name == "hello"

        async def drain():
            steps.append(await health_of(wire_))
            goaway.set()

        async with asyncio.timeout(10):
            await wire_.server.stop(grace_s=30, drain=drain)
        assert (await call.read()).name == "goaway"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
    assert steps == [NOT_SERVING]


async def test_a_drain_that_hangs_does_not_hold_the_end():
    async def drain():
        await asyncio.get_running_loop().create_future()

    async with Wire() as wire_:
        with capture_logs() as lines:
            async with asyncio.timeout(5):
                await wire_.server.stop(grace_s=0.01, drain=drain)
    assert [line["event"] for line in lines] == ["server.drain_timed_out"]


async def test_a_message_up_to_the_bound_passes_and_a_larger_one_does_not():
    async def echo(request, _context):
        return request

    async with Wire(unary_unary=echo) as wire_:
        large = "x" * (wire.MESSAGE_BYTES_MAX - 64)
        assert len((await wire_.call("unary_unary", Echo(name=large))).name) == len(large)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await wire_.call("unary_unary", Echo(name=large + "x" * 100))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("text", "target", "tls"),
    [
        ("127.0.0.1:7070", "127.0.0.1:7070", False),
        ("grpc://hub.example:1", "hub.example:1", False),
        ("grpcs://hub.example:443", "hub.example:443", True),
        ("[::1]:7070", "[::1]:7070", False),
    ],
)
def test_an_address_is_read(text, target, tls):
    address = channel.parse_address(text)
    assert (address.target, address.tls) == (target, tls)


@pytest.mark.parametrize("text", ["", "hub", ":1", "hub:", "hub:x", "hub:70000", "http://hub:1", "::1:7070", "hub/a:1"])
def test_a_wrong_address_is_refused_naming_the_field(text):
    with pytest.raises(errors.Invalid) as refused:
        channel.parse_address(text, field="hub.address")
    assert [v.field for v in refused.value.violations] == ["hub.address"]


def test_a_token_is_not_sent_over_a_network_in_the_clear():
    far, near = channel.parse_address("hub.example:1"), channel.parse_address("localhost:1")
    with pytest.raises(errors.Invalid):
        channel.token_metadata("act_x", far)
    wanted = (("authorization", "Bearer act_x"),)
    assert channel.token_metadata("act_x", near) == wanted
    assert channel.token_metadata("act_x", channel.parse_address("grpcs://hub.example:1")) == wanted
    assert channel.token_metadata("act_x", far, plaintext=True) == wanted
    assert channel.token_metadata(None, far) == ()


def test_the_token_is_found_in_the_metadata_of_a_call():
    assert channel.bearer_token((("a", "b"), ("authorization", "Bearer act_x"))) == "act_x"
    assert channel.bearer_token((("authorization", "bearer act_x"),)) == "act_x"
    assert channel.bearer_token(()) is None
    for wrong in ("act_x", "Basic act_x", "Bearer "):
        with pytest.raises(errors.Unauthenticated):
            channel.bearer_token((("authorization", wrong),))


def test_open_services_are_exactly_health_and_reflection():
    assert all(name.startswith("/grpc.") and name.endswith("/") for name in interceptors.OPEN_SERVICES)
