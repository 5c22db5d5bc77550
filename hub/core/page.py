"""Pages: how many records one has, and the opaque token that says where the next one begins.

A token is bound to the list, filter and order that it was made for: used with others it would skip or repeat records in
silence, so it is refused. It holds no secret; the hash tells mistakes, not attackers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from kit import errors

SIZE_DEFAULT: Final = 50
SIZE_MAX: Final = 1000
"""More is taken as this: one reply stays well below the largest message."""

_VERSION: Final = b"\x01"
_HASH_BYTES: Final = 8
_POSITION_DIGITS_MAX: Final = 18
"""Any such number is a key of the log, and no log reaches that far."""


def size(asked: int, default: int = SIZE_DEFAULT) -> int:
    """How many records to give. Raises Invalid when it is negative."""
    if asked < 0:
        raise errors.Invalid.of("page_size", "must be 0 or more")
    return min(asked or default, SIZE_MAX)


def encode(cursor: str, *bound: object) -> str:
    """A token that means "go on after `cursor`" for the list that `bound` describes."""
    raw = cursor.encode()
    return base64.urlsafe_b64encode(_VERSION + _hash(raw, bound) + raw).decode().rstrip("=")


def decode(token: str, *bound: object) -> str:
    """The cursor in a token; empty for the first page. Raises Invalid when it was made for something else."""
    if not token:
        return ""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    head = len(_VERSION) + _HASH_BYTES
    raw = data[head:]
    if data[:1] != _VERSION or data[1:head] != _hash(raw, bound):
        raise _bad()
    try:
        return raw.decode()
    except UnicodeDecodeError:  # the hash is no secret: whoever makes up a token can make up its hash
        raise _bad() from None


def decode_position(token: str, *bound: object) -> int:
    """The same for a list whose cursor is a position in the event log; 0 for the first page."""
    text = decode(token, *bound)
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= _POSITION_DIGITS_MAX):
        raise _bad()
    return int(text)


def _bad() -> errors.Invalid:
    return errors.Invalid.of(
        "page_token", "is not a token of this list with this filter and order", reason="BAD_PAGE_TOKEN"
    )


def _hash(raw: bytes, bound: tuple[object, ...]) -> bytes:
    text = "\0".join(str(part) for part in bound)
    return hashlib.blake2b(raw + b"\0\0" + text.encode(), digest_size=_HASH_BYTES).digest()
