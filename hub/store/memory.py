"""The memory twin: the same store over a dict and a sorted list of keys, for tests and for trying things out.

Theory. Everything above `Ordered` is shared with LMDB; here is only the map. Functions run one by one on the loop's
thread, and reads run between them, so a snapshot needs no copy. Nothing survives the process. With `rehearse` every
function is run twice, the first time rolled back: a script that keeps state of its own or rolls dice shows itself.
"""

from __future__ import annotations

import asyncio
import bisect
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Self, TypeVar

from hub.core.event import Event
from hub.store import chain, codec, keys, migrate
from hub.store.base import Reader, StoreFacts, Txn
from hub.store.ordered import Ordered
from hub.store.reader import Classes, OrderedReader
from hub.store.txn import OrderedTxn
from kit import errors, logs

log = logs.get(__name__)

T = TypeVar("T")

SIZE_BYTES_MAX: Final = 1 << 30
"""Refuses new work beyond this, as a full disk would."""
RESERVE_BYTES: Final = 16 << 20
"""Kept back for essential writes."""


class MemoryOrdered(Ordered):
    """A sorted map in memory, with the log of what was replaced since the mark."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self._undo: list[tuple[bytes, bytes | None]] = []
        self.used_bytes = 0

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def keys(self, low: bytes, high: bytes, limit: int, *, reverse: bool = False) -> list[bytes]:
        first, last = bisect.bisect_left(self._keys, low), bisect.bisect_left(self._keys, high)
        if reverse:
            return self._keys[max(first, last - limit) : last][::-1]
        return self._keys[first : min(last, first + limit)]

    def items(self, low: bytes, high: bytes, limit: int, *, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        return [(key, self._values[key]) for key in self.keys(low, high, limit, reverse=reverse)]

    def put(self, key: bytes, value: bytes) -> None:
        self._undo.append((key, self._values.get(key)))
        self._set(key, value)

    def add(self, key: bytes, value: bytes = b"") -> bool:
        if key in self._values:
            return False
        self.put(key, value)
        return True

    def delete(self, key: bytes) -> bool:
        if key not in self._values:
            return False
        self._undo.append((key, self._values[key]))
        self._unset(key)
        return True

    def mark(self) -> None:
        self._undo.clear()

    def undo(self) -> None:
        for key, before in reversed(self._undo):
            if before is None:
                self._unset(key)
            else:
                self._set(key, before)
        self._undo.clear()

    def _set(self, key: bytes, value: bytes) -> None:
        assert 0 < len(key) <= keys.KEY_BYTES_MAX, "LMDB would refuse this key"
        before = self._values.get(key)
        if before is None:
            bisect.insort(self._keys, key)
            self.used_bytes += len(key) + len(value)
        else:
            self.used_bytes += len(value) - len(before)
        self._values[key] = value

    def _unset(self, key: bytes) -> None:
        self.used_bytes -= len(key) + len(self._values.pop(key))
        del self._keys[bisect.bisect_left(self._keys, key)]


class MemoryStore:
    """`base.Store` in memory."""

    def __init__(self, *, size_bytes_max: int, rehearse: bool) -> None:
        """Use `open`."""
        self._map = MemoryOrdered()
        self._txn = OrderedTxn()
        self._classes = Classes()
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        self._size_bytes_max = size_bytes_max
        self._rehearse = rehearse
        self._writes = 0
        self._closed = False
        migrate.bring(self._map)
        self._map.put(keys.meta("uid"), codec.seal(codec.CONTENT_TAG, secrets.token_hex(8).encode()))

    @classmethod
    def open(cls, *, size_bytes_max: int = SIZE_BYTES_MAX, rehearse: bool = False) -> Self:
        """An empty store."""
        return cls(size_bytes_max=size_bytes_max, rehearse=rehearse)

    async def write(self, fn: Callable[[Txn], T], *, essential: bool = False) -> T:
        if self._closed:
            raise errors.Unavailable("the store is closed", reason="STORE_CLOSED")
        if not essential and self._size_bytes_max - self._map.used_bytes < RESERVE_BYTES:
            raise errors.Exhausted("the store is nearly full", reason="STORE_FULL", retry_delay_s=30.0)
        result, events = self._run(fn)
        self._writes += 1
        if events:
            for listener in self._listeners:
                try:
                    listener(events)
                except Exception:  # a listener's fault must not keep callers from what is committed
                    log.exception("store.listener_failed")
        await asyncio.sleep(0)  # a durable store lets others run here
        return result

    def read(self, fn: Callable[[Reader], T]) -> T:
        return fn(OrderedReader(self._map, self._classes))

    def facts(self) -> StoreFacts:
        return StoreFacts(
            kind="memory",
            schema_version=migrate.VERSION,
            size_max_bytes=self._size_bytes_max,
            used_bytes=self._map.used_bytes,
            commits=self._writes,
            writes=self._writes,
        )

    def verify_chain(self, after: int = 0, limit: int = 1_000_000) -> int:
        return chain.verify(lambda fn: fn(OrderedReader(self._map, self._classes)), after, limit)

    async def close(self) -> None:
        self._closed = True

    def on_commit(self, listener: Callable[[Sequence[Event]], None]) -> None:
        self._listeners.append(listener)

    def _run(self, fn: Callable[[Txn], T]) -> tuple[T, list[Event]]:
        txn = self._txn
        txn.begin(self._map)
        try:
            if self._rehearse:
                fn(txn)
                txn.rollback()
                txn.mark()
            result = fn(txn)
        except BaseException:
            txn.rollback()
            raise
        self._classes.distrust(deque(txn.reused))
        return result, txn.seal()
