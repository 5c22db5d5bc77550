"""A file as a power cut at some moment could have left it, made from the record of its writes and syncs.

What a completed sync covers is there. Of every write after it, each sector is there or not, as the dice say: that is a
page cache of which the disk has taken some sectors and not others, in any order, and pages torn in the middle.

What this does not cover: a disk that lies about a sync, sectors that are damaged and not merely old, and a file system
that loses its own metadata (the length of the file is taken as the longest write that is there).
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("recorder.c")
SECTOR_BYTES = 512
_HEAD = struct.Struct("<cQQ")


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that was done to the file; `end` is the length of the log with it."""

    kind: bytes
    offset: int
    data: bytes
    end: int


def build(folder: Path) -> Path:
    """Compile the recorder. Raises CalledProcessError when that cannot be done."""
    library = folder / "recorder.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def records(log: bytes) -> Iterator[Record]:
    """What the log tells; a record that is cut short is left out."""
    at = 0
    while at + _HEAD.size <= len(log):
        kind, offset, length = _HEAD.unpack_from(log, at)
        end = at + _HEAD.size + length
        if end > len(log):
            return
        yield Record(kind, offset, log[at + _HEAD.size : end], end)
        at = end


def without_cut(log: bytes) -> bytes:
    """The file with every write of this log: what the kernel shows while it lives."""
    file = bytearray()
    for record in records(log):
        if record.data:
            _put(file, record.offset, record.data)
    return bytes(file)


def after_cut(log: bytes, rng: random.Random) -> tuple[bytes, int]:
    """The file after a power cut at the end of this log; and how many sectors of it never reached the disk."""
    file, waiting, synced = bytearray(), list[Record](), 0
    for record in records(log):
        if record.kind in (b"W", b"P"):
            waiting.append(record)
        elif record.kind == b"S":
            synced = len(waiting)
        elif record.kind == b"E":
            for one in waiting[:synced]:
                _put(file, one.offset, one.data)
            del waiting[:synced]
            synced = 0
        elif record.kind == b"Q":
            last = max(index for index, one in enumerate(waiting) if one.kind == b"P")
            one = waiting.pop(last)
            synced -= last < synced
            _put(file, one.offset, one.data)
    lost = 0
    pieces = [piece for one in waiting for piece in _sectors(one)]
    rng.shuffle(pieces)
    for offset, data in pieces:
        if rng.getrandbits(1):
            _put(file, offset, data)
        else:
            lost += 1
    return bytes(file), lost


def _sectors(record: Record) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(record.data):
        room = SECTOR_BYTES - (record.offset + at) % SECTOR_BYTES
        yield record.offset + at, record.data[at : at + room]
        at += room


def _put(file: bytearray, offset: int, data: bytes) -> None:
    if len(file) < offset + len(data):
        file.extend(bytes(offset + len(data) - len(file)))
    file[offset : offset + len(data)] = data
