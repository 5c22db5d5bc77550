"""Bytes that were a message once: flipped, cut, doubled, with wrong lengths, wrong types and depths without end.

Each mutation takes bytes and dice and gives other bytes; it never looks at what they mean beyond their tags.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

Mutate = Callable[[bytes, random.Random], bytes]

DEPTH: Final = 500
"""Far beyond the hundred levels that protobuf reads."""
VARINTS: Final = (b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\xff" * 64, b"\x80" * 30 + b"\x00", b"\xff\xff\xff\xff\x07")
"""The largest number, one too long, endless ones, and a length of nearly 2 GiB."""


def flip(body: bytes, rng: random.Random) -> bytes:
    """Turn up to eight bits."""
    made = bytearray(body or b"\0")
    for _ in range(rng.randint(1, 8)):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def cut(body: bytes, rng: random.Random) -> bytes:
    """Lose the end."""
    return body[: rng.randrange(len(body) + 1)]


def drop(body: bytes, rng: random.Random) -> bytes:
    """Lose something in the middle."""
    start = rng.randrange(len(body) + 1)
    return body[:start] + body[start + rng.randint(1, 8) :]


def double(body: bytes, rng: random.Random) -> bytes:
    """Say a part again, up to two hundred times."""
    start = rng.randrange(len(body) + 1)
    part = body[start : start + rng.randint(1, 60)]
    return body[:start] + part * rng.randint(2, 200) + body[start:]


def insert(body: bytes, rng: random.Random) -> bytes:
    """Put noise somewhere."""
    start = rng.randrange(len(body) + 1)
    return body[:start] + rng.randbytes(rng.randint(1, 40)) + body[start:]


def lie(body: bytes, rng: random.Random) -> bytes:
    """Put a number of the wrong size where a length may be."""
    start = rng.randrange(len(body) + 1)
    return body[:start] + rng.choice(VARINTS) + body[start + 1 :]


def strange(body: bytes, rng: random.Random) -> bytes:
    """Add fields that nobody knows, of every wire type, the two forbidden ones among them."""
    number = rng.choice((0, 1, 2, 3, 99, 19_000, 2**29 - 1))
    sort = rng.randrange(8)
    contents = {0: rng.choice(VARINTS[:1]), 1: rng.randbytes(8), 2: _sized(rng.randbytes(50)), 5: rng.randbytes(4)}
    return body + varint(number << 3 | sort) + contents.get(sort, rng.randbytes(3))


def nest(body: bytes, rng: random.Random) -> bytes:
    """Put it into one field of itself after the other."""
    number = rng.randint(1, 9)
    for _ in range(rng.randint(2, DEPTH)):
        body = varint(number << 3 | 2) + _sized(body)
    return body


def group(body: bytes, rng: random.Random) -> bytes:
    """Open groups, which proto3 has no more, and close some."""
    number = rng.randint(1, 30)
    depth = rng.randint(1, DEPTH)
    return body + varint(number << 3 | 3) * depth + varint(number << 3 | 4) * rng.randint(0, depth)


def retype(body: bytes, rng: random.Random) -> bytes:
    """Give the first field another wire type."""
    return bytes([body[0] & 0xF8 | rng.randrange(8)]) + body[1:] if body else b"\x0f"


def text(body: bytes, rng: random.Random) -> bytes:
    """Put bytes that are no UTF-8 (a surrogate, an overlong NUL, a lone continuation) over some."""
    start = rng.randrange(len(body) + 1)
    odd = rng.choice((b"\xed\xa0\x80", b"\xc0\x80", b"\x80", b"\xf5\x80\x80\x80", b"\xff\xfe"))
    return body[:start] + odd + body[start + len(odd) :]


def noise(_body: bytes, rng: random.Random) -> bytes:
    """Nothing of it is left."""
    return rng.randbytes(rng.randint(0, 400))


MUTATIONS: Final[tuple[Mutate, ...]] = (
    flip, flip, cut, drop, double, insert, lie, strange, nest, group, retype, text, noise,
)  # fmt: skip


def mutated(body: bytes, rng: random.Random) -> bytes:
    """One to three of them, one after the other."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        body = rng.choice(MUTATIONS)(body, rng)
    return body


def varint(number: int) -> bytes:
    """A number as the wire has it."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def _sized(body: bytes) -> bytes:
    return varint(len(body)) + body
