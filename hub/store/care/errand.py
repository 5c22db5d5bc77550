"""Long work on a store's file in a process of its own: copying it, and reading it through.

Theory. Both take as long as the store is large, and both trust the file: a damaged one can end the process that maps
it with a signal. So neither runs inside the hub. The child takes a snapshot like any reader, never holds up the
writer or its growth, gives way to the hub (nice), and dies with its parent. What it found is one line of JSON on its
stdout; what it ended with, signal included, is what its parent tells.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hub.core.backup import GENERATION_FLOOR_KEY
from hub.core.diagnosis import Findings
from hub.store import chain, folder, lmdb, migrate
from hub.store.care import audit, pages
from hub.store.reader import OrderedReader
from kit import errors, program

TIMEOUT_S: Final = 3_600.0
"""For one errand: hundreds of gigabytes. What takes longer hangs."""

PIN_COUNT_MAX: Final = 20
"""Tries to read a commit's meta page before two later ones have replaced it, which takes them a few syncs."""

AGENTS_MAX: Final = 10_000
"""Agents that an outlook looks at; ten times what one hub is measured with."""

NICENESS: Final = 10
BEGUN: Final = b"begun"
"""What the child says before it opens the file."""
_DEADLY: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT})
"""What following a damaged map ends with."""
_PDEATHSIG: Final = 1


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What tells one store from another."""

    uid: str = ""
    generation_floor: int = 0
    """Of the last restore; 0: it was never restored."""
    schema_version: int = 0
    position: int = 0
    hash: str = ""
    """Of the newest event."""
    newest_at: float | None = None
    """When the newest event happened."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an errand came to."""

    identity: Identity = Identity()
    records: int = 0
    index_entries: int = 0
    events: int = 0
    problems: tuple[str, ...] = ()
    size_bytes: int = 0
    sha256: str = ""
    agents: tuple[tuple[str, str], ...] = ()
    """outlook: each agent with the version that its sidecar had last."""
    contained: bool = False
    """compare: the second store goes on where the first one ends."""
    failure: str = ""
    """Why it could not be done; empty: it was."""

    @property
    def findings(self) -> Findings:
        """What was found, for people."""
        return Findings(self.records, self.index_entries, self.events, self.problems)


async def run(*words: str, timeout_s: float = TIMEOUT_S) -> Report:
    """Run an errand and wait for it. Raises Unavailable when it could not be done; a damaged file is a finding."""
    deadly = ""
    for _ in range(2):  # a signal may have other causes: a file is called damaged when it kills twice
        begun, answer, code = await _run(words, timeout_s)
        if code >= 0:
            break
        deadly = signal.Signals(-code).name
        if not begun or -code not in _DEADLY:
            raise errors.Unavailable(f"{words[0]} was ended by {deadly}", reason="ERRAND_KILLED")
    if code < 0:
        return Report(problems=(f"the file is so damaged that reading it ends with {deadly}",))
    try:
        report = msgspec.json.decode(answer, type=Report)
    except (msgspec.MsgspecError, ValueError) as cause:
        raise errors.Unavailable(
            f"{words[0]} ended with code {code} and said nothing", reason="ERRAND_FAILED"
        ) from cause
    if report.failure:
        raise errors.Unavailable(report.failure, reason="ERRAND_FAILED")
    return report


async def _run(words: Sequence[str], timeout_s: float) -> tuple[bool, bytes, int]:
    """Did it come to read the file, what did it say, and how did it end?

    Popen and not the loop's own way: it uses vfork, while uvloop forks, and a fork of a process with gRPC in it was
    seen to die of a signal before it came to run anything. Called on the loop's thread, which blocks for some
    milliseconds, because the child dies with the thread that made it.
    """
    process = subprocess.Popen(  # noqa: ASYNC220  # asyncio would fork here, which uvloop does not bear
        [*program.part(__name__), "--parent", str(os.getpid()), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=program.part_environment(),
        start_new_session=True,
    )
    ending = asyncio.get_running_loop().run_in_executor(None, process.communicate)
    try:
        async with asyncio.timeout(timeout_s):
            said, _ = await asyncio.shield(ending)
    except TimeoutError as cause:
        raise errors.Unavailable(f"{words[0]} took longer than {timeout_s:.0f} s", reason="ERRAND_TIMEOUT") from cause
    finally:
        process.kill()  # nothing happens when it has ended
    first, _, answer = said.partition(b"\n")
    return first == BEGUN, answer, process.returncode


def check(path: Path) -> Report:
    """Read a store's folder, or the file of a backup, through. What is wrong is in the report."""
    identity, size, digest = Identity(), 0, ""
    try:
        if path.is_file():
            size, digest = path.stat().st_size, sha256(path)
    except OSError as error:
        return Report(problems=(f"{path} cannot be read: {error.strerror}",))
    try:
        if path.is_dir():
            pages.head(path / folder.DATA_NAME)
            _check_pages(path)
        else:
            pages.check(path)  # nobody writes to it: its pages can be looked at before it is mapped
        with lmdb.reading(path) as read:
            identity = read(identify)
            if identity.schema_version == migrate.VERSION:
                found = audit.Audit(read).run()
            else:  # its indexes are those of an older program: whoever brings it forward audits it then
                found = Findings(events=chain.verify(read, 0, audit.EVENTS_MAX))
    except errors.Problem as problem:
        return Report(identity=identity, problems=(problem.message,), size_bytes=size, sha256=digest)
    return Report(
        identity=identity,
        size_bytes=size,
        sha256=digest,
        records=found.records,
        index_entries=found.index_entries,
        events=found.events,
        problems=found.problems,
    )


def _check_pages(path: Path) -> None:
    """Read the pages of a store's folder, which a hub may write to meanwhile. Raises DataLoss."""
    for _ in range(PIN_COUNT_MAX):
        with lmdb.pinned(path) as txn:
            if pages.check_at(path / folder.DATA_NAME, txn):
                return
    # Commits come too fast on one another for a look at the newest: the next audit, or the next backup, reads them.


def outlook(path: Path) -> Report:
    """What somebody who upgrades wants to know of a store's folder, which a hub may have open."""
    try:
        pages.head(path / folder.DATA_NAME)
        with lmdb.reading(path) as read:
            identity = read(identify)
            agents = read(lambda reader: reader.agents.page(after="", limit=AGENTS_MAX))
    except errors.Problem as problem:
        return Report(problems=(problem.message,))
    size = (path / folder.DATA_NAME).stat().st_size
    return Report(identity=identity, agents=tuple((one.id, one.version) for one in agents), size_bytes=size)


def identify(reader: OrderedReader) -> Identity:
    """What this store is. Raises DataLoss, IllegalState."""
    version = migrate.found(reader.kv)
    head = reader.head()
    uid, floor = reader.meta("uid"), reader.meta(GENERATION_FLOOR_KEY)
    newest = reader.events(after=head.position - 1, limit=1) if head.position else []
    return Identity(
        uid=uid.decode() if uid is not None else "",
        generation_floor=int(floor) if floor is not None else 0,
        schema_version=version or 0,
        position=head.position,
        hash=head.hash.hex() if head.position else "",
        newest_at=newest[0].at if newest else None,
    )


def copy(source: Path, target: Path) -> Report:
    """Copy a store's folder into a new file and read the copy through."""
    try:
        lmdb.copy_file(source, target)
    except errors.DataLoss as problem:
        return Report(problems=(problem.message,))
    except OSError as error:
        # The library has one word for a tree that it cannot follow and for a disk that is full: the pages decide.
        try:
            _check_pages(source)
        except errors.DataLoss as problem:
            return Report(problems=(problem.message,))
        return Report(failure=error.strerror or str(error))
    return check(target)


def compare(first: Path, second: Path) -> Report:
    """Tell which store the first one is, and whether the second has everything that it has: its newest event, or, where
    retention has taken that, a later one of the same life.
    """
    try:
        pages.head(first / folder.DATA_NAME)
        with lmdb.reading(first) as read:
            old = read(identify)
    except errors.Problem as problem:
        return Report(problems=(problem.message,))
    try:
        with lmdb.reading(second) as read:
            new = read(identify)
            at = read(lambda reader: reader.events(after=old.position - 1, limit=1)) if old.position else []
            gone = read(lambda reader: reader.position_gone())
    except errors.Problem as problem:
        return Report(identity=old, failure=problem.message)
    same = old.uid == new.uid and old.position <= new.position
    has = not old.position or (at and at[0].position == old.position and at[0].hash.hex() == old.hash)
    had = old.position <= gone and old.generation_floor == new.generation_floor
    return Report(identity=old, contained=bool(same and (has or had)))


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """What the child runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, default=0)
    parser.add_argument("what", choices=("check", "copy", "compare", "outlook"))
    parser.add_argument("paths", nargs="+", type=Path)
    chosen = parser.parse_args(arguments)
    _die_with(chosen.parent)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    sys.stdout.buffer.write(BEGUN + b"\n")
    sys.stdout.buffer.flush()
    errands: dict[str, Callable[..., Report]] = {
        "check": check, "copy": copy, "compare": compare, "outlook": outlook,
    }  # fmt: skip
    report = errands[chosen.what](*chosen.paths)
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    return 0


def _die_with(parent: int) -> None:
    """Where the system can: a child of a hub that was killed must not go on copying."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    if parent and os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
