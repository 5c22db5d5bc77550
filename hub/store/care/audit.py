"""The audit of a store: every record decoded, every index entry against its record and back, the counts, the chain.

Theory. Records and indexes are compared both ways: each record must have its entries, and each entry its record. Both
sides are read in chunks, each on a snapshot of its own, so that the audit of a store at work holds back no page for
long; what is compared within a chunk is of one moment. Counts and the index by state are compared in one snapshot for
each state and lane, by keys alone. A damaged record is told and passed by; only a tree that cannot be walked ends a
list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from hub.core.diagnosis import Findings
from hub.core.event import Event
from hub.core.task import Lane, State, TaskSpec
from hub.store import chain, codec, index, keys
from hub.store.base import Ended
from hub.store.ordered import ReadOrdered, walk
from hub.store.reader import OrderedReader
from kit import errors

T = TypeVar("T")

CHUNK: Final = 500
"""Records compared on one snapshot: a few milliseconds."""

PROBLEMS_MAX: Final = 100
"""Problems told, as the contract promises; a store with more is not mended by reading on."""

EVENTS_MAX: Final = 1 << 62
_SEP: Final = b"\0"


class Read(Protocol):
    """Runs a function on a snapshot."""

    def __call__(self, fn: Callable[[OrderedReader], T], /) -> T: ...


class Audit:
    """One reading of one store."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._records = 0
        self._entries = 0
        self._events = 0
        self._problems: list[str] = []

    def run(self) -> Findings:
        """Read everything; may take minutes."""
        self._try(self._meta)
        for prefix in self._prefixes():
            if prefix in _RECORDS:
                self._list(prefix, _RECORDS[prefix], entries=False)
            elif prefix in _ENTRIES:
                self._list(prefix, _ENTRIES[prefix], entries=True)
            elif prefix != keys.SCHEMA[:1]:
                self._tell(f"there are keys of an unknown sort, {prefix!r}")
        self._try(self._counts)
        self._try(self._chain)
        return Findings(self._records, self._entries, self._events, tuple(self._problems))

    def _prefixes(self) -> Iterator[bytes]:
        """The first byte of every sort of key that there is."""
        low: bytes | None = b"\0"
        while low is not None:
            try:
                found = self._read(lambda reader, low=low: reader.kv.keys(low, b"\xff", 1))  # type: ignore[misc]  # mypy cannot infer a default
            except errors.DataLoss as problem:
                self._tell(problem.message)
                return
            if found:
                yield found[0][:1]
            low = keys.end(found[0][:1]) if found else None

    def _list(self, prefix: bytes, check: Callable[..., None], *, entries: bool) -> None:
        low, high = prefix, keys.end(prefix)
        while low and len(self._problems) < PROBLEMS_MAX:
            try:
                low = self._read(partial(self._chunk, low=low, high=high, check=check, entries=entries))
            except errors.DataLoss as problem:
                self._tell(f"the list {prefix!r} cannot be read on: {problem.message}")
                return

    def _chunk(
        self, reader: OrderedReader, *, low: bytes, high: bytes, check: Callable[..., None], entries: bool
    ) -> bytes:
        """Compare some; where the next ones begin, empty at the end."""
        found = reader.kv.items(low, high, CHUNK)
        for key, raw in found:
            try:
                check(reader.kv, key, raw)
            except errors.DataLoss as problem:
                self._tell(problem.message)
            except (ValueError, IndexError, UnicodeDecodeError):
                self._tell(f"key {key!r} cannot be read")
        if entries:
            self._entries += len(found)
        else:
            self._records += len(found)
        return found[-1][0] + _SEP if len(found) == CHUNK else b""

    def _meta(self) -> None:
        if self._read(lambda reader: reader.kv.get(keys.SCHEMA)) is None:
            self._tell("the schema version is missing")
        self._read(lambda reader: reader.head())
        self._records += 1

    def _counts(self) -> None:
        for state in State:
            for lane in Lane:
                stored, found = self._read(partial(_count, state=state, lane=lane))
                if stored != found:
                    self._tell(f"{found} tasks are {state.name} in lane {lane.name}, the newest commit says {stored}")

    def _chain(self) -> None:
        self._events = chain.verify(self._read, 0, EVENTS_MAX)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except errors.DataLoss as problem:
            self._tell(problem.message)

    def _tell(self, problem: str) -> None:
        # A damaged record is met again by each of its index entries.
        if len(self._problems) < PROBLEMS_MAX and problem not in self._problems:
            self._problems.append(problem)


def _count(reader: OrderedReader, state: State, lane: Lane) -> tuple[int, int]:
    low = keys.by_state(state, lane)
    return reader.counts().get((state, lane), 0), sum(1 for _ in walk(reader.kv, low, keys.end(low)))


# Records: each must be readable, named as its key says, and have its index entries.


def _must(kv: ReadOrdered, entries: Iterable[bytes], key: bytes) -> None:
    for entry in entries:
        if kv.get(entry) is None:
            raise codec.corrupt(key, f"lacks its index entry {entry!r}")


def _task(kv: ReadOrdered, key: bytes, raw: bytes) -> None:
    task = codec.TASK.decode(raw, key)
    _named(key, keys.named(keys.TASK, task.id))
    _must(kv, index.of_task(task), key)
    if kv.get(keys.named(keys.SPEC, task.id)) is None:
        raise codec.corrupt(key, "lacks its contract")


def _spec(kv: ReadOrdered, key: bytes, raw: bytes) -> None:
    spec, id = codec.SPEC.decode(raw, key), key[1:]
    if kv.get(keys.TASK + id) is None:
        raise codec.corrupt(key, "is the contract of no task")
    _must(kv, (keys.dependants(one) + id for one in spec.depends_on), key)


def _attempt(kv: ReadOrdered, key: bytes, raw: bytes) -> None:
    attempt = codec.ATTEMPT.decode(raw, key)
    _named(key, keys.attempt(attempt.task, attempt.generation))
    _owned(kv, key, attempt.task.encode())


def _artifact(kv: ReadOrdered, key: bytes, raw: bytes) -> None:
    codec.unseal(codec.CONTENT_TAG, raw, key)
    _owned(kv, key, key[1 : key.index(_SEP)])


def _owned(kv: ReadOrdered, key: bytes, task: bytes) -> None:
    if kv.get(keys.TASK + task) is None:
        raise codec.corrupt(key, "belongs to no task")


def _table(kind: index.Kind[Any]) -> Callable[..., None]:
    def check(kv: ReadOrdered, key: bytes, raw: bytes) -> None:
        record = kind.codec.decode(raw, key)
        _named(key, keys.named(kind.prefix, kind.id_of(record)))
        _must(kv, kind.entries(record) if kind.entries is not None else (), key)

    return check


def _class(_kv: ReadOrdered, key: bytes, raw: bytes) -> None:
    codec.CLASS.decode(raw, key)


def _answer(kv: ReadOrdered, key: bytes, raw: bytes) -> None:
    _must(kv, (keys.answer_expiry(codec.ANSWER.decode(raw, key).expires_at, key),), key)


def _fact(_kv: ReadOrdered, key: bytes, raw: bytes) -> None:
    codec.unseal(codec.CONTENT_TAG, raw, key)


def _event(kv: ReadOrdered, key: bytes, raw: bytes) -> None:
    event = codec.EVENT.decode(raw, key)
    _named(key, keys.event(event.position))
    _must(kv, (keys.event_of(subject, event.position) for subject in _subjects(event)), key)


def _subjects(event: Event) -> set[str]:
    return {event.subject, f"goals/{event.goal}"} if event.goal else {event.subject}


def _named(key: bytes, name: bytes) -> None:
    if key != name:
        raise codec.corrupt(key, f"holds the record of {name!r}")


# Index entries: each must have a record that has it.


def _after_separator(key: bytes) -> int:
    return key.index(_SEP) + 1


def _after_time(_key: bytes) -> int:
    return keys.ENDED_AT + 8


def _of_task(offset: Callable[[bytes], int]) -> Callable[..., None]:
    """An entry whose key ends in the id of a task."""

    def check(kv: ReadOrdered, key: bytes, _raw: bytes) -> None:
        name = keys.TASK + key[offset(key) :]
        raw = kv.get(name)
        if raw is None or key not in index.of_task(codec.TASK.decode(raw, name)):
            raise _stray(key)

    return check


def _of_table(kind: index.Kind[Any], offset: Callable[[bytes], int]) -> Callable[..., None]:
    """An entry whose key ends in the id of a record of a table."""

    def check(kv: ReadOrdered, key: bytes, _raw: bytes) -> None:
        name = kind.prefix + key[offset(key) :]
        raw = kv.get(name)
        if raw is None or kind.entries is None or key not in kind.entries(kind.codec.decode(raw, name)):
            raise _stray(key)

    return check


def _ended(kv: ReadOrdered, key: bytes, raw: bytes) -> None:
    sort = Ended(key[keys.ENDED_AT - 1])
    if sort in (Ended.TASK, Ended.DEAD_TASK):
        return _of_task(_after_time)(kv, key, raw)
    kind: index.Kind[Any] = (
        index.CHANGES if sort is Ended.CHANGE else index.TOKENS if sort is Ended.TOKEN else index.GOALS
    )
    return _of_table(kind, _after_time)(kv, key, raw)


def _dependant(kv: ReadOrdered, key: bytes, _raw: bytes) -> None:
    at = key.index(_SEP)
    name = keys.SPEC + key[at + 1 :]
    raw = kv.get(name)
    spec: TaskSpec | None = codec.SPEC.decode(raw, name) if raw is not None else None
    if spec is None or key[1:at].decode() not in spec.depends_on:
        raise _stray(key)


def _expiry(kv: ReadOrdered, key: bytes, _raw: bytes) -> None:
    name = key[9:]
    raw = kv.get(name)
    if raw is None or keys.answer_expiry(codec.ANSWER.decode(raw, name).expires_at, name) != key:
        raise _stray(key)


def _event_of(kv: ReadOrdered, key: bytes, _raw: bytes) -> None:
    name = keys.EVENT + key[-8:]
    raw = kv.get(name)
    if raw is None or key[1:-9].decode() not in _subjects(codec.EVENT.decode(raw, name)):
        raise _stray(key)


def _stray(key: bytes) -> errors.DataLoss:
    return codec.corrupt(key, "is an index entry without its record")


_RECORDS: Final[dict[bytes, Callable[..., None]]] = {
    keys.TASK: _task,
    keys.SPEC: _spec,
    keys.ATTEMPT: _attempt,
    keys.ARTIFACT: _artifact,
    keys.CLASS: _class,
    keys.ANSWER: _answer,
    keys.META: _fact,
    keys.EVENT: _event,
    **{
        kind.prefix: _table(kind)
        for kind in (index.AGENTS, index.GOALS, index.PLANS, index.CHANGES, index.REPOS, index.TOKENS)
    },
}

_ENTRIES: Final[dict[bytes, Callable[..., None]]] = {
    keys.BY_STATE: _of_task(lambda _: 3),
    keys.READY: _of_task(lambda _: keys.READY_AT + 8),
    keys.DUE: _of_task(lambda _: 9),
    keys.HELD: _of_task(_after_separator),
    keys.OF_GOAL: _of_task(_after_separator),
    keys.DEPENDANT: _dependant,
    keys.TRAIN: _of_table(index.CHANGES, _after_separator),
    keys.TOKEN_HASH: _of_table(index.TOKENS, _after_separator),
    keys.ENDED: _ended,
    keys.ANSWER_EXPIRY: _expiry,
    keys.EVENT_OF: _event_of,
}
