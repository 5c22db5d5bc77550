"""The durable store: one LMDB environment, read on the event loop's thread, written by one thread of its own.

Theory. LMDB is a copy-on-write B+tree in a mapped file. A commit writes new pages, syncs them, then writes one of two
meta pages: a crash at any moment leaves the tree of the last commit, and nothing needs repair. Readers take a
snapshot and never wait. A failed write or sync loses only pages that nothing refers to yet, so the store lives on and
the next commit works when the disk does.

The map must be larger than its contents. It starts small and doubles before it is full; growing moves it in memory,
which would pull it from under a reader, so readers and copies hold a lock that growth takes. When it may grow no
further, or the disk is nearly full, a reserve is kept for the reports of running work.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self, TypeVar

import lmdb

from hub.store import chain, folder, front, migrate, upgrade
from hub.store.base import Reader, StoreFacts
from hub.store.care import audit, pages
from hub.store.mapped import LmdbOrdered, LmdbReadOrdered
from hub.store.reader import Classes, OrderedReader
from hub.store.writer import STORE_FULL_RETRY_S
from kit import errors, logs

log = logs.get(__name__)

T = TypeVar("T")

MIB: Final = 1 << 20
MAP_BYTES_FIRST: Final = 64 * MIB
"""Size of the map of a new store: some 50,000 tasks."""
MAP_BYTES_MAX: Final = 64 << 30
"""Where growth ends by default. Address space, not disk."""
RESERVE_BYTES_MIN: Final = 16 * MIB
RESERVE_SHARE: Final = 0.02
"""Kept back for reports of running work: a result of 256 KiB for each of some 50 holdings, or 2 % of what is larger."""
DISK_RESERVE_BYTES_MAX: Final = 64 * MIB
"""As much of the disk is kept free, at most: freed pages of the map are used again, so running work needs little."""
READERS_MAX: Final = 256
"""Slots for snapshots: the event loop, checks and copies each need one at a time; the rest is for tools."""

_DAMAGED: Final = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)
_FULL: Final = (lmdb.MapFullError, lmdb.TxnFullError)
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class LmdbEnvironment:
    """The file, its map, and its one write transaction at a time. `writer.Environment` for LMDB."""

    full_errors: tuple[type[BaseException], ...] = _FULL
    damage_errors: tuple[type[BaseException], ...] = _DAMAGED

    def __init__(
        self, path: Path, *, map_bytes_first: int, map_bytes_max: int, reserve_bytes: int | None, sync: bool
    ) -> None:
        self.path = path
        self.map_bytes_max = map_bytes_max
        default = max(RESERVE_BYTES_MIN, int(map_bytes_max * RESERVE_SHARE))
        self.reserve_bytes = default if reserve_bytes is None else reserve_bytes
        self.disk_reserve_bytes = min(self.reserve_bytes, DISK_RESERVE_BYTES_MAX)
        self._sync = sync
        self._reading = threading.Lock()
        self._copying = threading.Lock()
        data = path / folder.DATA_NAME
        stored = data.stat().st_size if data.exists() else 0
        if stored or folder.was_made(path):
            pages.head(data)  # LMDB would make a new map where an empty file is, and die of a signal in a cut one
        self._map_bytes = max(min(map_bytes_first, map_bytes_max), _pages(stored))
        self._open()
        self._current: LmdbOrdered | None = None

    def _open(self) -> None:
        self._env = lmdb.open(
            os.fspath(self.path),
            map_size=self._map_bytes,
            max_dbs=0,
            max_readers=READERS_MAX,
            sync=self._sync,
            mode=0o600,
        )
        self._env.reader_check()
        self._psize: int = self._env.stat()["psize"]

    def _reopen(self, between: Callable[[], object] = lambda: None) -> None:
        """Close the file and open it anew; no snapshot is open meanwhile."""
        with self._copying, self._reading:
            self._env.close()
            try:
                between()
            finally:
                self._open()

    def begin(self) -> LmdbOrdered:
        try:
            txn = self._env.begin(write=True)
        except lmdb.PanicError:
            # The meta page could not be written: LMDB refuses all work until the file is opened anew.
            self._reopen()
            txn = self._env.begin(write=True)
        self._current = LmdbOrdered(txn)
        return self._current

    def commit(self) -> None:
        assert self._current is not None
        current, self._current = self._current, None
        current.finish()

    def abort(self) -> None:
        if self._current is not None:
            self._current.end()
            self._current = None

    def make_room(self) -> bool:
        high_water = (self._env.info()["last_pgno"] + 1) * self._psize
        if self._map_bytes - high_water < self._map_bytes // 4:
            self.grow()
        if self.disk_free_bytes() < self.disk_reserve_bytes:
            return False
        return self._map_bytes < self.map_bytes_max or self.map_bytes_max - self.used_bytes() >= self.reserve_bytes

    def grow(self) -> bool:
        if self._map_bytes >= self.map_bytes_max:
            return False
        grown = min(self._map_bytes * 2, self.map_bytes_max)
        with self._copying, self._reading:
            self._env.set_mapsize(grown)
        self._map_bytes = grown
        log.info("store.grown", map_bytes=grown, map_bytes_max=self.map_bytes_max)
        return True

    def used_bytes(self) -> int:
        """Pages in use. There is one map and no named one, so its own statistics are all of them."""
        stat = self._env.stat()
        return int(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * self._psize

    def disk_free_bytes(self) -> int:
        """What the file system has left for us."""
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize

    def problem(self, error: BaseException) -> errors.Problem:
        if isinstance(error, _DAMAGED):
            return errors.DataLoss(f"the map is damaged: {error}", reason="STORE_CORRUPT")
        if isinstance(error, errors.Problem):
            return error
        # LMDB says "input/output error" for a write that was cut short, which is what a full disk does.
        code = getattr(error, "code", getattr(error, "errno", None))
        full = isinstance(error, _FULL) or code in _NO_ROOM
        if full or self.disk_free_bytes() < self.disk_reserve_bytes:
            return errors.Exhausted(
                "the store is full: nothing was changed", reason="STORE_FULL", retry_delay_s=STORE_FULL_RETRY_S
            )
        return errors.Unavailable(
            f"the store could not commit: {error}", reason="STORE_FAILED", retry_delay_s=STORE_FULL_RETRY_S
        )

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[LmdbReadOrdered]:
        """A snapshot to read from, for a short time: growth of the map waits for it."""
        with self._reading:
            ordered = LmdbReadOrdered(self._env.begin())
            try:
                yield ordered
            except _DAMAGED as cause:
                raise errors.DataLoss(f"the map is damaged: {cause}", reason="STORE_CORRUPT") from cause
            finally:
                ordered.end()

    def copy(self, target: Path) -> None:
        """A consistent copy into an empty folder, without the free pages. Writing goes on meanwhile."""
        with self._copying:
            self._env.copy(os.fspath(target), compact=True)

    def compact(self) -> tuple[int, int]:
        """Write the map anew without its free pages; sizes of the file before and after. Nothing may be written
        meanwhile.

        The new file takes the old one's name when it is whole and on the disk: a crash leaves the one or the other.
        The lock file goes, because it tells of the transactions of the old one.
        """
        data, draft = self.path / folder.DATA_NAME, self.path / folder.DRAFT_NAME
        before = data.stat().st_size
        if self.disk_free_bytes() < self.used_bytes() + self.disk_reserve_bytes:
            raise errors.Exhausted(
                f"the disk has not the {self.used_bytes() + self.disk_reserve_bytes >> 20} MiB free that it takes to "
                "write the store anew",
                reason="DISK_FULL",
                retry_delay_s=STORE_FULL_RETRY_S,
            )
        try:
            with open(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                self._env.copyfd(file.fileno(), compact=True)
                os.fsync(file.fileno())
            pages.head(draft)
            self._reopen(lambda: folder.take_over(draft, data))
        except lmdb.Error as cause:
            raise self.problem(cause) from cause
        finally:
            draft.unlink(missing_ok=True)
        return before, data.stat().st_size

    def reader_check(self) -> int:
        """Free the slots of readers that died; how many."""
        return int(self._env.reader_check())

    def close(self) -> None:
        """Close the file."""
        with self._copying, self._reading:
            self._env.close()


class LmdbStore(front.Front):
    """`base.Store` on LMDB."""

    def __init__(self, environment: LmdbEnvironment, lock: folder.FolderLock) -> None:
        """Use `open`."""
        super().__init__(environment)
        self._environment = environment
        self._lock = lock
        self._classes = Classes()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        map_bytes_first: int = MAP_BYTES_FIRST,
        map_bytes_max: int = MAP_BYTES_MAX,
        reserve_bytes: int | None = None,
        lose_data_on_power_cut: bool = False,
    ) -> Self:
        """Open the store in this folder, or make it. Nothing is scanned, so this does not grow with what is stored.

        Raises Unavailable when another hub has it, IllegalState when its schema is not known here. With
        `lose_data_on_power_cut` nothing is synced: for trials only.
        """
        lock = folder.FolderLock(path)
        try:
            environment = LmdbEnvironment(
                path,
                map_bytes_first=map_bytes_first,
                map_bytes_max=map_bytes_max,
                reserve_bytes=reserve_bytes,
                sync=not lose_data_on_power_cut,
            )
            try:
                upgrade.prepare(environment)
                folder.mark_made(path)
            except BaseException:
                environment.close()
                raise
        except lmdb.Error as cause:
            lock.release()
            if not isinstance(cause, _DAMAGED):
                raise errors.Unavailable(
                    f"the store in {path} cannot be opened: {cause}", reason="STORE_FOLDER"
                ) from cause
            raise errors.DataLoss(f"the store in {path} cannot be opened: {cause}", reason="STORE_CORRUPT") from cause
        except errors.DataLoss as cause:
            lock.release()
            raise errors.DataLoss(
                f"the store in {path} cannot be opened: {cause.message}", reason=cause.reason
            ) from cause
        except BaseException:
            lock.release()
            raise
        return cls(environment, lock)

    def read(self, fn: Callable[[Reader], T]) -> T:
        self._classes.distrust(self._writer.reused)  # before the snapshot: it is of that commit then, or a later one
        with self._environment.snapshot() as ordered:
            return fn(OrderedReader(ordered, self._classes))

    def facts(self) -> StoreFacts:
        return StoreFacts(
            kind="lmdb",
            schema_version=migrate.VERSION,
            size_max_bytes=self._environment.map_bytes_max,
            used_bytes=self._environment.used_bytes(),
            commits=self._writer.commits,
            writes=self._writer.writes,
        )

    def verify_chain(self, after: int = 0, limit: int = 1_000_000) -> int:
        """May be called on another thread: snapshots are short, reads in between are not held up."""
        return chain.verify(self._read_ordered, after, limit)

    @property
    def environment(self) -> LmdbEnvironment:
        """The file, for what looks after it."""
        return self._environment

    async def compact(self) -> tuple[int, int]:
        """Give free pages back to the disk; sizes before and after. Writes wait, reads wait for a moment at its end."""
        return await self._alone(self._environment.compact)

    def copy(self, target: Path) -> None:
        """A consistent copy into an empty folder; blocks, so call it on another thread. Writing goes on meanwhile."""
        self._environment.copy(target)

    def reader_check(self) -> int:
        """Free what dead readers hold; how many there were."""
        return self._environment.reader_check()

    async def close(self) -> None:
        if not self._closed:
            await self._finish()
            self._environment.close()
            self._lock.release()

    def _read_ordered(self, fn: Callable[[OrderedReader], T]) -> T:
        with self._environment.snapshot() as ordered:
            return fn(OrderedReader(ordered, Classes()))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[audit.Read]:
    """Read a store's folder, at work or not, or the file of a backup, without writing to it; for another process.

    Raises DataLoss when it cannot be opened.
    """
    live = path.is_dir()
    env = None
    try:
        env = lmdb.open(
            os.fspath(path), subdir=live, lock=live, readonly=True, create=False, map_size=0, max_readers=READERS_MAX
        )
        opened = env
        yield lambda fn: _read(opened, fn)
    except lmdb.Error as cause:
        raise errors.DataLoss(f"{path} cannot be read: {cause}", reason="STORE_CORRUPT") from cause
    finally:
        if env is not None:
            env.close()


@contextlib.contextmanager
def pinned(path: Path) -> Iterator[int]:
    """Hold a snapshot of a store's folder, at work or not; its commit's number. Its pages stay as they are meanwhile.

    Raises DataLoss when it cannot be opened.
    """
    env = None
    try:
        env = lmdb.open(os.fspath(path), lock=True, readonly=True, create=False, map_size=0, max_readers=READERS_MAX)
        with env.begin() as txn:
            yield txn.id()
    except lmdb.Error as cause:
        raise errors.DataLoss(f"{path} cannot be read: {cause}", reason="STORE_CORRUPT") from cause
    finally:
        if env is not None:
            env.close()


def _read(env: lmdb.Environment, fn: Callable[[OrderedReader], T]) -> T:
    try:
        txn = env.begin()
    except lmdb.MapResizedError:  # the hub has made its map larger
        env.set_mapsize(0)
        txn = env.begin()
    ordered = LmdbReadOrdered(txn)
    try:
        return fn(OrderedReader(ordered, Classes()))
    except _DAMAGED as cause:
        raise errors.DataLoss(f"the map is damaged: {cause}", reason="STORE_CORRUPT") from cause
    finally:
        ordered.end()


def copy_file(source: Path, target: Path) -> None:
    """A consistent copy of a store's folder, at work or not, into a new file, on the disk when this returns.

    Blocks; for a process of its own. Raises OSError (which may be damage, too) or DataLoss.
    """
    with (
        lmdb.open(
            os.fspath(source), lock=True, readonly=True, create=False, map_size=0, max_readers=READERS_MAX
        ) as env,
        open(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
    ):
        try:
            env.copyfd(file.fileno(), compact=True)
        except _DAMAGED as cause:
            raise errors.DataLoss(f"the map is damaged: {cause}", reason="STORE_CORRUPT") from cause
        except lmdb.Error as cause:
            raise OSError(getattr(cause, "code", 0) or errno.EIO, str(cause)) from cause
        os.fsync(file.fileno())


def _pages(size: int) -> int:
    """A multiple of every page size."""
    return (size + MIB - 1) // MIB * MIB
