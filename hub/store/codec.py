"""How a record becomes bytes and is checked when it is read back.

Theory. Disks and people flip bits, and LMDB has no checksum of its own. So each record is `tag crc body`: a byte that
names the type and the version of its schema, a CRC-32 over tag and body, and the body in msgpack. A value that does
not check is refused with DataLoss; it is never served. Fields travel by name and a field that has its default is left
out, so a new field with a default needs no migration, and an old hub skips what it does not know. What does need a
step in migrate.py: renaming a field, changing its type or its default.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, Generic, TypeVar

import msgspec

from hub.core.agent import Agent
from hub.core.change import Change
from hub.core.event import Event
from hub.core.goal import Goal, Plan
from hub.core.repo import Repo
from hub.core.task import Attempt, Requirement, Task, TaskSpec
from hub.core.token import Token
from hub.store.base import Answer
from kit import errors

R = TypeVar("R")

HEADER_BYTES: Final = 5
VERSION_BITS: Final = 3
_header: Final = struct.Struct(">BI").pack
_read_header: Final = struct.Struct(">BI").unpack_from
# Encoders keep no state between calls: one serves the writer's thread and the event loop's.
_encode: Final = msgspec.msgpack.Encoder().encode


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """What is written once a commit: the counts of tasks, and the head of the event chain."""

    position: int = 0
    hash: bytes = b""
    counts: dict[int, int] = {}
    """By `state << 4 | lane`; see ordered.py."""


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The newest event that is not kept any more: what the oldest kept one is chained to."""

    position: int = 0
    hash: bytes = b""


def seal(tag: int, body: bytes) -> bytes:
    """The record with its header."""
    return _header(tag, zlib.crc32(body, tag)) + body


def unseal(tag: int, raw: bytes, key: bytes) -> bytes:
    """The body of a record. Raises DataLoss when its type, version or checksum is not right."""
    if len(raw) < HEADER_BYTES:
        raise corrupt(key, "is cut short")
    found, crc = _read_header(raw)
    body = raw[HEADER_BYTES:]
    if zlib.crc32(body, found) != crc:
        raise corrupt(key, "does not match its checksum")
    if found != tag:
        raise corrupt(key, f"has tag {found}, expected {tag}")
    return body


def corrupt(key: bytes, what: str) -> errors.DataLoss:
    """The problem of a stored record that cannot be used."""
    return errors.DataLoss(f"stored record {key!r} {what}", reason="STORE_CORRUPT", metadata={"key": key.hex()})


class Codec(Generic[R]):
    """Writes and reads records of one type."""

    def __init__(self, number: int, version: int, kind: type[R]) -> None:
        assert 0 < version < 1 << VERSION_BITS
        assert number << VERSION_BITS < 256
        self.tag = number << VERSION_BITS | version
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def encode(self, record: R) -> bytes:
        """The record as bytes."""
        body = _encode(record)
        tag = self.tag
        return _header(tag, zlib.crc32(body, tag)) + body

    def decode(self, raw: bytes, key: bytes) -> R:
        """The record. Raises DataLoss when it is damaged or of an unknown version."""
        body = unseal(self.tag, raw, key)
        try:
            return self._decode(body)
        except (msgspec.MsgspecError, ValueError) as cause:
            raise corrupt(key, f"cannot be decoded: {cause}") from cause


# The numbers are on disk: never change one, never use one again.
TASK: Final = Codec(1, 1, Task)
SPEC: Final = Codec(2, 1, TaskSpec)
ATTEMPT: Final = Codec(3, 1, Attempt)
AGENT: Final = Codec(4, 1, Agent)
GOAL: Final = Codec(5, 1, Goal)
PLAN: Final = Codec(6, 1, Plan)
CHANGE: Final = Codec(7, 1, Change)
REPO: Final = Codec(8, 1, Repo)
TOKEN: Final = Codec(9, 1, Token)
CLASS: Final = Codec(10, 1, Requirement)
ANSWER: Final = Codec(11, 1, Answer)
EVENT: Final = Codec(12, 1, Event)
COMMIT: Final = Codec(13, 1, Commit)
CONTENT_TAG: Final = 14 << VERSION_BITS | 1
"""Plain bytes: artefacts and small facts."""
ANCHOR: Final = Codec(15, 1, Anchor)


def encode_body(value: object) -> bytes:
    """A value as msgpack without a header; chain.py hashes it before it is sealed."""
    return _encode(value)
