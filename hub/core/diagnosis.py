"""The diagnosis: one thing that was looked at, what it came to, and what to do. Pure: from facts to sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from hub.core.backup import Backup, newest_good

FSYNC_WARN_S: Final = 0.1
"""A submit waits for one fsync: beyond this people feel it."""
FSYNC_FAIL_S: Final = 5.0
"""A heartbeat's third of a lease is about as long."""

FUTURE_WARN_S: Final = 2.0
"""The newest event may be this far ahead of the clock: what NTP corrects at once."""
FUTURE_FAIL_S: Final = 300.0
"""Beyond this, waits and ages are wrong by more than a retry's backoff."""

JUMP_WARN_S: Final = 5.0
"""How far the date may run away from the monotonic clock before it was set by somebody."""

AGENT_CLOCK_WARN_S: Final = 5.0
"""A sidecar's clock may be this far from the hub's: a word that waits for a busy hub looks a second or two late."""

PROBLEMS_SHOWN: Final = 3
MIB: Final = 1 << 20


class Verdict(IntEnum):
    """What looking at a thing came to; the numbers are those of the proto."""

    OK = 1
    WARNING = 2
    FAILED = 3
    UNKNOWN = 4


class Diagnosis(NamedTuple):
    """One thing that was looked at."""

    probe: str
    verdict: Verdict
    message: str
    advice: str = ""


class Findings(NamedTuple):
    """What reading a store through came to."""

    records: int = 0
    index_entries: int = 0
    events: int = 0
    problems: tuple[str, ...] = ()
    """One sentence each; empty: nothing is wrong. Bounded."""


def worst(diagnoses: Iterable[Diagnosis]) -> Verdict:
    """The exit of a doctor: failed before a warning before all is well. What could not be looked at is a warning."""
    verdicts = {one.verdict for one in diagnoses}
    if Verdict.FAILED in verdicts:
        return Verdict.FAILED
    return Verdict.WARNING if verdicts & {Verdict.WARNING, Verdict.UNKNOWN} else Verdict.OK


def of_store(findings: Findings, *, remedy: str) -> Diagnosis:
    """The records, index entries and events of a store."""
    if findings.problems:
        shown = "; ".join(findings.problems[:PROBLEMS_SHOWN])
        more = f" and {len(findings.problems) - PROBLEMS_SHOWN} more" if len(findings.problems) > PROBLEMS_SHOWN else ""
        return Diagnosis("store.records", Verdict.FAILED, f"{shown}{more}", remedy)
    read = f"{findings.records} records, {findings.index_entries} index entries and {findings.events} events are good"
    return Diagnosis("store.records", Verdict.OK, read)


def of_room(used_bytes: int, size_max_bytes: int, reserve_bytes: int) -> Diagnosis:
    """The map against its limit."""
    text = f"{used_bytes // MIB} of {size_max_bytes // MIB} MiB are used"
    if size_max_bytes - used_bytes < reserve_bytes:
        return Diagnosis("store.room", Verdict.FAILED, f"{text}: only the reserve is left", "raise store.map_max_bytes")
    if used_bytes >= 0.8 * size_max_bytes:
        return Diagnosis("store.room", Verdict.WARNING, text, "raise store.map_max_bytes")
    return Diagnosis("store.room", Verdict.OK, text)


def of_readers(stale: int) -> Diagnosis:
    """Snapshots of processes that died."""
    if stale:
        return Diagnosis("store.readers", Verdict.WARNING, f"{stale} dead readers held old pages; they were freed")
    return Diagnosis("store.readers", Verdict.OK, "no dead reader holds old pages")


def of_disk(free_bytes: int, reserve_bytes: int) -> Diagnosis:
    """The file system of the store."""
    text = f"{free_bytes // MIB} MiB are free, {reserve_bytes // MIB} MiB are kept for the reports of running work"
    if free_bytes < reserve_bytes:
        return Diagnosis("disk", Verdict.FAILED, text, "make room: new work is refused")
    if free_bytes < 4 * reserve_bytes:
        return Diagnosis("disk", Verdict.WARNING, text, "make room soon")
    return Diagnosis("disk", Verdict.OK, text)


def of_fsync(seconds: float) -> Diagnosis:
    """How long the disk takes to make something durable."""
    text = f"an fsync took {seconds * 1000:.1f} ms"
    if seconds >= FSYNC_WARN_S:
        verdict = Verdict.FAILED if seconds >= FSYNC_FAIL_S else Verdict.WARNING
        return Diagnosis("disk.sync", verdict, text, "every submit waits for one: use a faster or less busy disk")
    return Diagnosis("disk.sync", Verdict.OK, text)


def of_clock(now: float, newest_event_at: float | None, drift_s: float) -> Diagnosis:
    """The date against the newest event, and against the monotonic clock since the start."""
    ahead = newest_event_at - now if newest_event_at is not None else 0.0
    advice = "let NTP keep the clock; set backwards, it delays retries and ages"
    if ahead > FUTURE_WARN_S:
        verdict = Verdict.FAILED if ahead > FUTURE_FAIL_S else Verdict.WARNING
        return Diagnosis("clock", verdict, f"the newest event is {ahead:.1f} s in the future", advice)
    if abs(drift_s) > JUMP_WARN_S:
        return Diagnosis(
            "clock", Verdict.WARNING, f"the clock was set by {drift_s:+.1f} s since the hub started", advice
        )
    return Diagnosis("clock", Verdict.OK, "the clock is behind no event and was not set since the start")


def of_agent_clocks(offsets: Mapping[str, float]) -> Diagnosis:
    """How far the clocks of the connected sidecars are ahead of ours, by agent; those of older ones are not known.

    What they note down (times of outputs, attempts, receipts) is told as they say it.
    """
    wrong = sorted((one for one in offsets.items() if abs(one[1]) > AGENT_CLOCK_WARN_S), key=lambda one: -abs(one[1]))
    if not wrong:
        text = f"all {len(offsets)} that say their time have the hub's" if offsets else "no sidecar says its time"
        return Diagnosis("clock.agents", Verdict.OK, text)
    shown = [
        f"agents/{agent} is {abs(s):.0f} s {'ahead' if s > 0 else 'behind'}" for agent, s in wrong[:PROBLEMS_SHOWN]
    ]
    more = f" and {len(wrong) - PROBLEMS_SHOWN} more" if len(wrong) > PROBLEMS_SHOWN else ""
    advice = "let NTP keep their clocks, and the hub's when all are off by the same"
    return Diagnosis("clock.agents", Verdict.WARNING, f"{', '.join(shown)}{more}", advice)


def of_backups(backups: Iterable[Backup], now: float, every_s: float, since: float | None) -> Diagnosis:
    """Is there one, and is it young enough? `since`: when the hub started; None: it does not run."""
    newest = newest_good(backups)
    if newest is None:
        young = since is not None and every_s and now - since <= every_s
        verdict = Verdict.OK if young else Verdict.WARNING
        return Diagnosis("backups", verdict, "there is no good backup yet", "run `agentcom hub backup`")
    text = f"the newest good one, {newest.id}, is {max(0.0, now - newest.created_at):.0f} s old"
    if every_s and now - newest.created_at > 2.5 * every_s:
        return Diagnosis("backups", Verdict.WARNING, f"{text}; one is due every {every_s:g} s", "look at its alert")
    return Diagnosis("backups", Verdict.OK, text)


def of_loops(late: Iterable[str]) -> Diagnosis:
    """The hub's own duties."""
    names = ", ".join(late)
    if names:
        return Diagnosis("loops", Verdict.FAILED, f"not succeeded for too long: {names}", "look for loop.failed")
    return Diagnosis("loops", Verdict.OK, "every loop is on time")


def of_configuration(oddities: Iterable[str]) -> Diagnosis:
    """What may be configured and should not be."""
    text = "; ".join(oddities)
    if text:
        return Diagnosis("configuration", Verdict.WARNING, text, "see docs/operations.md")
    return Diagnosis("configuration", Verdict.OK, "nothing odd")
