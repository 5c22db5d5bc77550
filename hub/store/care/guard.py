"""The guard of a store: what is found damaged makes it read-only, and keeps it so until the process ends.

Theory. Writing on to a store that has damage spreads it, and hides from people what can still be restored. So the
first record that does not check, wherever it is met, closes the store for writing: every later write is refused in the
same words, with the newest good backup and the command that restores it. Reads go on as far as they go.

While the hub is put together, a reader that meets damage is given an empty store instead, so that a person can ask the
hub what is the matter. A store that cannot be opened at all is an empty one behind the same guard.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

from hub.core.event import Event
from hub.store.base import Reader, Store, StoreFacts, Txn
from hub.store.folder import FolderLock
from hub.store.memory import MemoryStore
from kit import errors, logs

log = logs.get(__name__)

T = TypeVar("T")

REASON: Final = "STORE_DEGRADED"


class Guarded:
    """`base.Store` around another one."""

    def __init__(self, inner: Store, *, damage: str = "") -> None:
        self.inner = inner
        #: What is wrong; empty: nothing.
        self.damage = damage
        #: How it is mended, for people; set by whoever knows the backups.
        self.remedy: Callable[[], str] = lambda: "restore a backup with `agentcom-hub restore`"
        #: Called once, when damage is first met.
        self.on_damage: Callable[[], None] = lambda: None
        #: A read that meets damage is given an empty store instead.
        self.lenient = True
        #: There is nothing behind this guard.
        self.broken = False
        self._lock: FolderLock | None = None

    @classmethod
    def around_nothing(cls, path: Path, damage: str) -> Self:
        """For a store that cannot be opened: an empty one, which keeps others from the folder all the same."""
        lock = FolderLock(path)
        made = cls(MemoryStore.open(), damage=damage)
        made.broken = True
        made._lock = lock
        return made

    async def write(self, fn: Callable[[Txn], T], *, essential: bool = False) -> T:
        if self.damage:
            raise self.refusal()
        try:
            return await self.inner.write(fn, essential=essential)
        except errors.DataLoss as problem:
            self.found(problem.message)
            raise

    def read(self, fn: Callable[[Reader], T]) -> T:
        try:
            return self.inner.read(fn)
        except errors.DataLoss as problem:
            self.found(problem.message)
            if self.lenient:
                return MemoryStore.open().read(fn)
            raise errors.DataLoss(
                f"{problem.message}; {self.remedy()}", reason=REASON, metadata=problem.metadata
            ) from problem

    @contextlib.contextmanager
    def leniently(self) -> Iterator[None]:
        """A read of this block that meets damage is given an empty store; do not await in it."""
        before, self.lenient = self.lenient, True
        try:
            yield
        finally:
            self.lenient = before

    def found(self, damage: str) -> None:
        """Damage was met: nothing is written any more."""
        if self.damage:
            return
        self.damage = damage
        log.error("store.degraded", damage=damage)
        self.on_damage()

    def refusal(self) -> errors.IllegalState:
        """What a write is refused with."""
        return errors.IllegalState(
            f"the store is open for reading only: {self.damage}; {self.remedy()}", state="DEGRADED", reason=REASON
        )

    def facts(self) -> StoreFacts:
        return self.inner.facts()

    def verify_chain(self, after: int = 0, limit: int = 1_000_000) -> int:
        return self.inner.verify_chain(after, limit)

    async def close(self) -> None:
        await self.inner.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def on_commit(self, listener: Callable[[Sequence[Event]], None]) -> None:
        self.inner.on_commit(listener)
