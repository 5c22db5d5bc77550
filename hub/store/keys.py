"""Where everything stands: one ordered key space, one named prefix byte for each sort of record and index.

Theory. A store is one sorted map from bytes to bytes, so the order of a list is the order of its keys. Numbers are
big-endian and of fixed width, times are microseconds in 64 bits, so that byte order is the order of the domain. Ids
are ASCII and never contain NUL; where an id of free length is followed by something, NUL ends it. Lower-case and
upper-case prefixes hold records; index entries have empty values: all that they say is in their key, and what follows
the prefix of a list is the id of what it lists. One map and not one per list: the pages of a commit then share their
upper levels.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

from hub.core.task import Lane, State

# Records.
SCHEMA: Final = b"!schema"
"""The one key that every version can read; see migrate.py."""
COMMIT: Final = b"!commit"
ANCHOR: Final = b"!anchor"
META: Final = b"m"
TASK: Final = b"T"
SPEC: Final = b"S"
ATTEMPT: Final = b"A"
ARTIFACT: Final = b"F"
AGENT: Final = b"a"
GOAL: Final = b"g"
PLAN: Final = b"p"
CHANGE: Final = b"c"
REPO: Final = b"r"
TOKEN: Final = b"t"
CLASS: Final = b"k"
ANSWER: Final = b"q"
EVENT: Final = b"e"

# Index entries.
BY_STATE: Final = b"s"
READY: Final = b"R"
DUE: Final = b"D"
HELD: Final = b"H"
OF_GOAL: Final = b"G"
DEPENDANT: Final = b"W"
TRAIN: Final = b"M"
TOKEN_HASH: Final = b"h"
ANSWER_EXPIRY: Final = b"x"
EVENT_OF: Final = b"E"
ENDED: Final = b"z"

KEY_BYTES_MAX: Final = 511
"""What LMDB's file format holds."""

US_PER_S: Final = 1_000_000
_NUL: Final = b"\0"

_u32: Final = struct.Struct(">I").pack
_u64: Final = struct.Struct(">Q").pack
_class_lane: Final = struct.Struct(">cIB").pack
_class_lane_at: Final = struct.Struct(">cIBQ").pack
_state_lane: Final = struct.Struct(">cBB").pack
_prefix_u64: Final = struct.Struct(">cQ").pack
_sort_at: Final = struct.Struct(">cBQ").pack
_read_u64: Final = struct.Struct(">Q").unpack_from

_STATE_LANE: Final = {(state, lane): _state_lane(BY_STATE, state, lane) for state in State for lane in Lane}

GENERATION_MAX: Final = 2**32 - 1
"""What a key holds; a task that is tried once a second gets there in 136 years."""

READY_AT: Final = 6
"""Offset of the time in a key of the ready index: prefix, class, lane."""
ENDED_AT: Final = 2
"""Offset of the time in a key of the index of what has ended: prefix, sort."""


def end(prefix: bytes) -> bytes:
    """The first key behind all keys that begin with `prefix`."""
    body = prefix.rstrip(b"\xff")
    return body[:-1] + bytes((body[-1] + 1,))


def microseconds(at: float) -> int:
    """A time as the number that keys hold; times before the epoch are the epoch."""
    return max(0, round(at * US_PER_S))


def seconds(number: int) -> float:
    """The way back; within half a microsecond of what was put in, and `microseconds` of it is `number` again."""
    return number / US_PER_S


def number_at(key: bytes, offset: int) -> int:
    """The 64-bit number at this offset of a key."""
    value: int = _read_u64(key, offset)[0]
    return value


def named(prefix: bytes, id: str) -> bytes:
    """The record with this id."""
    return prefix + id.encode()


def meta(key: str) -> bytes:
    """A small fact."""
    return META + key.encode()


def attempt(task: str, generation: int) -> bytes:
    """One try."""
    return ATTEMPT + task.encode() + _NUL + _u32(generation)


def attempts(task: str) -> bytes:
    """Prefix of all tries of a task."""
    return ATTEMPT + task.encode() + _NUL


def artifact(task: str, generation: int, id: str) -> bytes:
    """The content of one artefact."""
    return ARTIFACT + task.encode() + _NUL + _u32(generation) + id.encode()


def artifacts(task: str) -> bytes:
    """Prefix of all artefacts of a task."""
    return ARTIFACT + task.encode() + _NUL


def task_class(id: int) -> bytes:
    """The requirement of a class."""
    return CLASS + _u32(id)


def by_state(state: State, lane: Lane) -> bytes:
    """Prefix of the tasks in this state and lane."""
    return _STATE_LANE[state, lane]


def ready(class_id: int, lane: Lane) -> bytes:
    """Prefix of the tasks of this class and lane that wait for an agent."""
    return _class_lane(READY, class_id, lane)


def ready_entry(class_id: int, lane: Lane, queued_at: float, task: str) -> bytes:
    """One of them."""
    return _class_lane_at(READY, class_id, lane, microseconds(queued_at)) + task.encode()


def due(at: float) -> bytes:
    """Prefix of the tasks that the sweep looks at at this time."""
    return _prefix_u64(DUE, microseconds(at))


def held(agent: str) -> bytes:
    """Prefix of the tasks that this agent has."""
    return HELD + agent.encode() + _NUL


def of_goal(goal: str) -> bytes:
    """Prefix of the tasks of this goal."""
    return OF_GOAL + goal.encode() + _NUL


def dependants(task: str) -> bytes:
    """Prefix of the tasks that wait for this one."""
    return DEPENDANT + task.encode() + _NUL


def train(repo: str) -> bytes:
    """Prefix of the changes of this repo that are to be merged."""
    return TRAIN + repo.encode() + _NUL


def token_hash(secret_sha256: str) -> bytes:
    """Prefix of the token with this hash."""
    return TOKEN_HASH + secret_sha256.encode() + _NUL


def answer(principal: str, method: str, request_id: str) -> bytes:
    """What a request id was answered with. Hashed: callers choose the parts, and a key has a bound."""
    return ANSWER + blake2b(f"{principal}\0{method}\0{request_id}".encode(), digest_size=16).digest()


def answer_expiry(expires_at: float, answer_key: bytes) -> bytes:
    """Where the sweep finds an answer when its window has passed; its key follows the time."""
    return _prefix_u64(ANSWER_EXPIRY, microseconds(expires_at)) + answer_key


def ended(sort: int, at: float) -> bytes:
    """Prefix of what is of this sort and ended at this time."""
    return _sort_at(ENDED, sort, microseconds(at))


def ended_sort(sort: int) -> bytes:
    """Prefix of all that has ended and is of this sort."""
    return ENDED + bytes((sort,))


def answers_until(now: float) -> bytes:
    """The first key behind the answers whose window has passed."""
    return end(_prefix_u64(ANSWER_EXPIRY, microseconds(now)))


def event(position: int) -> bytes:
    """The event at this position."""
    return _prefix_u64(EVENT, position)


def events_of(subject: str) -> bytes:
    """Prefix of the positions of the events of this resource name."""
    return EVENT_OF + subject.encode() + _NUL


def event_of(subject: str, position: int) -> bytes:
    """One of them."""
    return EVENT_OF + subject.encode() + _NUL + _u64(position)
