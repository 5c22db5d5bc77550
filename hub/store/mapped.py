"""A snapshot and a write transaction of LMDB as sorted maps: `ordered.ReadOrdered` and `ordered.Ordered`.

The transactions are handed in by lmdb.py, the one place that knows the library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class LmdbReadOrdered:
    """A snapshot of the map."""

    def __init__(self, txn: Any) -> None:
        self._txn = txn
        self._cursor = txn.cursor()
        # Bound once: this is the most frequent call of all.
        self.get: Callable[[bytes], bytes | None] = txn.get

    def keys(self, low: bytes, high: bytes, limit: int, *, reverse: bool = False) -> list[bytes]:
        found: list[bytes] = []
        if self._seek(low, high, reverse) and limit > 0:
            step = self._cursor.iterprev if reverse else self._cursor.iternext
            for key in step(keys=True, values=False):
                if (key < low) if reverse else (key >= high):
                    break
                found.append(key)
                if len(found) == limit:
                    break
        return found

    def items(self, low: bytes, high: bytes, limit: int, *, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        if self._seek(low, high, reverse) and limit > 0:
            step = self._cursor.iterprev if reverse else self._cursor.iternext
            for item in step(keys=True, values=True):
                if (item[0] < low) if reverse else (item[0] >= high):
                    break
                found.append(item)
                if len(found) == limit:
                    break
        return found

    def end(self) -> None:
        """Let go of the snapshot. A reader's slot is free only when nothing refers to the transaction."""
        self._txn.abort()
        self._cursor = self._txn = None
        self.get = _ended

    def _seek(self, low: bytes, high: bytes, reverse: bool) -> bool:
        """Stand on the first key to look at."""
        cursor = self._cursor
        if not reverse:
            return bool(cursor.set_range(low))
        return bool(cursor.prev() if cursor.set_range(high) else cursor.last())


class LmdbOrdered(LmdbReadOrdered):
    """A write transaction on the map, with the log of what it replaced since the mark."""

    def __init__(self, txn: Any) -> None:
        super().__init__(txn)
        self._undo: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self._undo.append((key, self.get(key)))
        self._txn.put(key, value)

    def add(self, key: bytes, value: bytes = b"") -> bool:
        if not self._txn.put(key, value, overwrite=False):
            return False
        self._undo.append((key, None))
        return True

    def delete(self, key: bytes) -> bool:
        before = self._txn.pop(key)
        if before is None:
            return False
        self._undo.append((key, before))
        return True

    def mark(self) -> None:
        self._undo.clear()

    def undo(self) -> None:
        for key, before in reversed(self._undo):
            if before is None:
                self._txn.delete(key)
            else:
                self._txn.put(key, before)
        self._undo.clear()

    def finish(self) -> None:
        """Commit. The object is of no use afterwards."""
        txn = self._txn
        self._cursor = self._txn = None
        self.get = _ended
        txn.commit()


def _ended(key: bytes) -> bytes | None:
    raise AssertionError("the transaction has ended: a Txn or Reader must not be kept")
