"""The little that a store must give: one sorted map from bytes to bytes, with a mark to go back to.

Theory. Everything about tasks and indexes is written once, in reader.py and txn.py, over this interface; LMDB and the
memory twin differ below it only. Functions share a transaction, and one that fails must vanish alone, so writes keep
the values that they replaced since the last `mark`; `undo` puts them back in reverse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

CHUNK: Final = 256
"""Keys fetched at once where a walk may stop early: few enough to waste little, many enough to pay for the seek."""


class ReadOrdered(Protocol):
    """A snapshot of a sorted map. Ranges are from `low` up to, not including, `high`."""

    def get(self, key: bytes) -> bytes | None:
        """The value; None when there is none."""

    def keys(self, low: bytes, high: bytes, limit: int, *, reverse: bool = False) -> list[bytes]:
        """The first `limit` keys of a range, the last ones when reversed."""

    def items(self, low: bytes, high: bytes, limit: int, *, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """The same with their values."""


class Ordered(ReadOrdered, Protocol):
    """A write transaction on a sorted map."""

    def put(self, key: bytes, value: bytes) -> None:
        """Write a key, new or not."""

    def add(self, key: bytes, value: bytes = b"") -> bool:
        """Write a new key; False, and nothing is written, when it is there already."""

    def delete(self, key: bytes) -> bool:
        """Forget a key; False when it was not there."""

    def mark(self) -> None:
        """What `undo` goes back to."""

    def undo(self) -> None:
        """Put back everything that was written since the mark."""


def walk(kv: ReadOrdered, low: bytes, high: bytes, *, reverse: bool = False) -> Iterator[bytes]:
    """All keys of a range, fetched chunk by chunk. Do not write to the range meanwhile."""
    while True:
        chunk = kv.keys(low, high, CHUNK, reverse=reverse)
        yield from chunk
        if len(chunk) < CHUNK:
            return
        if reverse:
            high = chunk[-1]
        else:
            low = chunk[-1] + b"\0"
