"""Puts a backup in the place of a store: offline, verified, atomic, and safe for sidecars that know of a later time.

Theory. The backup is read through, copied beside the store, brought to this hub's schema, stamped, read through again,
and only then takes the store's name, in one rename: killed at any point, the old store or the new one is there, whole.
The old one is kept aside under another name.

The stamp is about generations. After the backup, tasks were assigned at generations that the backup knows nothing of,
and sidecars may still work on them. Were the restored hub to count on from what it knows, it would hand out a number
twice, and a zombie's report could pass for the report of the new holder. So a restore sets a floor, and every
generation handed out later is above it. The floor is the time of the restore in seconds since 2025: it is above
whatever any earlier restore could have handed out, also when the store that would know is lost. What was handed out
before the backup keeps its number and can be taken over: that number was given once, to this agent. What was handed out
after it is unknown to the store, and its sidecar is told to stop when it comes back.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from hub.core.backup import GENERATION_FLOOR_KEY
from hub.store import folder, upgrade
from hub.store.care import errand
from hub.store.care.errand import Identity
from hub.store.lmdb import MAP_BYTES_FIRST, MAP_BYTES_MAX, LmdbEnvironment
from hub.store.txn import OrderedTxn
from kit import errors, logs

log = logs.get(__name__)

STAGE: Final = "restoring"
PARTIAL: Final = ".partial"
FLOOR_ZERO_AT: Final = 1_735_689_600
"""2025-01-01 in seconds since the epoch. The floor fits the 32 bits of a stored generation until 2161."""
FLOOR_STEP: Final = 1_000_000
"""From a floor to the next one when the clock is of no use: more than a task can be assigned between two restores."""


class Restored(NamedTuple):
    """What a restore did."""

    identity: Identity
    """Of the backup."""
    replaced: Identity | None
    """Of the store that was there; None: there was none, or it could not be read."""
    aside: Path | None
    """Where that is kept now."""


async def restore(backup: Path, store: Path, now: float, *, force: bool = False) -> Restored:
    """Restore the file `backup` into the folder `store`. Raises a Problem, with the old store untouched.

    Without `force` a store that has anything which the backup has not is left alone: a newer one, another one.
    """
    _find(backup)
    lock = _lock(store)
    try:
        _tidy(store)
        report = await errand.run("check", str(backup))
        _refuse_damage(report, backup)
        identity = report.identity
        data = store / folder.DATA_NAME
        before = await errand.run("compare", str(store), str(backup)) if data.exists() and data.stat().st_size else None
        if before is not None and not force:
            _refuse_loss(before, identity)
        replaced = before.identity if before is not None and not before.problems else None
        stage = store / STAGE
        try:
            _stage(backup, stage, _floor(now, identity, replaced), now)
            _refuse_damage(await errand.run("check", str(stage / folder.DATA_NAME)), backup)
            aside = _swap(stage, store, now)
        except OSError as cause:
            raise errors.Unavailable(
                f"{store} cannot be written: {cause.strerror}: nothing was changed", reason="STORE_FOLDER"
            ) from cause
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    finally:
        lock.release()
    return Restored(identity, replaced, aside)


def _find(backup: Path) -> None:
    if not backup.is_file():
        raise errors.NotFound(f"there is no backup {backup}", reason="BACKUP_NOT_FOUND")


def _lock(store: Path) -> folder.FolderLock:
    """Say it in the words of a restore when a hub has the store."""
    try:
        return folder.FolderLock(store)
    except errors.Unavailable as problem:
        if problem.reason != "STORE_LOCKED":
            raise
        raise errors.Unavailable(f"{problem.message}: stop it first", reason=problem.reason) from problem


def _refuse_damage(report: errand.Report, backup: Path) -> None:
    if report.problems:
        raise errors.DataLoss(
            f"{backup.name} is damaged and was not restored: {report.problems[0]}", reason="BACKUP_DAMAGED"
        )


def _refuse_loss(before: errand.Report, backup: Identity) -> None:
    """A store that cannot be read has nothing to lose, and is kept aside anyway."""
    if before.problems or before.contained:
        return
    old = before.identity
    if old.uid != backup.uid:
        what = f"is another store (uid {old.uid or 'unknown'}, the backup's is {backup.uid or 'unknown'})"
    elif old.position > backup.position:
        what = f"has {old.position - backup.position} events that the backup has not"
    else:
        what = f"has lived on apart from the backup since a restore, up to event {old.position}"
    raise errors.IllegalState(
        f"the store {what}: add --force to replace it all the same; it is kept aside",
        state="NEWER",
        reason="STORE_NEWER",
    )


def _floor(now: float, backup: Identity, replaced: Identity | None) -> int:
    known = max(backup.generation_floor, replaced.generation_floor if replaced is not None else 0)
    return max(int(now) - FLOOR_ZERO_AT, known + FLOOR_STEP)


def _stage(backup: Path, stage: Path, floor: int, now: float) -> None:
    """A whole, stamped store of this hub's schema in a folder of its own."""
    stage.mkdir(mode=0o700)
    data = stage / folder.DATA_NAME
    shutil.copyfile(backup, data)
    data.chmod(0o600)
    environment = LmdbEnvironment(
        stage, map_bytes_first=MAP_BYTES_FIRST, map_bytes_max=MAP_BYTES_MAX, reserve_bytes=None, sync=True
    )
    try:
        upgrade.prepare(environment)
        environment.make_room()
        txn = OrderedTxn()
        txn.begin(environment.begin())
        txn.set_meta(GENERATION_FLOOR_KEY, str(floor).encode())
        position = str(txn.position())
        txn.append(now, "hub.restored", "hub", backup=backup.name, position=position, generation_floor=str(floor))
        txn.seal()
        environment.commit()
    finally:
        environment.abort()
        environment.close()
    for leftover in stage.parent.glob(f"{stage.name}.v*"):  # the backup itself is what is kept of the older schema
        shutil.rmtree(leftover, ignore_errors=True)
    with data.open("rb") as file:
        os.fsync(file.fileno())


def _swap(stage: Path, store: Path, now: float) -> Path | None:
    """Let the staged store take the place of the old one, which keeps a second name; None: there was none."""
    data = store / folder.DATA_NAME
    aside = _unused(store.with_name(f"{store.name}.replaced-{int(now)}"))
    partial = aside.with_name(f"{aside.name}{PARTIAL}")
    kept = data.exists()
    if kept:
        partial.mkdir(mode=0o700)
        try:
            os.link(data, partial / folder.DATA_NAME)
        except OSError:  # a file system without links
            shutil.copyfile(data, partial / folder.DATA_NAME)
        folder.sync(partial)
    folder.take_over(stage / folder.DATA_NAME, data)
    folder.mark_made(store)
    if kept:
        partial.rename(aside)
    folder.sync(store.parent)
    return aside if kept else None


def _unused(path: Path) -> Path:
    """This name, or the first of its followers that nothing has."""
    number = 1
    chosen = path
    while chosen.exists():
        number += 1
        chosen = path.with_name(f"{path.name}-{number}")
    return chosen


def _tidy(store: Path) -> None:
    """What a killed restore left: its stage goes; the second name of a store goes when that store is still the one."""
    shutil.rmtree(store / STAGE, ignore_errors=True)
    data = store / folder.DATA_NAME
    for partial in store.parent.glob(f"{store.name}.replaced-*{PARTIAL}"):
        second = partial / folder.DATA_NAME
        if second.exists() and not (data.exists() and second.samefile(data)):
            partial.rename(partial.with_name(partial.name.removesuffix(PARTIAL)))
        else:
            shutil.rmtree(partial, ignore_errors=True)
