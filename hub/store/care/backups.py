"""The folder of backups: made under another name, read through, then named; with a manifest beside each; rotated.

A backup is `<id>.mdb` with `<id>.json`. The manifest is written first and the file takes its name last, so a backup
that has its name is whole and says what it is; anything else in the folder is a leftover of a crash and goes with the
next backup. One is made at a time, in a process of its own (errand.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from hub.core import backup as rules
from hub.core.backup import Backup, Trigger
from hub.store import folder
from hub.store.care import errand
from kit import errors, ids, logs

log = logs.get(__name__)

FILE: Final = ".mdb"
MANIFEST: Final = ".json"
DRAFT: Final = ".part"
MANIFEST_BYTES_MAX: Final = 64 * 1024
DISK_RESERVE_BYTES: Final = 64 << 20
"""Kept free on the disk of the backups, which is often that of the store: a backup must not stop the hub."""
RETRY_S: Final = 60.0


class Backups:
    """The backups of one hub."""

    def __init__(self, path: Path, source: Path) -> None:
        """`source`: the folder of the store."""
        self.path = path
        self._source = source

    async def make(self, id: str, now: float, trigger: Trigger) -> Backup:
        """Copy the store while it is at work, read the copy through, and keep it. Raises a Problem, with nothing left.

        A copy that is not good is not kept either: what is wrong with it is wrong with the store.
        """
        draft = self.path / f"{id}{FILE}{DRAFT}"
        try:
            await asyncio.to_thread(self._prepare)
            report = await errand.run("copy", str(self._source), str(draft))
            if report.problems:
                raise errors.DataLoss(f"the copy is damaged: {report.problems[0]}", reason="STORE_CORRUPT")
            made = Backup(
                id=id,
                uid=report.identity.uid,
                generation_floor=report.identity.generation_floor,
                schema_version=report.identity.schema_version,
                event_position=report.identity.position,
                size_bytes=report.size_bytes,
                sha256=report.sha256,
                trigger=trigger,
                created_at=now,
                verified_at=now,
            )
            await asyncio.to_thread(self._keep, made)
        except OSError as cause:
            self._drop(id)
            raise errors.Unavailable(
                f"{self.path} cannot be written: {cause.strerror}", reason="BACKUP_FAILED", retry_delay_s=RETRY_S
            ) from cause
        except BaseException:
            self._drop(id)
            raise
        log.info("backup.made", backup=id, size_bytes=made.size_bytes, position=made.event_position)
        return made

    def all(self) -> list[Backup]:
        """All of them, newest first. One whose manifest is gone or cannot be read is shown with that problem."""
        with contextlib.suppress(OSError):
            return [self._read(id) for id in self._ids()]
        return []

    def newest_good(self) -> Backup | None:
        """The one to restore; only the manifests of newer ones are looked at."""
        with contextlib.suppress(OSError):
            return next((one for one in map(self._read, self._ids()) if one.good), None)
        return None

    def _ids(self) -> list[str]:
        """Newest first."""
        return sorted((one.stem for one in self.path.glob(f"*{FILE}") if ids.is_id(one.stem)), reverse=True)

    def file(self, id: str) -> Path:
        """The file of a backup. Raises NotFound."""
        path = self.path / f"{id}{FILE}"
        if not ids.is_id(id) or not path.is_file():
            name = f"backups/{id}"
            raise errors.NotFound(f"there is no {name}", reason="BACKUP_NOT_FOUND", metadata={"name": name})
        return path

    async def verify(self, id: str, now: float) -> errand.Report:
        """Read a backup through again, and write down what came of it."""
        path = self.file(id)
        known = self._read(id)
        report = await errand.run("check", str(path))
        if known.sha256 and not report.problems and report.sha256 != known.sha256:
            report = msgspec.structs.replace(report, problems=("the file is not the one that its manifest tells of",))
        if known.sha256:
            problem = report.problems[0] if report.problems else ""
            with contextlib.suppress(OSError):  # a folder for reading only: the answer is what counts
                checked = msgspec.structs.replace(known, verified_at=now, problem=problem)
                await asyncio.to_thread(self._write_manifest, checked)
        return report

    def rotate(self, now: float, *, keep_count: int, keep_age_s: float) -> list[Backup]:
        """Let the old ones go; those that went."""
        gone = rules.expired(self.all(), now, keep_count=keep_count, keep_age_s=keep_age_s)
        for one in gone:
            log.info("backup.expired", backup=one.id)
            self._drop(one.id)
        return gone

    def _prepare(self) -> None:
        """Make the folder, take away what a crash left, and look for room."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        whole = {one.stem for one in self.path.glob(f"*{FILE}")}
        for leftover in [*self.path.glob(f"*{DRAFT}"), *self.path.glob(f"*{MANIFEST}")]:
            if leftover.suffix == DRAFT or (leftover.stem not in whole and ids.is_id(leftover.stem)):
                leftover.unlink(missing_ok=True)
        facts = os.statvfs(self.path)
        free = facts.f_bavail * facts.f_frsize
        needed = (self._source / folder.DATA_NAME).stat().st_size + DISK_RESERVE_BYTES
        if free < needed:
            raise errors.Exhausted(
                f"the disk of {self.path} has {free >> 20} MiB free, a backup needs up to {needed >> 20} MiB",
                reason="DISK_FULL",
                retry_delay_s=RETRY_S,
            )

    def _keep(self, made: Backup) -> None:
        self._write_manifest(made)
        (self.path / f"{made.id}{FILE}{DRAFT}").rename(self.path / f"{made.id}{FILE}")
        folder.sync(self.path)

    def _read(self, id: str) -> Backup:
        path = self.path / f"{id}{MANIFEST}"
        try:
            with path.open("rb") as file:
                return msgspec.json.decode(file.read(MANIFEST_BYTES_MAX), type=Backup)
        except (OSError, msgspec.MsgspecError, ValueError):
            facts = (self.path / f"{id}{FILE}").stat()
            return Backup(
                id=id,
                uid="",
                generation_floor=0,
                schema_version=0,
                event_position=0,
                size_bytes=facts.st_size,
                sha256="",
                trigger=Trigger.REQUEST,
                created_at=facts.st_mtime,
                problem="its manifest is missing or cannot be read",
            )

    def _write_manifest(self, made: Backup) -> None:
        draft = self.path / f"{made.id}{MANIFEST}{DRAFT}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(made))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.path / f"{made.id}{MANIFEST}")
        folder.sync(self.path)

    def _drop(self, id: str) -> None:
        """The file first: a manifest alone is a leftover, a file alone would look like a backup."""
        with contextlib.suppress(OSError):
            for ending in (FILE, f"{FILE}{DRAFT}", f"{MANIFEST}{DRAFT}", MANIFEST):
                (self.path / f"{id}{ending}").unlink(missing_ok=True)
