"""The journal's records and frames: bytes that say themselves whether they are whole.

A frame is magic, length, a check of the head, a check of the body, and the body. The head's check includes the frame's
place in the file, so that bytes of a journal that an agent printed into an artefact are never taken for frames.
A reader passes over what does not check and looks for the next frame that does: a torn tail costs the torn record, a
flipped bit costs the record it hit, and no byte that was not written is ever believed. Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

import msgspec

from kit import errors
from sidecar.core.assignment import Assignment, Done, Holding, NotDone, Outcome

MAGIC = b"\xa5AJ\x01"
_HEAD = struct.Struct(">4sII")  # magic, length of the body, check of place and length
_BODY = struct.Struct(">I")  # check of the body
OVERHEAD_BYTES = _HEAD.size + _BODY.size
#: A body: eight artefacts of 256 KiB and a hundred receipts fit four times over. More is not a record of ours.
BODY_BYTES_MAX = 16 * 1024 * 1024


class Given(msgspec.Struct, frozen=True, tag="given"):
    """An assignment that was taken. Written before the hub is told so; one that is refused is never written."""

    assignment: Assignment


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """An outcome that is to be told. Written before it is told."""

    holding: Holding
    outcome: Done | NotDone


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """Nothing is left to say: the hub acked the outcome, or wants to hear no more of it."""

    holding: Holding
    reason: str


Record = Given | Ended | Closed
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


@dataclass(frozen=True, slots=True)
class Open:
    """What a dead process leaves to do: recover (no outcome), or tell (an outcome)."""

    holding: Holding
    #: None: its record is damaged.
    assignment: Assignment | None
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Scan:
    """What a file holds."""

    records: list[Record]
    #: Where whole frames end: what is behind is a torn tail.
    end: int
    #: Bytes between whole frames that check as nothing.
    damaged_bytes: int


def encode(record: Record) -> bytes:
    """A record's body. Raises Invalid when it holds text that is not Unicode."""
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError as error:
        raise errors.Invalid(f"a record cannot be written: {error}", reason="BAD_RECORD") from error


def frame(body: bytes, place: int) -> bytes:
    """The bytes that stand at `place` in the file."""
    assert 0 < len(body) <= BODY_BYTES_MAX
    head = struct.pack(">QI", place, len(body))
    return _HEAD.pack(MAGIC, len(body), zlib.crc32(head)) + _BODY.pack(zlib.crc32(body)) + body


def scan(data: bytes) -> Scan:
    """Everything in `data` that checks, in order."""
    records: list[Record] = []
    position = end = damaged = 0
    while True:
        position = data.find(MAGIC, position)
        if position < 0:
            break
        body = _body(data, position)
        record = None if body is None else _decoded(body)
        if body is None or record is None:
            position += 1
            continue
        records.append(record)
        damaged += position - end
        position = end = position + OVERHEAD_BYTES + len(body)
    return Scan(records, end, damaged)


def still_open(records: Iterable[Record]) -> list[Open]:
    """What is left to do after these records, oldest first."""
    left: dict[Holding, Open] = {}
    for record in records:
        apply(left, record)
    return list(left.values())


def apply(left: dict[Holding, Open], record: Record) -> None:
    """Count one more record."""
    match record:
        case Given():
            holding = record.assignment.holding
            left[holding] = Open(holding, record.assignment, None)
        case Ended():
            known = left.get(record.holding)
            left[record.holding] = Open(record.holding, None if known is None else known.assignment, record.outcome)
        case Closed():
            left.pop(record.holding, None)
        case _:
            assert_never(record)


def records_of(entry: Open) -> list[Record]:
    """The fewest records that say the same."""
    records: list[Record] = []
    if entry.assignment is not None:
        records.append(Given(entry.assignment))
    if entry.outcome is not None:
        records.append(Ended(entry.holding, entry.outcome))
    return records


def _body(data: bytes, position: int) -> bytes | None:
    if position + OVERHEAD_BYTES > len(data):
        return None
    _, length, head_check = _HEAD.unpack_from(data, position)
    if length == 0 or length > BODY_BYTES_MAX or head_check != zlib.crc32(struct.pack(">QI", position, length)):
        return None
    (body_check,) = _BODY.unpack_from(data, position + _HEAD.size)
    body = data[position + OVERHEAD_BYTES : position + OVERHEAD_BYTES + length]
    return body if len(body) == length and zlib.crc32(body) == body_check else None


def _decoded(body: bytes) -> Record | None:
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError:  # written by another version: its holding is told as lost by the hub's own rules
        return None
