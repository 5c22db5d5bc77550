"""Names of things: ids that sort by the time they were made, and `collection/id` as the protos spell it."""

from __future__ import annotations

import hashlib
import random
import re
import threading

from kit import errors

# Crockford's base32 without i, l, o and u: no two characters look alike. Its order is the order of its values.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH = 20
MS_BITS = 48  # milliseconds since the epoch: enough until the year 10889
RANDOM_BITS = 52
ID_MAX = (1 << (MS_BITS + RANDOM_BITS)) - 1

# Things whose ids people choose (`agents/builder-1`), or that are of a fixed catalogue; all else has a generated id.
CHOSEN = frozenset({"agents", "repos", "alertRules"})

_ID = re.compile(rf"[{ALPHABET}]{{{ID_LENGTH}}}")
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# Two characters at a time: half the steps of the encoding, which runs once per created record.
_PAIRS = tuple(high + low for high in ALPHABET for low in ALPHABET)

# Of the first ten characters: 50 bits, of which 48 are the time; and the digits that `int` knows.
_SPARE_BITS = 10 * 5 - MS_BITS
_DIGITS = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")


def new_id(now: float, rng: random.Random) -> str:
    """A new id: 48 bits of `now` in milliseconds, then 52 random bits. Ids of different milliseconds sort by time."""
    return encode(_number(now, rng))


class IdSource:
    """Ids that strictly increase within this process, even when the clock stands still or is set back.

    Safe to share between threads: the event loop and the store's writer both make ids.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._last = 0
        self._lock = threading.Lock()

    def new(self, now: float) -> str:
        """The next id."""
        with self._lock:
            self._last = max(_number(now, self._rng), self._last + 1)
            assert self._last <= ID_MAX
            return encode(self._last)


def derived(now: float, *parts: object) -> str:
    """An id made from `now` and a hash of `parts`: the same parts at the same time give the same id.

    For ids made inside a transaction script, which may run more than once: a re-run must not make another thing.
    """
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return encode(int(now * 1000) << RANDOM_BITS | int.from_bytes(digest, "big") >> (64 - RANDOM_BITS))


def encode(number: int) -> str:
    """The 20 characters of a 100-bit number."""
    assert 0 <= number <= ID_MAX
    return "".join([_PAIRS[number >> shift & 0x3FF] for shift in range(90, -1, -10)])


def made_at(id: str) -> float:
    """When a generated id was made, in seconds since the epoch."""
    return (int(id[:10].translate(_DIGITS), 32) >> _SPARE_BITS) / 1000


def is_id(text: str) -> bool:
    """Is this a generated id?"""
    return _ID.fullmatch(text) is not None


def is_slug(text: str) -> bool:
    """Is this an id that a person may choose: lower case, digits and dashes, at most 63 characters?"""
    return _SLUG.fullmatch(text) is not None


def name(collection: str, id: str) -> str:
    """The resource name, e.g. `tasks/01hgw2n8...`."""
    return f"{collection}/{id}"


def parse_name(collection: str, text: str, *, field: str = "name") -> str:
    """The id in a resource name of that collection. Raises Invalid naming `field`."""
    prefix, slash, id = text.partition("/")
    good = is_slug if collection in CHOSEN else is_id
    if prefix != collection or not slash or not good(id):
        shown = text if len(text) <= 80 else f"{text[:80]}..."
        raise errors.Invalid.of(field, f"{shown!r} is not a name of the form {collection}/{{id}}", reason="BAD_NAME")
    return id


def _number(now: float, rng: random.Random) -> int:
    milliseconds = int(now * 1000)
    assert 0 <= milliseconds < 1 << MS_BITS, now
    return milliseconds << RANDOM_BITS | rng.getrandbits(RANDOM_BITS)
