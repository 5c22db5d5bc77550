"""What a new version will find when it is started on a store: schema, room, sidecars, backups. Pure, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from hub.core.backup import Backup, newest_good
from hub.core.diagnosis import MIB, Diagnosis, Verdict
from kit import version

NAMES_SHOWN: Final = 5
BACKUP_AGE_WARN_S: Final = 86_400.0
"""Before an upgrade a backup should be younger than a day; making one takes a command."""


def of_schema(found: int, ours: int, store: str) -> Diagnosis:
    """The schema of the store against this program's; 0: there is no store yet."""
    if not found:
        return Diagnosis("schema", Verdict.OK, f"there is no store in {store} yet; a new one gets schema {ours}")
    if found > ours:
        text = f"the store has schema {found}, this program knows up to {ours} and will not touch it"
        return Diagnosis("schema", Verdict.FAILED, text, "use a newer program, or restore a backup of the older one")
    if found == ours:
        text = f"the store has schema {found}, as this program has: both ways are open"
        return Diagnosis("schema", Verdict.OK, text)
    text = f"the store has schema {found} and is brought to {ours} at the start, after a copy to {store}.v{found}"
    return Diagnosis("schema", Verdict.OK, text, "to go back to the older program, put the copy in the store's place")


def of_room(needed_bytes: int, free_bytes: int) -> Diagnosis:
    """Room for the copy that is kept aside; `needed_bytes` 0: there is none to be made."""
    text = f"{free_bytes // MIB} MiB are free"
    if not needed_bytes:
        return Diagnosis("room", Verdict.OK, text)
    text = f"the copy of the store needs {needed_bytes // MIB} MiB, {text}"
    if free_bytes < needed_bytes:
        return Diagnosis("room", Verdict.FAILED, text, "make room: without the copy the new hub does not start")
    return Diagnosis("room", Verdict.OK, text)


def of_agents(agents: Iterable[tuple[str, str]], ours: str) -> Diagnosis:
    """The versions that the sidecars had when they were here last, as (agent, version), against this program's."""
    found: dict[version.Skew, list[str]] = {skew: [] for skew in version.Skew}
    for agent, said in agents:
        found[version.skew(ours, said)].append(f"{agent} ({said})" if said else agent)
    far, near, same = found[version.Skew.FAR], found[version.Skew.NEAR], found[version.Skew.NONE]
    if far:
        text = f"a hub {ours} refuses {len(far)} of {len(far) + len(near) + len(same)} sidecars: {_names(far)}"
        return Diagnosis("sidecars", Verdict.FAILED, text, "upgrade them first, one minor at a time")
    if near:
        what, on = ("sidecar is", "works") if len(near) == 1 else ("sidecars are", "work")
        text = f"{len(near)} {what} one minor apart from {ours} and {on} on: {_names(near)}"
        return Diagnosis("sidecars", Verdict.OK, text, "upgrade them after the hub")
    return Diagnosis("sidecars", Verdict.OK, f"none of {len(same)} sidecars is of another minor than {ours}")


def of_backup(backups: Iterable[Backup], now: float) -> Diagnosis:
    """Is there a good one, and is it young?"""
    newest = newest_good(backups)
    if newest is None:
        return Diagnosis("backup", Verdict.WARNING, "there is no good backup", "run `agentcom hub backup`")
    age_s = max(0.0, now - newest.created_at)
    text = f"the newest good one, {newest.id}, is {age_s:.0f} s old"
    if age_s > BACKUP_AGE_WARN_S:
        return Diagnosis("backup", Verdict.WARNING, text, "run `agentcom hub backup`")
    return Diagnosis("backup", Verdict.OK, text)


def _names(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
