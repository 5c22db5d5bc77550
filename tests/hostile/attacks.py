"""Attacks on a port with bare sockets. Each lasts as long as it has something to send, and returns how much that was.

None of them waits for an answer that does not come: what a peer reads, it reads for a bounded time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tests.hostile import frames

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[["Port", random.Random], Awaitable[int]]

READ_S: Final = 0.2
"""What has not been answered by then is not waited for."""
GET_HUB: Final = b"/agentcom.v1.HubService/GetHub"
ATTACH: Final = b"/agentcom.v1.AgentService/Attach"
WATCH: Final = b"/agentcom.v1.HubService/WatchEvents"
LIST: Final = b"/agentcom.v1.HubService/ListEvents"


@dataclass(frozen=True)
class Port:
    """Where to, and how much of it: 1 is what a test has time for."""

    host: str
    number: int
    scale: float = 1.0

    def times(self, count: int) -> range:
        """So many rounds."""
        return range(max(1, round(count * self.scale)))


@contextlib.asynccontextmanager
async def connection(port: Port) -> AsyncIterator[Streams]:
    """A socket, closed at the end without ceremony."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection(port.host, port.number), 10)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def send(port: Port, data: bytes, *more: bytes) -> int:
    """Connect, say this, hear what comes, go. What the other side cuts off is cut off."""
    with contextlib.suppress(OSError, TimeoutError):
        async with connection(port) as (reader, writer):
            for part in (data, *more):
                writer.write(part)
                await asyncio.wait_for(writer.drain(), READ_S)
            await asyncio.wait_for(reader.read(65_536), READ_S)
    return 1


async def noise(port: Port, rng: random.Random) -> int:
    """Bytes without any sense."""
    return sum([await send(port, rng.randbytes(rng.choice((1, 10, 24, 300, 20_000)))) for _ in port.times(60)])


async def http1(port: Port, rng: random.Random) -> int:
    """The web of another time, and a head without an end."""
    get = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    post = b"POST /agentcom.v1.HubService/GetHub HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"
    endless = b"GET / HTTP/1.1\r\n" + b"X-A: " + b"a" * 200_000
    return sum([await send(port, rng.choice((get, post, endless))) for _ in port.times(30)])


async def tls_hello(port: Port, rng: random.Random) -> int:
    """The first message of TLS, where there is none, whole and in half."""
    hello = _client_hello()
    return sum([await send(port, hello[: rng.choice((5, 60, len(hello)))]) for _ in port.times(30)])


async def half_handshake(port: Port, _rng: random.Random) -> int:
    """The first message of TLS on each connection, and never the second, until the hub has enough of them."""
    return await _occupy(port, len(port.times(500)), _client_hello(), hold_s=12.0)


def _client_hello() -> bytes:
    out = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


async def garbage_frames(port: Port, rng: random.Random) -> int:
    """A good beginning, and then frames that mean nothing."""
    count = 0
    for _ in port.times(60):
        made = [frames.garbage(rng) for _ in range(rng.randint(1, 30))]
        opened = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, frames.request(GET_HUB))
        count += await send(port, frames.PREFACE + frames.settings() + rng.choice((b"", opened)), *made)
    return count


async def half_preface(port: Port, rng: random.Random) -> int:
    """Half of the beginning, one byte after the other."""
    return sum(
        [await send(port, *[bytes((b,)) for b in frames.PREFACE[: rng.randrange(1, 24)]]) for _ in port.times(20)]
    )


async def _flood(port: Port, one: bytes, count: int, *, first: bytes = b"") -> int:
    """The same again and again on one connection, while it lasts."""
    sent = 0
    with contextlib.suppress(OSError, TimeoutError):
        async with connection(port) as (reader, writer):
            writer.write(frames.PREFACE + frames.settings() + first)
            drain = asyncio.create_task(_swallow(reader))
            try:
                for _ in range(0, count, 100):
                    writer.write(one * 100)
                    await asyncio.wait_for(writer.drain(), 2)
                    sent += 100
            finally:
                drain.cancel()
    return sent


async def _swallow(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(65_536):
            pass


async def settings_flood(port: Port, _rng: random.Random) -> int:
    """Settings, each of which wants an acknowledgement."""
    return await _flood(port, frames.settings(window=65_535), len(port.times(20_000)))


async def ping_flood(port: Port, _rng: random.Random) -> int:
    """Pings, each of which wants an answer."""
    return await _flood(port, frames.frame(frames.PING, payload=b"12345678"), len(port.times(20_000)))


async def empty_flood(port: Port, _rng: random.Random) -> int:
    """Data frames without data on one open stream."""
    opened = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, frames.request(ATTACH))
    return await _flood(port, frames.frame(frames.DATA, 0, 1), len(port.times(20_000)), first=opened)


async def rapid_reset(port: Port, rng: random.Random) -> int:
    """Calls that are taken back as soon as they are made (CVE-2023-44487), on three connections."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(_rapid_reset(port, rng)) for _ in range(3)]
    return sum(one.result() for one in running)


async def _rapid_reset(port: Port, rng: random.Random) -> int:
    sent = 0
    with contextlib.suppress(OSError, TimeoutError):
        async with connection(port) as (reader, writer):
            writer.write(frames.PREFACE + frames.settings())
            drain = asyncio.create_task(_swallow(reader))
            try:
                for number in port.times(5_000):
                    stream = 2 * number + 1
                    block = frames.request(rng.choice((GET_HUB, WATCH, ATTACH)))
                    call = frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block)
                    body = frames.frame(frames.DATA, frames.END_STREAM, stream, frames.message())
                    writer.write(call + body + frames.frame(frames.RST_STREAM, 0, stream, b"\0\0\0\x08"))
                    if number % 50 == 0:
                        await asyncio.wait_for(writer.drain(), 2)
                    sent += 1
                await asyncio.wait_for(writer.drain(), 2)
            finally:
                drain.cancel()
    return sent


async def continuation_flood(port: Port, _rng: random.Random) -> int:
    """A head of a call that never ends (CVE-2024-24786 and its kin)."""
    opened = frames.frame(frames.HEADERS, 0, 1, frames.request(GET_HUB))
    piece = frames.frame(frames.CONTINUATION, 0, 1, frames.literal(b"x-a", b"a" * 1_000))
    return await _flood(port, piece, len(port.times(20_000)), first=opened)


async def header_bomb(port: Port, _rng: random.Random) -> int:
    """A large header that is put into the table once, and then named a thousand times a call, with one byte each."""
    large = frames.literal(b"x-bomb", b"b" * 3_900, indexed=True)
    sent = 0
    with contextlib.suppress(OSError, TimeoutError):
        async with connection(port) as (reader, writer):
            writer.write(frames.PREFACE + frames.settings())
            drain = asyncio.create_task(_swallow(reader))
            try:
                for number in port.times(200):
                    named = large if number == 0 else b"\xbe" * 4_000
                    block = frames.request(GET_HUB) + named
                    writer.write(frames.frame(frames.HEADERS, frames.END_HEADERS, 2 * number + 1, block))
                    await asyncio.wait_for(writer.drain(), 2)
                    sent += 1
            finally:
                drain.cancel()
    return sent


async def closed_window(port: Port, _rng: random.Random) -> int:
    """Asks for large answers and lets none of them through."""
    sent = 0
    with contextlib.suppress(OSError, TimeoutError):
        async with connection(port) as (reader, writer):
            writer.write(frames.PREFACE + frames.settings(window=0))
            drain = asyncio.create_task(_swallow(reader))
            try:
                for number in port.times(2_000):
                    stream = 2 * number + 1
                    call = frames.frame(frames.HEADERS, frames.END_HEADERS, stream, frames.request(LIST))
                    writer.write(call + frames.frame(frames.DATA, frames.END_STREAM, stream, frames.message()))
                    await asyncio.wait_for(writer.drain(), 2)
                    sent += 1
                await asyncio.sleep(READ_S)
            finally:
                drain.cancel()
    return sent


async def huge_message(port: Port, _rng: random.Random) -> int:
    """Says that four gigabytes follow, and begins."""
    head = b"\0" + (2**32 - 1).to_bytes(4, "big")
    opened = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, frames.request(GET_HUB))
    first = opened + frames.frame(frames.DATA, 0, 1, head)
    return await _flood(port, frames.frame(frames.DATA, 0, 1, b"x" * 1_000), len(port.times(2_000)), first=first)


async def _occupy(port: Port, count: int, said: bytes, *, then: bytes = b"", hold_s: float = 3.0) -> int:
    """Many connections at once that say the same and stay; `then` is said byte by byte while they do."""
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            with contextlib.suppress(OSError, TimeoutError):
                opened.append(await stack.enter_async_context(connection(port)))
                opened[-1][1].write(said)
        steps = max(1, len(then))
        for number in range(steps):
            for _, writer in opened:
                writer.write(then[number : number + 1])
            await asyncio.sleep(hold_s / steps)
    return len(opened)


async def silence(port: Port, _rng: random.Random) -> int:
    """Thousands of connections that say nothing."""
    return await _occupy(port, len(port.times(2_500)), b"")


async def half_open(port: Port, _rng: random.Random) -> int:
    """Half of the beginning on each, and the rest never."""
    return await _occupy(port, len(port.times(1_000)), frames.PREFACE[:11])


async def slowly(port: Port, _rng: random.Random) -> int:
    """The beginning of a call, a byte at a time."""
    call = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, frames.request(GET_HUB))
    return await _occupy(port, len(port.times(300)), b"", then=(frames.PREFACE + frames.settings() + call)[:60])


async def idle_peers(port: Port, _rng: random.Random) -> int:
    """Thousands of connections that begin well and ask for nothing."""
    return await _occupy(port, len(port.times(2_500)), frames.PREFACE + frames.settings() + ACKNOWLEDGED)


def _streams(path: bytes, count: int, body: bytes) -> bytes:
    made = [frames.PREFACE, frames.settings(), ACKNOWLEDGED]
    for number in range(count):
        stream = 2 * number + 1
        made.append(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, frames.request(path)))
        if body:
            made.append(frames.frame(frames.DATA, frames.END_STREAM, stream, body))
    return b"".join(made)


async def watches(port: Port, _rng: random.Random) -> int:
    """More watches on one connection than it may have, and none of them read."""
    return await _occupy(port, 2, _streams(WATCH, len(port.times(1_500)), frames.message()))


async def no_hello(port: Port, _rng: random.Random) -> int:
    """Sidecars that attach and never say who they are, until the hub has enough of them."""
    return await _occupy(port, 4, _streams(ATTACH, len(port.times(250)), b""), hold_s=12.0)


ACKNOWLEDGED: Final = frames.frame(frames.SETTINGS, frames.ACK)

HELD: Final[tuple[Attack, ...]] = (silence, half_open, slowly, idle_peers, watches, no_hello)
"""Those that last: they hold what they have for seconds."""

SHORT: Final[tuple[Attack, ...]] = (
    noise,
    http1,
    tls_hello,
    garbage_frames,
    half_preface,
    settings_flood,
    ping_flood,
    empty_flood,
    rapid_reset,
    continuation_flood,
    header_bomb,
    closed_window,
    huge_message,
)
