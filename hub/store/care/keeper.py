"""Everything that keeps a store on LMDB whole: backups, the audit, compaction, and what is known of it."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple, Self

from hub.core.backup import Backup, Trigger
from hub.core.diagnosis import Diagnosis, Findings, Verdict, of_disk, of_fsync, of_readers, of_room
from hub.store.care import errand
from hub.store.care.backups import Backups
from hub.store.care.guard import Guarded
from hub.store.lmdb import DISK_RESERVE_BYTES_MAX, LmdbStore
from kit import errors

SYNC_BYTES: Final = 4096
DISK_RESERVE_BYTES: Final = DISK_RESERVE_BYTES_MAX
"""What a hub with the usual settings keeps free; for who looks at a store that is not open."""


class Policy(NamedTuple):
    """When backups are made, and how long they are kept."""

    every_s: float
    """0: only when somebody asks."""
    keep_count: int
    keep_age_s: float


class Room(NamedTuple):
    """How much there is left."""

    used_bytes: int
    size_max_bytes: int
    reserve_bytes: int
    disk_free_bytes: int
    disk_reserve_bytes: int


class Keeper:
    """Keeps one store. `store` None: it cannot be opened, and only its backups can be looked at."""

    def __init__(self, store: LmdbStore | None, path: Path, backups: Path, policy: Policy) -> None:
        self.policy = policy
        self._store = store
        self._path = path
        self._backups = Backups(backups, path)

    @classmethod
    def of(cls, store: Guarded, path: Path, backups: Path, policy: Policy) -> Self | None:
        """Who keeps this store; None when it is not on a disk."""
        if store.broken:
            return cls(None, path, backups, policy)
        return cls(store.inner, path, backups, policy) if isinstance(store.inner, LmdbStore) else None

    def backups(self) -> list[Backup]:
        """All of them, newest first."""
        return self._backups.all()

    def newest_good(self) -> Backup | None:
        """The one to restore."""
        return self._backups.newest_good()

    async def backup(self, id: str, now: float, trigger: Trigger) -> Backup:
        """Make one, then let the old ones go. Raises a Problem, with nothing left."""
        store = self._opened()
        try:
            made = await self._backups.make(id, now, trigger)
        finally:
            store.reader_check()  # of a copy that was killed
        policy = self.policy
        await asyncio.to_thread(self._backups.rotate, now, keep_count=policy.keep_count, keep_age_s=policy.keep_age_s)
        return made

    async def verify(self, backup: str, now: float) -> Findings:
        """Read a backup through, or the store (empty)."""
        if backup:
            return (await self._backups.verify(backup, now)).findings
        store = self._opened()
        try:
            return (await errand.run("check", str(self._path))).findings
        finally:
            store.reader_check()

    async def compact(self) -> tuple[int, int]:
        """Give free pages back to the disk; sizes before and after."""
        return await self._opened().compact()

    def room(self) -> Room | None:
        """How much there is left; None when the store is not open."""
        if self._store is None:
            return None
        environment = self._store.environment
        return Room(
            used_bytes=environment.used_bytes(),
            size_max_bytes=environment.map_bytes_max,
            reserve_bytes=environment.reserve_bytes,
            disk_free_bytes=environment.disk_free_bytes(),
            disk_reserve_bytes=environment.disk_reserve_bytes,
        )

    async def diagnose(self) -> list[Diagnosis]:
        """The room, the disk and the snapshots."""
        room = self.room()
        found = []
        if self._store is not None and room is not None:
            found.append(of_room(room.used_bytes, room.size_max_bytes, room.reserve_bytes))
            found.append(of_readers(self._store.reader_check()))
            found.append(of_disk(room.disk_free_bytes, room.disk_reserve_bytes))
        return [*found, await asyncio.to_thread(sync_time, self._path)]

    def remedy(self, position: int) -> str:
        """How the newest good backup is restored, in a sentence. `position`: of the newest event that is known."""
        newest = self.newest_good()
        if newest is None:
            return "there is no good backup"
        lost = max(0, position - newest.event_position)
        force = " --force" if lost else ""
        when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(newest.created_at))
        cost = f", which loses {lost} events" if lost else ""
        return (
            f"the newest good backup is {newest.id} of {when}: stop the hub and run "
            f"`agentcom-hub restore {newest.id} --data {self._path.parent}{force}`{cost}"
        )

    def _opened(self) -> LmdbStore:
        if self._store is None:
            raise errors.IllegalState("the store cannot be opened", state="DEGRADED", reason="STORE_DEGRADED")
        return self._store


def sync_time(path: Path) -> Diagnosis:
    """Write a page beside the store and wait until it is on the disk."""
    try:
        with tempfile.TemporaryFile(dir=path, prefix=".sync-") as file:
            file.write(bytes(SYNC_BYTES))
            file.flush()
            began = time.monotonic()
            os.fsync(file.fileno())
            return of_fsync(time.monotonic() - began)
    except OSError as cause:
        return Diagnosis("disk.sync", Verdict.FAILED, f"{path} cannot be written: {cause.strerror}", "make it writable")
