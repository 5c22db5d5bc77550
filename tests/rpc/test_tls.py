"""TLS and mutual TLS between real ends: who is let in, who is not, and certificates that change under open streams."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest

from agentcom.v1 import hub_service_pb2, hub_service_pb2_grpc
from hub import app
from kit import certificate, channel, errors
from tests.support.authority import Authority
from tests.support.hub import PATIENCE_S, configuration

GET = hub_service_pb2.GetHubRequest()


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(autouse=True)
def _no_wait_between_handshakes(monkeypatch):
    # These tests shake hands one after the other, so nothing can be disturbed.
    monkeypatch.setattr(certificate, "QUIET_S", 0.0)


@contextlib.asynccontextmanager
async def serving(folder, pair, *, clients=None, **overrides):
    """A hub with TLS on loopback; with an authority for clients it asks for their certificates."""
    crt, key = pair.write(folder)
    settings = {"server__tls_certificate": crt, "server__tls_key": key, **overrides}
    if clients is not None:
        (folder / "clients.crt").write_bytes(clients.pem)
        settings["server__tls_client_ca"] = folder / "clients.crt"
    async with app.serving_hub(app.Hub(configuration(folder, **settings))) as hub:
        yield hub


@contextlib.asynccontextmanager
async def dialled(hub, tls, host="127.0.0.1"):
    """A stub of the hub's service over a connection of its own."""
    port = channel.parse_address(hub.address).port
    wire = channel.open_channel(channel.Address(host, port, tls=tls is not None), tls)
    try:
        yield hub_service_pb2_grpc.HubServiceStub(wire)
    finally:
        await wire.close()


async def get(hub, tls, **options):
    async with dialled(hub, tls, **options) as stub:
        return (await stub.GetHub(GET, timeout=PATIENCE_S)).hub


async def is_shut(hub, tls):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await get(hub, tls)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_who_trusts_the_authority_gets_in_by_name_and_by_address(tmp_path, authority):
    async with serving(tmp_path, authority.pair()) as hub:
        for host in ("127.0.0.1", "localhost"):
            assert (await get(hub, authority.tls(), host=host)).name == "hub"


async def test_a_client_refuses_a_hub_of_another_authority_and_one_that_has_expired(tmp_path, authority):
    async with serving(tmp_path / "a", authority.pair()) as hub:
        assert await is_shut(hub, Authority("another").tls())
        assert await is_shut(hub, channel.Tls())  # the system's
        assert await is_shut(hub, None)  # plaintext
        assert await get(hub, authority.tls())
    async with serving(tmp_path / "b", authority.pair(days=-1)) as hub:
        assert await is_shut(hub, authority.tls())


async def test_mutual_tls_lets_in_only_clients_with_a_good_certificate_of_the_right_authority(tmp_path, authority):
    clients = Authority("clients")
    async with serving(tmp_path, authority.pair(), clients=clients) as hub:
        assert await get(hub, authority.tls(clients.pair("sidecar")))
        assert await is_shut(hub, authority.tls())
        assert await is_shut(hub, authority.tls(Authority("another").pair()))
        assert await is_shut(hub, authority.tls(clients.pair("late", days=-1)))


async def test_new_certificates_serve_new_handshakes_and_open_streams_go_on(tmp_path, authority):
    other = Authority("the next one")
    async with serving(tmp_path, authority.pair()) as hub, dialled(hub, authority.tls()) as old:
        watch = old.WatchEvents(hub_service_pb2.WatchEventsRequest())
        await watch.read()
        other.pair().write(tmp_path)
        assert await is_shut(hub, authority.tls())
        assert (await get(hub, other.tls())).name == "hub"
        async with dialled(hub, other.tls()) as new:
            await new.PauseHub(hub_service_pb2.PauseHubRequest())
        async with asyncio.timeout(PATIENCE_S):
            assert (await watch.read()).event.type == "hub.paused"
        assert await old.GetHub(GET, timeout=PATIENCE_S)
        watch.cancel()


async def test_a_broken_certificate_leaves_the_old_one_in_use(tmp_path, authority):
    async with serving(tmp_path, authority.pair()) as hub:
        (tmp_path / "hub.crt").write_bytes(b"nonsense")
        assert await get(hub, authority.tls())
        assert "hub.crt" in hub.certificates.state.problem


async def test_an_authority_of_clients_may_be_replaced_too(tmp_path, authority):
    first, second = Authority("first"), Authority("second")
    async with serving(tmp_path, authority.pair(), clients=first) as hub:
        (tmp_path / "clients.crt").write_bytes(second.pem)
        assert await is_shut(hub, authority.tls(first.pair()))
        assert await get(hub, authority.tls(second.pair()))


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:0", "[::]:0", "hub.example:0", "192.0.2.1:0", "[::ffff:0.0.0.0]:0", "[2001:db8::1]:0"]
)
def test_beyond_the_loopback_a_hub_without_tls_does_not_start(tmp_path, listen):
    with pytest.raises(errors.Invalid, match=r"server\.tls_certificate and server\.tls_key") as refused:
        configuration(tmp_path, server__listen=listen)
    assert refused.value.reason == "BAD_CONFIGURATION"


async def test_beyond_the_loopback_nobody_comes_in_without_a_token_and_that_cannot_be_turned_off(tmp_path, authority):
    crt, key = authority.pair().write(tmp_path)
    beyond = {"server__listen": "0.0.0.0:0", "server__tls_certificate": crt, "server__tls_key": key}
    with pytest.raises(errors.Invalid, match=r"auth\.required"):
        configuration(tmp_path, auth__required=False, **beyond)
    async with app.serving_hub(app.Hub(configuration(tmp_path, **beyond))) as hub:
        port = channel.parse_address(hub.address).port
        wire = channel.open_channel(channel.Address("127.0.0.1", port, tls=True), authority.tls())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await hub_service_pb2_grpc.HubServiceStub(wire).GetHub(GET, timeout=PATIENCE_S)
        await wire.close()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_hub_checks_its_configuration_itself_before_it_opens_anything(tmp_path):
    import dataclasses

    made = configuration(tmp_path)
    made = dataclasses.replace(made, server=dataclasses.replace(made.server, listen="0.0.0.0:0"))
    with pytest.raises(errors.Invalid, match="needs TLS"):
        await app.Hub(made).start()
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("host", "is_near"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("127.1", False),
    ],
)
def test_only_what_surely_stays_on_this_machine_is_loopback(host, is_near):
    assert channel.is_loopback(host) is is_near
