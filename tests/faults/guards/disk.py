"""Guards of what is on the disk, taken out."""

from __future__ import annotations

import types
import zlib
from typing import Any

from tests.faults.patching import patch


def fsync_off() -> None:
    """Commits are not synced."""
    import lmdb

    real = lmdb.open
    patch(lmdb, "open", lambda *args, **options: real(*args, **{**options, "sync": False}))


def checksums_off() -> None:
    """Checksums are written, and any of them is right."""
    from hub.store import codec

    real = zlib.crc32
    patch(codec, "zlib", types.SimpleNamespace(crc32=lambda *args: _AnyIsRight(real(*args))))


class _AnyIsRight(int):
    """A checksum that differs from none."""

    def __ne__(self, _other: object) -> bool:
        return False

    __eq__, __hash__ = int.__eq__, int.__hash__


def audit_blind() -> None:
    """An audit that finds damage tells nobody of it."""
    from hub.engine.care.desk import Care

    real = Care.verify

    async def verify(self: Any, backup: str) -> Any:
        self._found = lambda _problem: None
        return await real(self, backup)

    patch(Care, "verify", verify)


GUARDS = {"fsync_off": fsync_off, "checksums_off": checksums_off, "audit_blind": audit_blind}
