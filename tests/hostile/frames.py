"""HTTP/2 by hand: frames that no library would send."""

from __future__ import annotations

import random
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM: Final = 1
END_HEADERS: Final = 4
ACK: Final = 1

INITIAL_WINDOW_SIZE: Final = 4


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame; `length` is what its head says, where that is a lie."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind & 0xFF, flags & 0xFF)) + stream.to_bytes(4, "big") + payload


def settings(**values: int) -> bytes:
    """A SETTINGS frame; only the size of the window has a name here."""
    numbers = {"window": INITIAL_WINDOW_SIZE}
    body = b"".join(numbers[name].to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in values.items())
    return frame(SETTINGS, payload=body)


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """A header field in plain text; `indexed` puts it into the dynamic table."""
    return (b"\x40" if indexed else b"\x00") + _integer(len(name), 7) + name + _integer(len(value), 7) + value


def request(path: bytes) -> bytes:
    """The header block of a call."""
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + b"\x04" + _integer(len(path), 7) + path
        + b"\x01\x01x"  # :authority x
        + literal(b"content-type", b"application/grpc")
        + literal(b"te", b"trailers")
    )  # fmt: skip


def message(body: bytes = b"") -> bytes:
    """A message of gRPC: not compressed, its length, itself."""
    return b"\0" + len(body).to_bytes(4, "big") + body


def garbage(rng: random.Random) -> bytes:
    """A frame of any type, length and content."""
    payload = rng.randbytes(rng.choice((0, 1, 4, 5, 8, 30, 300)))
    length = rng.choice((None, None, None, 0, 2**14 + 1, 2**24 - 1, rng.randrange(400)))
    stream = rng.choice((0, 0, 1, 2, 3, 2**31 - 1, 2**32 - 1))
    return frame(rng.choice((*range(10), 0xFA)), rng.randrange(256), stream, payload, length=length)


def _integer(number: int, bits: int) -> bytes:
    """An integer of HPACK with a prefix of so many bits."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((number,))
    made, number = bytearray((most,)), number - most
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])
