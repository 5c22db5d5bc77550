"""The backup: a verified copy of the store, and the rule by which old ones go."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

import msgspec

GENERATION_FLOOR_KEY: Final = "generation_floor"
"""The small fact that a restore leaves: every generation handed out from then on is above it."""


class Trigger(IntEnum):
    """Why a backup was made; the numbers are those of the proto."""

    SCHEDULE = 1
    REQUEST = 2
    SAFEGUARD = 3


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifest beside a backup says of it."""

    id: str
    """Sorts by time."""
    uid: str
    """Of the store that it was taken of."""
    generation_floor: int
    """Which restore that store came of; 0: of none. See store/restore.py."""
    schema_version: int
    event_position: int
    """Position of the newest event in it."""
    size_bytes: int
    sha256: str
    """Of the file."""
    trigger: Trigger
    created_at: float
    verified_at: float | None = None
    problem: str = ""
    """What was found to be wrong with it; empty: nothing."""

    @property
    def good(self) -> bool:
        """Was it read through, and was nothing wrong with it?"""
        return self.verified_at is not None and not self.problem


def newest_good(backups: Iterable[Backup]) -> Backup | None:
    """The one to restore."""
    return max((one for one in backups if one.good), key=lambda one: one.id, default=None)


def expired(backups: Iterable[Backup], now: float, *, keep_count: int, keep_age_s: float) -> list[Backup]:
    """Those that may go: beyond the count or older than the age, but never the newest good one."""
    newest_first = sorted(backups, key=lambda one: one.id, reverse=True)
    keep = newest_good(newest_first)
    return [
        one
        for rank, one in enumerate(newest_first)
        if one is not keep and (rank >= keep_count or now - one.created_at > keep_age_s)
    ]
