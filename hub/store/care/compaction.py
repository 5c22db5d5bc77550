"""Compaction of a store that no hub has open."""

from __future__ import annotations

from pathlib import Path

from hub.store import folder
from hub.store.care import pages
from hub.store.lmdb import MAP_BYTES_FIRST, MAP_BYTES_MAX, LmdbEnvironment


def compact(path: Path) -> tuple[int, int]:
    """Write the store in this folder anew without its free pages; sizes of the file before and after.

    The schema is left as it is. Raises Unavailable when a hub has it, DataLoss when it is damaged, Exhausted when the
    disk has no room for a second one.
    """
    lock = folder.FolderLock(path)
    try:
        pages.check(path / folder.DATA_NAME)
        environment = LmdbEnvironment(
            path, map_bytes_first=MAP_BYTES_FIRST, map_bytes_max=MAP_BYTES_MAX, reserve_bytes=None, sync=True
        )
        try:
            return environment.compact()
        finally:
            environment.close()
    finally:
        lock.release()
