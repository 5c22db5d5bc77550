"""Bounds in time of the port: a connection on which nothing comes, or nothing happens any more, is closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest

from kit import serving
from tests.support.authority import Authority

SHORT_MS = 300
PATIENCE_S = 30.0
"""A bound for failures: without its option gRPC waits for two minutes, or for ever."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def shorten(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """The server's own options, with this one's time made short; one that is not among them fails the test."""
    assert option in dict(serving.OPTIONS), f"{option} is not set"
    short = tuple((name, SHORT_MS if name == option else value) for name, value in serving.OPTIONS)
    monkeypatch.setattr(serving, "OPTIONS", short)


@contextlib.asynccontextmanager
async def port(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[int]:
    server = serving.Server(services=[])
    number = await server.start("127.0.0.1:0", credentials=credentials)
    try:
        yield number
    finally:
        await server.stop(grace_s=0.0)


async def said_until_closed(number: int, sent: bytes = b"") -> bytes:
    """What the server says before it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    try:
        writer.write(sent)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_connection_that_never_shakes_hands_is_closed(monkeypatch, tls):
    shorten(monkeypatch, "grpc.server_handshake_timeout_ms")
    pair = Authority().pair()
    credentials = grpc.ssl_server_credentials([(pair.key, pair.certificate)]) if tls else None
    async with port(credentials) as number:
        await said_until_closed(number)


async def test_a_connection_without_a_call_is_closed_after_a_while(monkeypatch):
    shorten(monkeypatch, "grpc.max_connection_idle_ms")
    async with port() as number:
        said = await said_until_closed(number, PREFACE + SETTINGS)
        assert b"connection idle" in said, "with a goaway that says why"
