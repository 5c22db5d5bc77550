"""The data folder of a hub: made when it is not there, and locked against a second hub.

Two hubs on one folder would each believe that they alone assign work. LMDB itself would let both in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from kit import errors

LOCK_NAME: Final = "hub.lock"
DATA_NAME: Final = "data.mdb"
READERS_NAME: Final = "lock.mdb"
"""LMDB's table of snapshots: belongs to one data file."""
DRAFT_NAME: Final = "data.mdb.draft"
"""A store that is written anew and is not whole yet."""
MADE_NAME: Final = "store.made"
"""Says that there was a store here once: a missing file is then a loss, and no reason to make an empty one."""


class FolderLock:
    """The exclusive lock on a data folder; the kernel drops it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Make the folder and lock it. Raises Unavailable when another hub has it."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as cause:
            raise errors.Unavailable(
                f"the data folder {folder} cannot be used: {cause.strerror}", reason="STORE_FOLDER"
            ) from cause
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise errors.Unavailable(
                f"the data folder {folder} is in use by another hub (process {holder})", reason="STORE_LOCKED"
            ) from cause
        with contextlib.suppress(OSError):  # only a hint for people; a full disk must not keep the hub from opening
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let another hub in."""
        os.close(self._fd)


def sync(folder: Path) -> None:
    """Make the names of new files in the folder durable; LMDB does that for their contents only."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def was_made(folder: Path) -> bool:
    """Was there a store in this folder once?"""
    return (folder / MADE_NAME).exists()


def mark_made(folder: Path) -> None:
    """There is a store in this folder from now on."""
    if not was_made(folder):
        (folder / MADE_NAME).touch(mode=0o600)
        sync(folder)


def take_over(draft: Path, data: Path) -> None:
    """Let a whole file that is on the disk take the place of the store's: a crash leaves the one or the other.

    Nobody may have the store open. The table of snapshots goes first, for it tells of the file that goes.
    """
    (data.parent / READERS_NAME).unlink(missing_ok=True)
    draft.replace(data)
    sync(data.parent)
