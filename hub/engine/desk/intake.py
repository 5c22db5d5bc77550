"""The watched folder: a goal file that is dropped into it becomes a goal.

    <folder>/add-login.md                    somebody drops it
    <folder>/taken/add-login.md              filed; beside it add-login.md.goal.txt with the goal's name
    <folder>/refused/add-login.md            refused; beside it add-login.md.reason.txt with line and reason

A file is read when two looks in a row found it the same, so that a half-written one is left alone. It is filed under a
request id made from its content: after a crash between the filing and the move, the next look files nothing twice, and
gives the same answer. (So the same text dropped again within the request window is the same goal.) The note is written
before the move, so a file that has been moved always has one. A hub that takes nothing now (draining, full) leaves the
files where they are.

Whoever may write into the folder may file goals: it stands for a login, and must be kept like one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from hub.engine.desk.filing import Draft, Filed, Filing
from hub.engine.live.context import Context
from hub.engine.script import requests
from hub.store.base import Txn
from kit import errors, logs

log = logs.get(__name__)

ACTOR: Final = "intake"
METHOD: Final = "CreateGoal"
SUFFIXES: Final = (".md", ".yaml", ".yml")

FILE_BYTES_MAX: Final = 256 * 1024
"""A plan of 200 tasks with a page of instructions each; larger ones are no goal files."""

LOOK_MAX: Final = 1_000
"""Directory entries looked at in one run, so that a folder with a million files costs no more than this one does."""

TAKE_MAX: Final = 20
"""Files read in one run: reading YAML costs up to a second each, on a thread of its own."""

REASON_CHARS_MAX: Final = 20_000
"""Length of a note: every violation that a person can act on."""

NAMES_MAX: Final = 1_000
"""Files of one name that are kept beside each other; beyond it the last one is replaced."""

_NAME_BYTES_MAX: Final = 200
"""Of a file name, so that the note's name fits into the 255 bytes of most file systems."""

Read = Callable[[bytes, str], Draft]
"""Reads a goal file: content, file name. Raises Invalid with line and reason. Given by the composition root."""


class Mark(NamedTuple):
    """What tells a file that is still being written from one that is done."""

    inode: int
    size: int
    changed_ns: int


class Look(NamedTuple):
    """One file that is ready: its content, or why it cannot be read."""

    name: str
    content: bytes
    refusal: str


class Intake:
    """Takes goal files in."""

    def __init__(self, ctx: Context, filing: Filing, folder: Path, read: Read) -> None:
        self._ctx = ctx
        self._filing = filing
        self._folder = folder
        self._read = read
        self._seen: dict[str, Mark] = {}

    async def run_once(self, now: float) -> int:
        """Look into the folder and take what is ready; how many files were taken or refused."""
        handled = 0
        for look in await asyncio.to_thread(self._look):
            try:
                await self._take(look, now)
            except (errors.Exhausted, errors.Unavailable) as problem:
                log.warning("intake.postponed", file=look.name, reason=problem.reason, message=problem.message)
                break
            handled += 1
        return handled

    async def _take(self, look: Look, now: float) -> None:
        try:
            if look.refusal:
                raise errors.Invalid.of("file", look.refusal)
            filed = await self._file(look)
        except (errors.Exhausted, errors.Unavailable):
            raise
        except errors.Problem as problem:
            await self._refuse(look, problem, now)
            return
        note = "".join(f"{line}\n" for line in (f"goals/{filed.goal.id}", *_warnings(filed)))
        await asyncio.to_thread(self._move, look.name, "taken", "goal.txt", note)
        log.info("intake.taken", file=_printable(look.name), goal=filed.goal.id)

    async def _file(self, look: Look) -> Filed:
        draft = await asyncio.to_thread(self._read, look.content, look.name)
        digest = hashlib.sha256(look.content)
        return await self._filing.create(
            draft, requests.Request(ACTOR, METHOD, digest.hexdigest(), digest.digest()[:16])
        )

    async def _refuse(self, look: Look, problem: errors.Problem, now: float) -> None:
        note = _reason(problem)
        name = _printable(look.name)

        def write(txn: Txn) -> None:
            txn.append(now, "intake.refused", "hub", actor=ACTOR, file=name, reason=problem.message[:500])

        await self._ctx.store.write(write, essential=True)
        await asyncio.to_thread(self._move, look.name, "refused", "reason.txt", note)
        log.warning("intake.refused", file=name, reason=problem.reason, message=problem.message[:500])

    def _look(self) -> list[Look]:
        """The files that are ready, in the order of their names."""
        marks: dict[str, Mark] = {}
        ready: list[Look] = []
        for name in self._names():
            mark = self._mark(name)
            if mark is None:
                continue
            marks[name] = mark
            if self._seen.get(name) == mark and len(ready) < TAKE_MAX:
                ready.append(self._open(name))
        self._seen = marks
        return ready

    def _names(self) -> list[str]:
        names = []
        with os.scandir(self._folder) as entries:
            for count, entry in enumerate(entries):
                if count >= LOOK_MAX:
                    break
                if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
                    names.append(entry.name)
        return sorted(names)

    def _open(self, name: str) -> Look:
        """Read a file without following a link or waiting at a pipe."""
        try:
            if not stat.S_ISREG(os.lstat(self._folder / name).st_mode):
                return Look(name, b"", "is no regular file")
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return Look(name, b"", "is no regular file")
                content = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            return Look(name, b"", f"cannot be read: {error.strerror}")
        if len(content) > FILE_BYTES_MAX:
            return Look(name, b"", f"has more than {FILE_BYTES_MAX} bytes, which is what is taken")
        return Look(name, content, "")

    def _move(self, name: str, room: str, suffix: str, note: str) -> None:
        """Write the note, then move the file beside it. A name that is taken there gets a number.

        A file that was written again since it was read stays, and is looked at as a new one.
        """
        if self._mark(name) != self._seen.pop(name, None):
            log.warning("intake.file_changed", file=_printable(name))
            return
        target = self._folder / room
        target.mkdir(exist_ok=True)
        stem, extension = os.path.splitext(name)
        while len(os.fsencode(stem)) > _NAME_BYTES_MAX:
            stem = stem[:-1]
        free = f"{stem}{extension}"
        for number in range(2, NAMES_MAX):
            if not os.path.lexists(target / free):
                break
            free = f"{stem}.{number}{extension}"
        (target / f"{free}.{suffix}").write_text(note, encoding="utf-8", errors="replace")
        os.replace(self._folder / name, target / free)

    def _mark(self, name: str) -> Mark | None:
        try:
            status = os.lstat(self._folder / name)
        except FileNotFoundError:
            return None
        return Mark(status.st_ino, status.st_size, status.st_mtime_ns)


def prepare(folder: Path) -> None:
    """Make the folder and its rooms. Raises Invalid when that cannot be done."""
    try:
        for room in ("taken", "refused"):
            (folder / room).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.Invalid(
            f"intake.folder: {folder} cannot be used: {error.strerror}", reason="BAD_CONFIGURATION"
        ) from error


def _warnings(filed: Filed) -> list[str]:
    return [f"warning: {finding.field}: {finding.message} ({finding.rule})" for finding in filed.findings]


def _reason(problem: errors.Problem) -> str:
    lines = [problem.message]
    if isinstance(problem, errors.Invalid) and problem.violations:
        lines = [f"{violation.field}: {violation.description}" for violation in problem.violations]
    text = "\n".join(lines)
    return f"{text[:REASON_CHARS_MAX]}\n"


def _printable(name: str) -> str:
    """A file name as UTF-8 text, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "replace")
