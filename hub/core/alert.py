"""The alert: what a person should look at, derived from facts and never stored; it ends when its cause does."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

NEARLY_FULL_SHARE: Final = 0.8
"""Of the room for new work: at this share there is still time to act before submissions are refused."""

DISK_LOW_RESERVES: Final = 4
"""Times the disk's reserve: below it the disk is low; below one reserve submissions are refused."""

BACKUPS_MISSED: Final = 2.5
"""Times the interval of the schedule without a good backup: one that failed and its repeat."""

LOOP_GRACE_S: Final = 120.0
"""A loop that has not succeeded for its period and this long is late: four sweeps, or a few restarts with backoff."""


class Severity(IntEnum):
    """How urgent it is; the numbers are those of the proto."""

    WARNING = 1
    CRITICAL = 2


class Facts(NamedTuple):
    """What alerts are derived from."""

    now: float
    degraded: str = ""
    """What is wrong with the store; empty: nothing."""
    remedy: str = ""
    """How the newest good backup is restored; only read when the store is degraded."""
    durable: bool = True
    """The store is on a disk."""
    used_bytes: int = 0
    size_max_bytes: int = 0
    disk_free_bytes: int = 0
    disk_reserve_bytes: int = 0
    backup_every_s: float = 0.0
    """The interval of the schedule; 0: there is none."""
    backup_failure: str = ""
    """What the last try to make one failed of; empty: it did not."""
    backup_newest_at: float | None = None
    """When the newest good one was made; None: there is none."""
    started_at: float = 0.0
    late_loops: tuple[str, ...] = ()


class Alert(NamedTuple):
    """Something that a person should look at."""

    id: str
    severity: Severity
    message: str
    advice: str
    since: float


def derive(facts: Facts) -> list[Alert]:
    """What is the matter now, the most urgent first; each `since` is `facts.now`."""
    found = [*_store(facts), *_disk(facts), *_backups(facts), *_loops(facts)]
    return sorted(found, key=lambda one: (-one.severity, one.id))


def merge(before: list[Alert], now: list[Alert]) -> list[Alert]:
    """The same alerts as `now`, with the time at which each began."""
    since = {one.id: one.since for one in before}
    return [one._replace(since=since.get(one.id, one.since)) for one in now]


def _store(facts: Facts) -> list[Alert]:
    found = []
    if facts.degraded:
        message = f"the store is open for reading only: {facts.degraded}"
        found.append(Alert("store-degraded", Severity.CRITICAL, message, facts.remedy, facts.now))
    elif facts.size_max_bytes and facts.used_bytes >= NEARLY_FULL_SHARE * facts.size_max_bytes:
        share = facts.used_bytes / facts.size_max_bytes
        advice = "raise store.map_max_bytes, or keep finished work for a shorter time"
        found.append(
            Alert("store-full", Severity.WARNING, f"the store is {share:.0%} full of its limit", advice, facts.now)
        )
    return found


def _disk(facts: Facts) -> list[Alert]:
    if not facts.durable or not facts.disk_reserve_bytes:
        return []
    free, reserve = facts.disk_free_bytes, facts.disk_reserve_bytes
    if free >= DISK_LOW_RESERVES * reserve:
        return []
    severity = Severity.CRITICAL if free < reserve else Severity.WARNING
    message = f"{free >> 20} MiB are free on the disk of the store; new work is refused below {reserve >> 20} MiB"
    return [Alert("disk-low", severity, message, "make room on the disk, or move backups to another one", facts.now)]


def _backups(facts: Facts) -> list[Alert]:
    if not facts.durable:
        return []
    found = []
    if facts.backup_failure:
        message = f"the last backup failed: {facts.backup_failure}"
        advice = "mend the cause, then run `agentcom hub backup`"
        found.append(Alert("backup-failed", Severity.WARNING, message, advice, facts.now))
    since = facts.started_at if facts.backup_newest_at is None else facts.backup_newest_at
    if facts.backup_every_s and facts.now - since > BACKUPS_MISSED * facts.backup_every_s:
        age = "there is no good backup" if facts.backup_newest_at is None else _age("the newest good backup is", facts)
        message = f"{age}; one is due every {facts.backup_every_s:g} s"
        found.append(Alert("backup-old", Severity.WARNING, message, "run `agentcom hub backup`", facts.now))
    return found


def _age(head: str, facts: Facts) -> str:
    assert facts.backup_newest_at is not None
    return f"{head} {facts.now - facts.backup_newest_at:.0f} s old"


def _loops(facts: Facts) -> list[Alert]:
    if not facts.late_loops:
        return []
    message = f"not succeeded for too long: {', '.join(facts.late_loops)}"
    advice = "look for loop.failed in the hub's log; restart the hub when it says nothing"
    return [Alert("loops-late", Severity.CRITICAL, message, advice, facts.now)]
