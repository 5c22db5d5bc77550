"""The write transaction in the verbs of the domain, over any sorted map.

Theory. One object serves the writer for its whole life. It keeps in memory what every function needs and what is
written once a commit and not once a function: the counts of tasks by state and lane, the head of the event chain, and
the classes. `mark` remembers them before a function runs and `rollback` puts them back with the map, so the events of
a function that failed vanish with it and positions have no gap. Everything is read from the map again at `begin`
after an abort.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from hub.core.agent import Agent
from hub.core.change import Change
from hub.core.event import Event
from hub.core.goal import Goal, Plan
from hub.core.repo import Repo
from hub.core.task import Attempt, Lane, Requirement, State, Task, TaskSpec
from hub.core.token import Token
from hub.store import chain, codec, index, keys
from hub.store.base import Answer, Table
from hub.store.ordered import Ordered, walk
from hub.store.reader import CLASS_COUNT_MAX, Classes, OrderedReader, ReadRecords, readable_counts
from kit import errors

R = TypeVar("R")


class Records(ReadRecords[R]):
    """Records of one type, to write to."""

    def __init__(self, kv: Ordered, kind: index.Kind[R]) -> None:
        super().__init__(kv, kind)
        self._write = kv

    def put(self, record: R) -> None:
        """Write it with all of its index entries."""
        kind = self._kind
        key = kind.prefix + kind.id_of(record).encode()
        if kind.entries is not None:
            raw = self._write.get(key)
            before = kind.entries(kind.codec.decode(raw, key)) if raw is not None else ()
            reindex(self._write, before, kind.entries(record))
        self._write.put(key, kind.codec.encode(record))

    def delete(self, id: str) -> None:
        """Forget it with all of its index entries."""
        kind = self._kind
        key = kind.prefix + id.encode()
        if kind.entries is not None:
            raw = self._write.get(key)
            if raw is not None:
                reindex(self._write, kind.entries(kind.codec.decode(raw, key)), ())
        self._write.delete(key)


class OrderedTxn(OrderedReader):
    """`base.Txn` over a sorted map."""

    kv: Ordered

    def __init__(self) -> None:
        self._classes = Classes()
        self._fresh = False
        self._touched = False
        self._position = 0
        self._hash = b""
        self._counts: dict[int, int] = {}
        self._events: list[Event] = []
        self._seen: dict[str, Task] = {}
        self._saved: tuple[int, bytes, dict[int, int], int, int] = (0, b"", {}, 0, 0)
        #: Numbers of classes that no task has: to be given away when there is no new one left.
        self._free: set[int] = set()
        #: Classes that were asked for since `watch_classes`; None: nobody watches.
        self._asked: set[int] | None = None
        #: Given away by this function, with the requirements that they had.
        self._given: list[tuple[int, Requirement]] = []
        #: Given away by this transaction: who reads must not trust what it knows of them.
        self._reused: list[int] = []

    # What the writer calls around the functions.

    def begin(self, kv: Ordered) -> None:
        """Work on this transaction from now on."""
        self.kv = kv
        if not self._fresh:
            self._load()
        self._touched = False
        self._events = []
        self._reused = []
        self.mark()

    def mark(self) -> None:
        """A function begins."""
        self.kv.mark()
        self._seen.clear()
        self._given.clear()
        self._saved = (self._position, self._hash, self._counts.copy(), len(self._classes.known), len(self._events))

    def rollback(self) -> None:
        """The function failed: it never was."""
        self.kv.undo()
        self._position, self._hash, self._counts, class_count, event_count = self._saved
        self._classes.truncate(class_count)
        for number, requirement in self._given:
            self._classes.replace(number, requirement)
            self._free.add(number)
        self._given.clear()
        del self._events[event_count:]

    def seal(self) -> list[Event]:
        """All functions have run: write what goes with the commit; the events of all."""
        if self._touched:
            self.kv.put(
                keys.COMMIT,
                codec.COMMIT.encode(codec.Commit(position=self._position, hash=self._hash, counts=self._counts)),
            )
        return self._events

    @property
    def reused(self) -> list[int]:
        """Numbers of classes that this transaction has given to another requirement."""
        return self._reused

    def abort(self) -> None:
        """The transaction is gone: trust nothing that is in memory."""
        self._fresh = False

    def _load(self) -> None:
        head = super().head()
        self._position, self._hash, self._counts = head.position, head.hash, dict(head.counts)
        self._classes = Classes()
        self._classes.refresh(self.kv)
        self._fresh = True

    # Reading what is kept in memory.

    def head(self) -> codec.Commit:
        return codec.Commit(position=self._position, hash=self._hash, counts=self._counts)

    def position(self) -> int:
        return self._position

    def counts(self) -> dict[tuple[State, Lane], int]:
        return readable_counts(self._counts)

    def task(self, id: str) -> Task | None:
        found = self._seen.get(id) or super().task(id)
        if found is not None:
            self._seen[id] = found
        return found

    # Tables.

    @property
    def agents(self) -> Table[Agent]:
        return Records(self.kv, index.AGENTS)

    @property
    def goals(self) -> Table[Goal]:
        return Records(self.kv, index.GOALS)

    @property
    def plans(self) -> Table[Plan]:
        return Records(self.kv, index.PLANS)

    @property
    def changes(self) -> Table[Change]:
        return Records(self.kv, index.CHANGES)

    @property
    def repos(self) -> Table[Repo]:
        return Records(self.kv, index.REPOS)

    @property
    def tokens(self) -> Table[Token]:
        return Records(self.kv, index.TOKENS)

    # Tasks.

    def add_task(self, task: Task, spec: TaskSpec) -> None:
        id = task.id.encode()
        if not self.kv.add(keys.TASK + id, codec.TASK.encode(task)):
            raise errors.AlreadyExists(f"task tasks/{task.id} exists", metadata={"task": f"tasks/{task.id}"})
        self.kv.add(keys.SPEC + id, codec.SPEC.encode(spec))
        for dependency in dict.fromkeys(spec.depends_on):
            self.kv.add(keys.dependants(dependency) + id)
        reindex(self.kv, (), index.of_task(task))
        self._count(task, 1)
        self._seen[task.id] = task

    def put_task(self, task: Task, before: Task) -> None:
        assert task.id == before.id
        stored = self.task(task.id)
        # Indexes follow the difference between the two: an outdated `before` would leave entries behind.
        assert stored is before or stored == before, f"tasks/{task.id} has changed since it was read"
        self.kv.put(keys.TASK + task.id.encode(), codec.TASK.encode(task))
        reindex(self.kv, index.of_task(before), index.of_task(task))
        if task.state is not before.state or task.lane is not before.lane:
            self._count(before, -1)
            self._count(task, 1)
        self._seen[task.id] = task

    def delete_task(self, task: Task) -> None:
        stored = self.task(task.id)
        assert stored is task or stored == task, f"tasks/{task.id} has changed since it was read"
        id = task.id.encode()
        spec = self.spec(task.id)
        for dependency in dict.fromkeys(spec.depends_on if spec is not None else ()):
            self.kv.delete(keys.dependants(dependency) + id)
        for prefix in (keys.attempts(task.id), keys.artifacts(task.id)):
            for key in list(walk(self.kv, prefix, keys.end(prefix))):
                self.kv.delete(key)
        reindex(self.kv, index.of_task(task), ())
        self.kv.delete(keys.SPEC + id)
        self.kv.delete(keys.TASK + id)
        self._count(task, -1)
        del self._seen[task.id]

    def class_for(self, requirement: Requirement) -> int:
        number = self._classes.numbers.get(requirement)
        if number is None:
            number = self._new_class(requirement)
            self.kv.put(keys.task_class(number), codec.CLASS.encode(requirement))
        elif self._free:
            self._free.discard(number)
        if self._asked is not None:
            self._asked.add(number)
        return number

    def _new_class(self, requirement: Requirement) -> int:
        if len(self._classes.known) < CLASS_COUNT_MAX:
            return self._classes.add(requirement)
        if not self._free:
            raise errors.Exhausted(
                f"the tasks that the hub remembers have {CLASS_COUNT_MAX} different requirements, which is the limit",
                reason="CLASSES_FULL",
            )
        number = self._free.pop()
        before = self._classes.known[number - 1]
        assert before is not None
        self._given.append((number, before.requirement))
        self._reused.append(number)
        self._classes.replace(number, requirement)
        return number

    def watch_classes(self) -> None:
        self._asked = set()

    def free_classes(self, numbers: Iterable[int]) -> int:
        if self._asked is None:
            return 0
        self._free = set(numbers) - self._asked  # the watch goes on: a function may be run again
        return len(self._free)

    def put_attempt(self, attempt: Attempt) -> None:
        self.kv.put(keys.attempt(attempt.task, attempt.generation), codec.ATTEMPT.encode(attempt))

    def put_artifact(self, task: str, generation: int, id: str, content: bytes) -> None:
        self.kv.put(keys.artifact(task, generation, id), codec.seal(codec.CONTENT_TAG, content))

    def drop_artifacts(self, task: str) -> int:
        prefix = keys.artifacts(task)
        found = list(walk(self.kv, prefix, keys.end(prefix)))
        for key in found:
            self.kv.delete(key)
        return len(found)

    # Requests, events, facts.

    def put_answer(self, principal: str, method: str, request_id: str, answer: Answer) -> None:
        key = keys.answer(principal, method, request_id)
        raw = self.kv.get(key)
        before = () if raw is None else (keys.answer_expiry(codec.ANSWER.decode(raw, key).expires_at, key),)
        reindex(self.kv, before, (keys.answer_expiry(answer.expires_at, key),))
        self.kv.put(key, codec.ANSWER.encode(answer))

    def drop_answers(self, now: float, limit: int) -> int:
        passed = self.kv.keys(keys.ANSWER_EXPIRY, keys.answers_until(now), limit)
        for entry in passed:
            self.kv.delete(entry[9:])
            self.kv.delete(entry)
        return len(passed)

    def append(self, at: float, type: str, subject: str, *, goal: str = "", actor: str = "hub", **fields: str) -> Event:
        position = self._position + 1
        event, raw = chain.link(
            Event(position=position, at=at, type=type, subject=subject, goal=goal, actor=actor, fields=fields),
            self._hash,
        )
        self.kv.add(keys.event(position), raw)
        self.kv.add(keys.event_of(subject, position))
        if goal and subject != f"goals/{goal}":
            self.kv.add(keys.event_of(f"goals/{goal}", position))
        self._position, self._hash = position, event.hash
        self._touched = True
        self._events.append(event)
        return event

    def drop_events(self, *, before: float, keep: int, limit: int) -> int:
        anchor = self.anchor()
        first = anchor.position + 1
        # The newest event stays: a log that is not empty says where it ends by itself.
        limit = min(limit, self._position - first)
        spare = self._position - anchor.position - keep
        position, digest = anchor.position, anchor.hash
        for key, raw in self.kv.items(keys.event(first), keys.end(keys.EVENT), limit):
            event = codec.EVENT.decode(raw, key)
            if event.position != position + 1:
                raise codec.corrupt(keys.event(position + 1), "is missing from the log")
            if event.at >= before and spare <= 0:
                break
            self.kv.delete(key)
            self.kv.delete(keys.event_of(event.subject, event.position))
            if event.goal and event.subject != f"goals/{event.goal}":
                self.kv.delete(keys.event_of(f"goals/{event.goal}", event.position))
            position, digest, spare = event.position, event.hash, spare - 1
        if position > anchor.position:
            self.kv.put(keys.ANCHOR, codec.ANCHOR.encode(codec.Anchor(position=position, hash=digest)))
        return position - anchor.position

    def set_meta(self, key: str, value: bytes) -> None:
        self.kv.put(keys.meta(key), codec.seal(codec.CONTENT_TAG, value))

    def _count(self, task: Task, change: int) -> None:
        packed = task.state << 4 | task.lane
        self._counts[packed] = self._counts.get(packed, 0) + change
        self._touched = True


def reindex(kv: Ordered, before: tuple[bytes, ...], after: tuple[bytes, ...]) -> None:
    """Write the difference between the index entries of a record. Raises DataLoss when one of them is not as it was."""
    for entry in before:
        if entry not in after and not kv.delete(entry):
            raise codec.corrupt(entry, "is missing from its index")
    for entry in after:
        if entry not in before and not kv.add(entry):
            raise codec.corrupt(entry, "is in its index already")
