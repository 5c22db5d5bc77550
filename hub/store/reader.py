"""The snapshot in the verbs of the domain, over any sorted map.

Theory. Lists come from an index whose keys end in the id, so a page is a seek and a walk, and its cost does not grow
with what is stored. Only the records of the page are decoded. An entry without its record means a damaged store:
DataLoss.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar

from hub.core.agent import Agent
from hub.core.change import Change
from hub.core.event import GENESIS, Event
from hub.core.goal import Goal, Plan
from hub.core.repo import Repo
from hub.core.task import Attempt, Lane, Requirement, State, Task, TaskSpec
from hub.core.token import Token
from hub.store import codec, index, keys
from hub.store.base import Answer, Ended, EndedOne, ReadTable, ReadyHead, TaskClass
from hub.store.ordered import ReadOrdered, walk

R = TypeVar("R")

CLASS_COUNT_MAX: Final = 10_000
"""Distinct requirements of the tasks that one hub remembers. A fleet has tens; who invents capabilities must not fill
the dispatcher."""

_NO_COMMIT: Final = codec.Commit(hash=GENESIS)
_NO_ANCHOR: Final = codec.Anchor(hash=GENESIS)
_LANES: Final = tuple(Lane)


class Classes:
    """The classes that one side of a store knows. They are numbered without a gap, so what is missing is read behind
    the newest one known. What was read once holds until the writer gives a number, whose tasks are all gone, to
    another requirement: then it says so (`distrust`)."""

    def __init__(self) -> None:
        #: None: to be read again.
        self.known: list[TaskClass | None] = []
        self.numbers: dict[Requirement, int] = {}

    def get(self, kv: ReadOrdered, number: int) -> TaskClass | None:
        """A class by its number."""
        if number > len(self.known) and not (self.refresh(kv) and number <= len(self.known)):
            return None
        if number <= 0:
            return None
        found = self.known[number - 1]
        if found is None:
            key = keys.task_class(number)
            raw = kv.get(key)
            if raw is None:
                raise codec.corrupt(key, "is missing among the classes")
            found = self.replace(number, codec.CLASS.decode(raw, key))
        return found

    def all(self, kv: ReadOrdered) -> list[TaskClass]:
        """Every class."""
        self.refresh(kv)
        return [found or self._again(kv, index + 1) for index, found in enumerate(self.known)]

    def _again(self, kv: ReadOrdered, number: int) -> TaskClass:
        found = self.get(kv, number)
        assert found is not None
        return found

    def replace(self, number: int, requirement: Requirement) -> TaskClass:
        """This number is another requirement's now."""
        self._drop(number)
        found = self.known[number - 1] = TaskClass(number, requirement)
        self.numbers[requirement] = number
        return found

    def distrust(self, numbers: deque[int]) -> None:
        """Read these again when they are asked for next, from a snapshot that begins later; empties the queue."""
        while numbers:
            number = numbers.popleft()
            if number <= len(self.known):
                self._drop(number)

    def _drop(self, number: int) -> None:
        found, self.known[number - 1] = self.known[number - 1], None
        if found is not None and self.numbers.get(found.requirement) == number:
            del self.numbers[found.requirement]

    def refresh(self, kv: ReadOrdered) -> bool:
        """Read those behind the newest one known; were there any?"""
        before = len(self.known)
        first = keys.task_class(before + 1)
        for key, raw in kv.items(first, keys.end(keys.CLASS), CLASS_COUNT_MAX):
            self.add(codec.CLASS.decode(raw, key))
        return len(self.known) > before

    def add(self, requirement: Requirement) -> int:
        """Know one more; its number."""
        number = len(self.known) + 1
        self.known.append(TaskClass(number, requirement))
        self.numbers[requirement] = number
        return number

    def truncate(self, count: int) -> None:
        """Forget what was added behind the first `count`: it was rolled back."""
        while len(self.known) > count:
            self._drop(len(self.known))
            self.known.pop()


class ReadRecords(Generic[R]):
    """Records of one type by their id."""

    def __init__(self, kv: ReadOrdered, kind: index.Kind[R]) -> None:
        self._kv = kv
        self._kind = kind

    def get(self, id: str) -> R | None:
        """The record; None when there is none."""
        key = self._kind.prefix + id.encode()
        raw = self._kv.get(key)
        return None if raw is None else self._kind.codec.decode(raw, key)

    def page(self, *, after: str = "", limit: int, reverse: bool = False) -> list[R]:
        """Records in the order of their ids, beginning behind `after`."""
        low, high = page_range(self._kind.prefix, after, reverse)
        decode = self._kind.codec.decode
        return [decode(raw, key) for key, raw in self._kv.items(low, high, limit, reverse=reverse)]


class OrderedReader:
    """`base.Reader` over a sorted map."""

    def __init__(self, kv: ReadOrdered, classes: Classes) -> None:
        self.kv = kv
        self._classes = classes

    @property
    def agents(self) -> ReadTable[Agent]:
        return ReadRecords(self.kv, index.AGENTS)

    @property
    def goals(self) -> ReadTable[Goal]:
        return ReadRecords(self.kv, index.GOALS)

    @property
    def plans(self) -> ReadTable[Plan]:
        return ReadRecords(self.kv, index.PLANS)

    @property
    def changes(self) -> ReadTable[Change]:
        return ReadRecords(self.kv, index.CHANGES)

    @property
    def repos(self) -> ReadTable[Repo]:
        return ReadRecords(self.kv, index.REPOS)

    @property
    def tokens(self) -> ReadTable[Token]:
        return ReadRecords(self.kv, index.TOKENS)

    def task(self, id: str) -> Task | None:
        key = keys.TASK + id.encode()
        raw = self.kv.get(key)
        return None if raw is None else codec.TASK.decode(raw, key)

    def spec(self, id: str) -> TaskSpec | None:
        key = keys.SPEC + id.encode()
        raw = self.kv.get(key)
        return None if raw is None else codec.SPEC.decode(raw, key)

    def tasks(self, *, after: str = "", limit: int, reverse: bool = False) -> list[Task]:
        low, high = page_range(keys.TASK, after, reverse)
        return [codec.TASK.decode(raw, key) for key, raw in self.kv.items(low, high, limit, reverse=reverse)]

    def tasks_in(
        self, states: Iterable[State], lanes: Iterable[Lane], *, after: str = "", limit: int, reverse: bool = False
    ) -> list[Task]:
        lanes = frozenset(lanes)
        lists = [
            self._ids(keys.by_state(state, lane), after, reverse=reverse)
            for state in frozenset(states)
            for lane in lanes
        ]
        return [self._indexed(id) for id in itertools.islice(heapq.merge(*lists, reverse=reverse), limit)]

    def tasks_of_goal(self, goal: str, *, after: str = "", limit: int, reverse: bool = False) -> list[Task]:
        ids = self._ids(keys.of_goal(goal), after, reverse=reverse)
        return [self._indexed(id) for id in itertools.islice(ids, limit)]

    def held_by(self, agent: str) -> list[Task]:
        return [self._indexed(id) for id in self._ids(keys.held(agent))]

    def dependants(self, task: str, *, after: str = "", limit: int) -> list[str]:
        return list(itertools.islice(self._ids(keys.dependants(task), after), limit))

    def due(self, now: float, limit: int) -> list[str]:
        found = self.kv.keys(keys.DUE, keys.end(keys.due(now)), limit)
        return [key[9:].decode() for key in found]

    def next_due(self) -> float | None:
        found = self.kv.keys(keys.DUE, keys.end(keys.DUE), 1)
        return keys.seconds(keys.number_at(found[0], 1)) if found else None

    def attempt(self, task: str, generation: int) -> Attempt | None:
        if not 0 <= generation <= keys.GENERATION_MAX:  # a caller may ask for any
            return None
        key = keys.attempt(task, generation)
        raw = self.kv.get(key)
        return None if raw is None else codec.ATTEMPT.decode(raw, key)

    def attempts(self, task: str, *, limit: int = 1000) -> list[Attempt]:
        low = keys.attempts(task)
        return [codec.ATTEMPT.decode(raw, key) for key, raw in self.kv.items(low, keys.end(low), limit)]

    def artifact(self, task: str, generation: int, id: str) -> bytes | None:
        known = 0 <= generation <= keys.GENERATION_MAX
        return self._content(keys.artifact(task, generation, id)) if known else None

    def counts(self) -> dict[tuple[State, Lane], int]:
        return readable_counts(self.head().counts)

    def task_class(self, class_id: int) -> TaskClass | None:
        return self._classes.get(self.kv, class_id)

    def class_of(self, requirement: Requirement) -> int | None:
        number = self._classes.numbers.get(requirement)
        if number is None and self._classes.refresh(self.kv):
            number = self._classes.numbers.get(requirement)
        return number

    def classes(self) -> list[TaskClass]:
        return self._classes.all(self.kv)

    def ready_heads(self, class_id: int) -> list[ReadyHead]:
        return [head for lane in _LANES for head in self.ready(class_id, lane, limit=1)]

    def ready(
        self, class_id: int, lane: Lane, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[ReadyHead]:
        low = keys.ready(class_id, lane)
        high = keys.end(low)
        if after is not None:
            low = keys.ready_entry(class_id, lane, *after) + b"\0"
        at = keys.READY_AT
        return [
            ReadyHead(class_id, lane, keys.seconds(keys.number_at(key, at)), key[at + 8 :].decode())
            for key in self.kv.keys(low, high, limit)
        ]

    def train(self, repo: str, limit: int) -> list[Change]:
        found = []
        for id in itertools.islice(self._ids(keys.train(repo)), limit):
            change = self.changes.get(id)
            if change is None:
                raise codec.corrupt(keys.named(keys.CHANGE, id), "is missing, but listed")
            found.append(change)
        return found

    def token_by_hash(self, secret_sha256: str) -> Token | None:
        for id in itertools.islice(self._ids(keys.token_hash(secret_sha256)), 1):
            return self.tokens.get(id)
        return None

    def answer(self, principal: str, method: str, request_id: str) -> Answer | None:
        key = keys.answer(principal, method, request_id)
        raw = self.kv.get(key)
        return None if raw is None else codec.ANSWER.decode(raw, key)

    def answer_passed(self, now: float) -> bool:
        return bool(self.kv.keys(keys.ANSWER_EXPIRY, keys.answers_until(now), 1))

    def ended(self, sort: Ended, *, until: float, after: EndedOne | None = None, limit: int) -> list[EndedOne]:
        low = keys.ended_sort(sort) if after is None else keys.ended(sort, after.at) + after.id.encode() + b"\0"
        found = self.kv.keys(low, keys.end(keys.ended(sort, until)), limit)
        at = keys.ENDED_AT
        return [EndedOne(keys.seconds(keys.number_at(key, at)), key[at + 8 :].decode()) for key in found]

    def events(self, *, after: int, limit: int) -> list[Event]:
        found = self.kv.items(keys.event(after + 1), keys.end(keys.EVENT), limit)
        return [codec.EVENT.decode(raw, key) for key, raw in found]

    def events_of(self, subject: str, *, after: int = 0, limit: int) -> list[Event]:
        high = keys.end(keys.events_of(subject))
        found = []
        for entry in self.kv.keys(keys.event_of(subject, after + 1), high, limit):
            key = keys.EVENT + entry[-8:]
            raw = self.kv.get(key)
            if raw is None:
                raise codec.corrupt(key, "is missing, but listed")
            found.append(codec.EVENT.decode(raw, key))
        return found

    def position(self) -> int:
        return self.head().position

    def position_gone(self) -> int:
        return self.anchor().position

    def meta(self, key: str) -> bytes | None:
        return self._content(keys.meta(key))

    def head(self) -> codec.Commit:
        """What the newest commit says of itself."""
        raw = self.kv.get(keys.COMMIT)
        return _NO_COMMIT if raw is None else codec.COMMIT.decode(raw, keys.COMMIT)

    def anchor(self) -> codec.Anchor:
        """What the oldest event that is kept is chained to."""
        raw = self.kv.get(keys.ANCHOR)
        return _NO_ANCHOR if raw is None else codec.ANCHOR.decode(raw, keys.ANCHOR)

    def _content(self, key: bytes) -> bytes | None:
        raw = self.kv.get(key)
        return None if raw is None else codec.unseal(codec.CONTENT_TAG, raw, key)

    def _indexed(self, id: str) -> Task:
        task = self.task(id)
        if task is None:
            raise codec.corrupt(keys.named(keys.TASK, id), "is missing, but listed")
        return task

    def _ids(self, prefix: bytes, after: str = "", *, reverse: bool = False) -> Iterator[str]:
        """The ids of a list; what follows its prefix."""
        low, high = page_range(prefix, after, reverse)
        offset = len(prefix)
        return (key[offset:].decode() for key in walk(self.kv, low, high, reverse=reverse))


def page_range(prefix: bytes, after: str, reverse: bool) -> tuple[bytes, bytes]:
    """The range of keys that a page is taken from."""
    if not after:
        return prefix, keys.end(prefix)
    if reverse:
        return prefix, prefix + after.encode()
    return prefix + after.encode() + b"\0", keys.end(prefix)


def readable_counts(counts: dict[int, int]) -> dict[tuple[State, Lane], int]:
    """Counts by state and lane, as the commit record packs them."""
    return {(State(packed >> 4), Lane(packed & 15)): count for packed, count in counts.items() if count}
