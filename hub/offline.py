"""`agentcom-hub COMMAND`: what is done to the store of a hub that does not run: restore, verify, compact, doctor.

Exit codes: 0 all is well, 1 a warning of the doctor, 2 refused, or something is broken. Nothing of a store is changed
by `verify`, `backups`, `doctor` and `upgrade-check`; the first three may also be asked of a hub that runs, with
`agentcom hub`, and the last one is meant for that: the new program looks while the older one works.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hub import config, upkeep
from hub.core import diagnosis, outlook
from hub.core.diagnosis import Diagnosis, Verdict
from hub.store import folder, migrate
from hub.store.care import compaction, errand, keeper, restore
from hub.store.care.backups import Backups
from kit import errors, ids, logs
from kit.version import VERSION

EXIT_GOOD: Final = 0
EXIT_WARNING: Final = 1
EXIT_BROKEN: Final = 2

MIB: Final = 1 << 20


class Desk:
    """The commands, over one configuration."""

    def __init__(self, settings: config.Config, *, as_json: bool) -> None:
        self._settings = settings
        self._store = settings.data / upkeep.STORE_FOLDER
        self._backups = Backups(upkeep.backup_folder(settings), self._store)
        self._as_json = as_json

    async def restore(self, chosen: argparse.Namespace) -> int:
        """Put a backup in the place of the store."""
        done = await restore.restore(self._find(chosen.backup), self._store, time.time(), force=chosen.force)
        aside = f"; the store that was there is kept as {done.aside}" if done.aside is not None else ""
        text = f"restored {chosen.backup}, up to event {done.identity.position}{aside}"
        self._say(text, backup=chosen.backup, position=done.identity.position, aside=str(done.aside or ""))
        return EXIT_GOOD

    async def verify(self, chosen: argparse.Namespace) -> int:
        """Read the store, or a backup, through."""
        path = self._find(chosen.backup) if chosen.backup else self._free()
        report = await errand.run("check", str(path))
        found = diagnosis.of_store(report.findings, remedy="")
        problems = list(report.problems)
        self._say("\n".join(problems) or found.message, **{**msgspec.to_builtins(report), "problems": problems})
        return EXIT_BROKEN if problems else EXIT_GOOD

    async def compact(self, _chosen: argparse.Namespace) -> int:
        """Write the store anew without its free pages."""
        before, after = await asyncio.to_thread(compaction.compact, self._free())
        text = f"{before / MIB:.1f} MiB before, {after / MIB:.1f} MiB after"
        self._say(text, before_bytes=before, after_bytes=after)
        return EXIT_GOOD

    async def backups(self, _chosen: argparse.Namespace) -> int:
        """List the backups."""
        found = self._backups.all()
        lines = [
            f"{one.id}  {time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(one.created_at))}  "
            f"{one.size_bytes / MIB:8.1f} MiB  event {one.event_position}  {one.problem or 'good'}"
            for one in found
        ]
        self._say("\n".join(lines) or "there are none", backups=msgspec.to_builtins(found))
        return EXIT_GOOD

    async def doctor(self, _chosen: argparse.Namespace) -> int:
        """Look at everything that a hub needs."""
        return self._tell(await self._examine())

    def _tell(self, found: list[Diagnosis]) -> int:
        marks = {Verdict.OK: "ok", Verdict.WARNING: "warning", Verdict.FAILED: "FAILED", Verdict.UNKNOWN: "unknown"}
        lines = [
            f"{marks[one.verdict]:8} {one.probe:14} {one.message}{f' ({one.advice})' if one.advice else ''}"
            for one in found
        ]
        shown = [{**one._asdict(), "verdict": one.verdict.name} for one in found]
        self._say("\n".join(lines), diagnoses=shown)
        worst = diagnosis.worst(found)
        return {Verdict.OK: EXIT_GOOD, Verdict.FAILED: EXIT_BROKEN}.get(worst, EXIT_WARNING)

    async def upgrade_check(self, _chosen: argparse.Namespace) -> int:
        """Look at what this version would find if it took the place of the hub that has the store now."""
        found = [diagnosis.of_configuration(upkeep.oddities(self._settings))]
        if self._settings.store.kind == "memory":
            text = "the store is in memory: what is there when the hub ends is gone"
            found.insert(0, Diagnosis("schema", Verdict.WARNING, text))
        elif not (self._store / folder.DATA_NAME).exists() and not folder.was_made(self._store):
            found.insert(0, outlook.of_schema(0, migrate.VERSION, str(self._store)))
        else:
            found = [*await self._outlook(), *found]
        return self._tell(found)

    async def _outlook(self) -> list[Diagnosis]:
        report = await errand.run("outlook", str(self._store))
        if report.problems:
            return [Diagnosis("schema", Verdict.FAILED, report.problems[0], "look at docs/upgrade.md")]
        facts, schema = os.statvfs(self._store), report.identity.schema_version
        needed = report.size_bytes if schema < migrate.VERSION else 0
        return [
            outlook.of_schema(schema, migrate.VERSION, str(self._store)),
            outlook.of_room(needed, facts.f_bavail * facts.f_frsize),
            outlook.of_agents(report.agents, VERSION),
            outlook.of_backup(self._backups.all(), time.time()),
        ]

    async def _examine(self) -> list[Diagnosis]:
        now, newest_at = time.time(), None
        found = [diagnosis.of_configuration(upkeep.oddities(self._settings))]
        if not (self._store / folder.DATA_NAME).exists() and not folder.was_made(self._store):
            return [Diagnosis("store.records", Verdict.OK, f"there is no store in {self._store} yet"), *found]
        try:
            report = await errand.run("check", str(self._free()))
            newest_at = report.identity.newest_at
            remedy = keeper.Keeper(None, self._store, self._backups.path, keeper.Policy(0, 1, 1.0)).remedy(
                report.identity.position
            )
            found.insert(0, diagnosis.of_store(report.findings, remedy=remedy))
        except errors.Problem as problem:
            found.insert(0, Diagnosis("store.records", Verdict.UNKNOWN, problem.message))
        facts = os.statvfs(self._store)
        found.append(diagnosis.of_disk(facts.f_bavail * facts.f_frsize, keeper.DISK_RESERVE_BYTES))
        found.append(keeper.sync_time(self._store))
        found.append(diagnosis.of_clock(now, newest_at, 0.0))
        found.append(diagnosis.of_backups(self._backups.all(), now, self._settings.backup.every_s, None))
        return found

    def _free(self) -> Path:
        """The store's folder. Raises NotFound, or Unavailable when a hub has it."""
        if not self._store.is_dir():
            raise errors.NotFound(f"there is no store in {self._store}", reason="STORE_NOT_FOUND")
        try:
            folder.FolderLock(self._store).release()
        except errors.Unavailable as problem:
            raise errors.Unavailable(
                f"{problem.message}: ask it with `agentcom hub`, or stop it first", reason=problem.reason
            ) from problem
        return self._store

    def _find(self, name: str) -> Path:
        """A backup by its id, its resource name or its file."""
        id = name.removeprefix("backups/")
        return self._backups.file(id) if ids.is_id(id) else Path(name)

    def _say(self, text: str, **fields: Any) -> None:
        sys.stdout.write(f"{msgspec.json.encode(fields).decode() if self._as_json else text}\n")


COMMANDS: Final[dict[str, tuple[Callable[[Desk, argparse.Namespace], Awaitable[int]], str]]] = {
    "restore": (Desk.restore, "put a backup in the place of the store; the store that was there is kept aside"),
    "verify": (Desk.verify, "read the store, or a backup, through: every record, index entry and event"),
    "compact": (Desk.compact, "give the space of what was deleted back to the disk"),
    "backups": (Desk.backups, "list the backups, newest first"),
    "doctor": (Desk.doctor, "look at store, disk, clock, configuration and backups"),
    "upgrade-check": (
        Desk.upgrade_check,
        f"look at what version {VERSION} would find on this store, which a hub may have open: schema, room, sidecars",
    ),
}


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    run = COMMANDS[chosen.command][0]
    try:
        settings = config.load(chosen.config, os.environ, {"data": chosen.data, "backup.folder": chosen.backups})
        logs.configure(level="error", form=settings.log.form)
        return asyncio.run(_run(run, Desk(settings, as_json=chosen.json), chosen))
    except errors.Problem as problem:
        sys.stderr.write(f"agentcom-hub {chosen.command}: {problem.message}\n")
        return EXIT_BROKEN


async def _run(
    run: Callable[[Desk, argparse.Namespace], Awaitable[int]], desk: Desk, chosen: argparse.Namespace
) -> int:
    return await run(desk, chosen)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, metavar="FILE", help="TOML file of the hub")
    common.add_argument("--data", type=Path, metavar="FOLDER", help="data folder of the hub")
    common.add_argument("--backups", type=Path, metavar="FOLDER", help="folder of the backups")
    common.add_argument("--json", action="store_true", help="one line of JSON instead of text")
    parser = argparse.ArgumentParser(prog="agentcom-hub", description="Looks after the store of a hub that is stopped.")
    parts = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, help_text) in COMMANDS.items():
        part = parts.add_parser(name, parents=[common], help=help_text, description=help_text)
        if name == "restore":
            part.add_argument("backup", help="its id, or its file")
            part.add_argument("--force", action="store_true", help="also when the store has what the backup has not")
        elif name == "verify":
            part.add_argument("backup", nargs="?", default="", help="its id, or its file; none: the store")
    return parser
