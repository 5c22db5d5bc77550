"""The journal: what this sidecar was given and has to say, on the disk before a word of it goes to the hub.

An append-only file of self-checking frames (core/record.py), one thread that writes it, and group commit: what is
appended while an fsync runs shares the next one. A record that could not be written is cut off again and its appender
is told. After a failed fsync nobody knows what is on the disk (the kernel may have dropped the pages), so the journal
then rewrites itself before it takes anything more.

What is settled is dead weight: when the file has outgrown its bound and is twice as long as what lived at the last
rewrite, the live records are written to a fresh file that takes the old one's name.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kit import errors, logs
from sidecar.core import record
from sidecar.core.assignment import Holding
from sidecar.core.record import Open, Record
from sidecar.wire import state

log = logs.get(__name__)

FILE = "journal"
DAMAGED = "journal.damaged"
#: Below this a rewrite saves nothing that matters; beyond it dead records would grow without a bound.
COMPACT_BYTES_MIN = 4 * 1024 * 1024
#: Records that wait for the writer. The holdings are bounded by 256, each has at most three records to write.
WAITING_COUNT_MAX = 1024


@dataclass(slots=True)
class _Waiting:
    record: Record
    body: bytes
    #: None: nobody waits for it; it is written without an fsync of its own.
    done: Callable[[BaseException | None], None] | None


class Journal:
    """The open journal of a state folder that this process has locked."""

    def __init__(self, folder: Path, *, compact_bytes_min: int = COMPACT_BYTES_MIN) -> None:
        """Read it and cut the torn tail. Raises Unavailable when the file cannot be used."""
        self._path = folder / FILE
        self._compact_bytes_min = compact_bytes_min
        self._waiting: deque[_Waiting] = deque()
        self._guard = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._live: dict[Holding, Open] = {}
        self._broken = False
        self._file = -1
        self._size = 0
        #: Length after the last rewrite: what lived then.
        self._compacted_bytes = 0
        try:
            self._load()
        except OSError as error:
            raise errors.Unavailable(
                f"the journal {self._path} cannot be used: {error.strerror}", reason="JOURNAL_FAILED"
            ) from error

    def still_open(self) -> list[Open]:
        """What is left to recover or to tell. For the start, before anything is appended."""
        return list(self._live.values())

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self._size

    async def append(self, *records: Record) -> None:
        """Write records and return when they are durable. Raises Unavailable or Exhausted, and then none counts."""
        if not records:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def resolve(error: BaseException | None) -> None:
            if not future.done():
                future.set_result(None) if error is None else future.set_exception(error)

        def done(error: BaseException | None) -> None:
            # A loop that has ended has nobody left to tell.
            if not loop.is_closed():
                loop.call_soon_threadsafe(resolve, error)

        # Only the last one's end is waited for: they are written in order and share one fsync.
        items = [_Waiting(item, record.encode(item), None) for item in records]
        items[-1].done = done
        self._put(items)
        await future

    def note(self, entry: Record) -> None:
        """Write a record soon; nobody waits, and after a crash it may be missing. For Closed: it is said again then."""
        self._put([_Waiting(entry, record.encode(entry), None)])

    def close(self) -> None:
        """Write what waits and close the file."""
        self._thread.shutdown(wait=True)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _put(self, items: list[_Waiting]) -> None:
        for item in items:
            if len(item.body) > record.BODY_BYTES_MAX:
                raise errors.Invalid(f"a record of {len(item.body)} bytes, the bound is {record.BODY_BYTES_MAX}")
        with self._guard:
            if len(self._waiting) + len(items) > WAITING_COUNT_MAX:
                raise errors.Exhausted(
                    f"{WAITING_COUNT_MAX} records wait for the disk, which is the bound", reason="JOURNAL_FULL"
                )
            self._waiting.extend(items)
        self._thread.submit(self._drain)

    # From here on everything runs on the journal's thread (or before it has begun).

    def _drain(self) -> None:
        """Write everything that waits with one fsync."""
        with self._guard:
            batch = list(self._waiting)
            self._waiting.clear()
        if not batch:
            return
        error = self._write(batch)
        if error is not None:
            log.error("journal.failed", path=str(self._path), records=len(batch), error=error.message)
        for item in batch:
            if item.done is not None:
                item.done(error)

    def _write(self, batch: list[_Waiting]) -> errors.Unavailable | None:
        try:
            if self._broken:
                self._compact()
            data, place = bytearray(), self._size
            for item in batch:
                data += record.frame(item.body, place + len(data))
            state.write_all(self._file, bytes(data))
            if any(item.done is not None for item in batch):
                os.fsync(self._file)
        except OSError as problem:
            self._broken = True
            return errors.Unavailable(f"the journal cannot be written: {problem.strerror}", reason="JOURNAL_FAILED")
        self._size += len(data)
        for item in batch:
            record.apply(self._live, item.record)
        try:
            if self._size > max(self._compact_bytes_min, 2 * self._compacted_bytes):
                self._compact()
        except OSError as problem:  # what was appended is safe in the old file
            self._broken = True
            log.warning("journal.compact_failed", path=str(self._path), error=problem.strerror)
        return None

    def _image(self) -> bytes:
        """A file that holds exactly what is live."""
        data = bytearray()
        for entry in self._live.values():
            for item in record.records_of(entry):
                data += record.frame(record.encode(item), len(data))
        return bytes(data)

    def _compact(self) -> None:
        image = self._image()
        state.replace_file(self._path, image)
        old, self._file = self._file, self._open()
        if old >= 0:
            os.close(old)
        self._size = self._compacted_bytes = len(image)
        self._broken = False
        log.debug("journal.compacted", path=str(self._path), bytes=self._size)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _load(self) -> None:
        fresh = not self._path.exists()
        self._file = self._open()
        if fresh:
            state.sync_folder(self._path.parent)
        data = self._path.read_bytes()
        found = record.scan(data)
        for entry in record.still_open(found.records):
            self._live[entry.holding] = entry
        self._size = found.end
        if found.damaged_bytes:
            # Frames know their place, so the file cannot simply be closed up; keep the bytes for whoever looks into it.
            state.replace_file(self._path.with_name(DAMAGED), data)
            log.error("journal.damaged", path=str(self._path), bytes=found.damaged_bytes, kept=DAMAGED)
            self._compact()
        elif len(data) > found.end:
            log.warning("journal.tail_cut", path=str(self._path), bytes=len(data) - found.end)
            os.ftruncate(self._file, found.end)
            os.fsync(self._file)
