"""Whether a hub is there at all: only a refused connection says that there is none."""

from __future__ import annotations

import asyncio
import socket

from sidecar.wire import knock


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


async def test_a_port_where_nobody_listens_says_so():
    assert await knock.is_nobody_there("127.0.0.1", free_port())


async def test_who_listens_and_says_nothing_is_there():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        assert not await knock.is_nobody_there("127.0.0.1", server.sockets[0].getsockname()[1])


async def test_silence_says_nothing():
    with socket.socket() as bound, socket.socket() as one, socket.socket() as two:
        bound.bind(("127.0.0.1", 0))
        bound.listen(0)  # a hub that stands still, and whose backlog is full: the third to come waits
        for knocking in (one, two):
            knocking.setblocking(False)
            knocking.connect_ex(bound.getsockname())
        assert not await knock.is_nobody_there("127.0.0.1", bound.getsockname()[1], timeout_s=0.2)
