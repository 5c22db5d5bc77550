"""What the engine may ask of a store: `Store`, and the transaction in the verbs of the domain.

Transaction scripts are plain functions `fn(txn) -> result` over `Txn`, written once and run by every store.

- `Store.write(fn)` returns when the effect of `fn` is durable. Functions that wait at the same time share one
  commit (group commit); one that raises is rolled back alone and its exception reaches its caller, the others commit.
- `fn` runs on the writer's thread and MAY RUN MORE THAN ONCE (the map was full and has grown): it must not touch
  anything but `txn` and its own locals, must not read a clock or roll dice (pass `now` and ids in), and must return
  what its caller needs. Effects (messages, wake-ups) follow after the commit, from the returned value.
- `Store.read(fn)` runs on a snapshot, on the caller's thread, and must be short: it may hold back the reuse of pages.
- Records are frozen; indexes are derived from them by the store and cannot be forgotten or be stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from hub.core.agent import Agent
from hub.core.change import Change
from hub.core.event import Event
from hub.core.goal import Goal, Plan
from hub.core.repo import Repo
from hub.core.task import Attempt, Lane, Requirement, State, Task, TaskSpec
from hub.core.token import Token

R = TypeVar("R")
T = TypeVar("T")


class ReadyHead(NamedTuple):
    """The first waiting task of one lane of one class."""

    class_id: int
    lane: Lane
    queued_at: float
    task: str


class TaskClass(NamedTuple):
    """A requirement that at least one task had, and its number."""

    id: int
    requirement: Requirement


class Answer(NamedTuple):
    """What a request id was answered with, kept for the idempotency window."""

    fingerprint: bytes
    """Hash of the request without its request id: the same id with another request is refused."""
    name: str
    """Resource name(s) that the request made, joined by a space."""
    expires_at: float


class Ended(IntEnum):
    """The sorts of records that end and are forgotten some time later. The numbers are on disk: never change one."""

    TASK = 1
    """SUCCEEDED or CANCELLED."""
    DEAD_TASK = 2
    GOAL = 3
    """SUCCEEDED or CANCELLED."""
    FAILED_GOAL = 4
    CHANGE = 5
    TOKEN = 6
    """Revoked, used up or expired."""


class EndedOne(NamedTuple):
    """One record that has ended."""

    at: float
    id: str


class StoreFacts(NamedTuple):
    """How full the store is and how it did since it was opened."""

    kind: str
    schema_version: int
    size_max_bytes: int
    used_bytes: int
    commits: int
    writes: int


class ReadTable(Protocol, Generic[R]):
    """Records of one type by their id."""

    def get(self, id: str) -> R | None:
        """The record; None when there is none."""

    def page(self, *, after: str = "", limit: int, reverse: bool = False) -> list[R]:
        """Records in the order of their ids, beginning after `after` (before it when reversed; empty: from the end)."""


class Table(ReadTable[R], Protocol, Generic[R]):
    """The same, to write to."""

    def put(self, record: R) -> None:
        """Write it, new or changed, with all of its index entries."""

    def delete(self, id: str) -> None:
        """Forget it with all of its index entries. Nothing happens when it is not there."""


class Reader(Protocol):
    """A snapshot of everything."""

    @property
    def agents(self) -> ReadTable[Agent]: ...
    @property
    def goals(self) -> ReadTable[Goal]: ...
    @property
    def plans(self) -> ReadTable[Plan]:
        """By the id of their goal; only the newest version."""

    @property
    def changes(self) -> ReadTable[Change]: ...
    @property
    def repos(self) -> ReadTable[Repo]: ...
    @property
    def tokens(self) -> ReadTable[Token]: ...

    # Tasks

    def task(self, id: str) -> Task | None:
        """The part that changes; None when there is no such task."""

    def spec(self, id: str) -> TaskSpec | None:
        """The contract of a task."""

    def tasks(self, *, after: str = "", limit: int, reverse: bool = False) -> list[Task]:
        """All tasks in the order of their ids, which is the order of their creation."""

    def tasks_in(
        self, states: Iterable[State], lanes: Iterable[Lane], *, after: str = "", limit: int, reverse: bool = False
    ) -> list[Task]:
        """Tasks of these states and lanes in the order of their ids, from an index."""

    def tasks_of_goal(self, goal: str, *, after: str = "", limit: int, reverse: bool = False) -> list[Task]:
        """Tasks of a goal in the order of their ids, its MERGE and VERIFY tasks among them."""

    def held_by(self, agent: str) -> list[Task]:
        """Tasks that this agent holds (ASSIGNED or RUNNING)."""

    def dependants(self, task: str, *, after: str = "", limit: int) -> list[str]:
        """Ids of the tasks whose contract names this one in depends_on."""

    def due(self, now: float, limit: int) -> list[str]:
        """Ids of the tasks whose wake_at is at or before `now`, earliest first."""

    def next_due(self) -> float | None:
        """The earliest wake_at of all; None when no task has one."""

    def attempt(self, task: str, generation: int) -> Attempt | None:
        """One try."""

    def attempts(self, task: str, *, limit: int = 1000) -> list[Attempt]:
        """All tries of a task, oldest first."""

    def artifact(self, task: str, generation: int, id: str) -> bytes | None:
        """Content of an artefact."""

    def counts(self) -> dict[tuple[State, Lane], int]:
        """How many tasks there are, kept as they are written."""

    # The ready index

    def task_class(self, class_id: int) -> TaskClass | None:
        """A class by its number."""

    def class_of(self, requirement: Requirement) -> int | None:
        """The number of a requirement's class; None when no task ever had it."""

    def classes(self) -> list[TaskClass]:
        """All classes."""

    def ready_heads(self, class_id: int) -> list[ReadyHead]:
        """The first QUEUED task of each lane of a class, at most four."""

    def ready(
        self, class_id: int, lane: Lane, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[ReadyHead]:
        """QUEUED tasks of one lane of one class, oldest first; `after` is (queued_at, task) of the last one seen."""

    # Changes

    def train(self, repo: str, limit: int) -> list[Change]:
        """WAITING and MERGING changes of a repo in the order in which they are to be merged (by id)."""

    # Tokens, requests, events

    def token_by_hash(self, secret_sha256: str) -> Token | None:
        """The token whose secret has this hash."""

    def answer(self, principal: str, method: str, request_id: str) -> Answer | None:
        """What this request id was answered with; None when it is new or its window has passed by the sweep."""

    def answer_passed(self, now: float) -> bool:
        """Is there an answer whose window has passed?"""

    def ended(self, sort: Ended, *, until: float, after: EndedOne | None = None, limit: int) -> list[EndedOne]:
        """What is of this sort and ended at or before `until`, oldest first, behind `after`."""

    def events(self, *, after: int, limit: int) -> list[Event]:
        """Events behind a position, oldest first; those that are still kept."""

    def events_of(self, subject: str, *, after: int = 0, limit: int) -> list[Event]:
        """Events whose subject is this resource name, or whose goal is it ("goals/{goal}"), oldest first."""

    def position(self) -> int:
        """Position of the newest event; 0: there is none."""

    def position_gone(self) -> int:
        """Position of the newest event that is not kept any more; 0: all are kept. The next one is the oldest."""

    def meta(self, key: str) -> bytes | None:
        """A small fact of the store's own: uid, schema, paused."""


class Txn(Reader, Protocol):
    """A write transaction: everything of the snapshot, and the verbs that change it."""

    @property
    def agents(self) -> Table[Agent]: ...
    @property
    def goals(self) -> Table[Goal]: ...
    @property
    def plans(self) -> Table[Plan]: ...
    @property
    def changes(self) -> Table[Change]: ...
    @property
    def repos(self) -> Table[Repo]: ...
    @property
    def tokens(self) -> Table[Token]: ...

    def add_task(self, task: Task, spec: TaskSpec) -> None:
        """File a new task with its contract and its dependency index. The id must be new."""

    def put_task(self, task: Task, before: Task) -> None:
        """Write a task that was `before`; all index entries and counts follow."""

    def delete_task(self, task: Task) -> None:
        """Forget a task with its contract, attempts, artefacts and index entries (its events stay)."""

    def class_for(self, requirement: Requirement) -> int:
        """The number of a requirement's class, made when it is new. Raises Exhausted beyond the bound on classes, when
        none is free either.
        """

    def watch_classes(self) -> None:
        """From now on note which classes are asked for: somebody goes through all tasks to see which ones are used."""

    def free_classes(self, numbers: Iterable[int]) -> int:
        """No task has these: they may be given to other requirements, but for those asked for since the watch began.

        Kept in memory only; 0 when nobody watched. How many are free now.
        """

    def put_attempt(self, attempt: Attempt) -> None:
        """Write one try."""

    def put_artifact(self, task: str, generation: int, id: str, content: bytes) -> None:
        """Write the content of an artefact."""

    def drop_artifacts(self, task: str) -> int:
        """Forget the contents of the artefacts of a task, not what its attempts say of them; how many."""

    def put_answer(self, principal: str, method: str, request_id: str, answer: Answer) -> None:
        """Remember what a request id was answered with."""

    def drop_answers(self, now: float, limit: int) -> int:
        """Forget answers whose window has passed; how many."""

    def append(self, at: float, type: str, subject: str, *, goal: str = "", actor: str = "hub", **fields: str) -> Event:
        """Append an event: sets its position and chains its hash."""

    def drop_events(self, *, before: float, keep: int, limit: int) -> int:
        """Forget the oldest events while they are from before that time, or more than `keep`; how many.

        At most `limit`, and never the newest one. What is left still proves itself: see chain.py.
        """

    def set_meta(self, key: str, value: bytes) -> None:
        """Write a small fact of the store's own."""


class Store(Protocol):
    """A durable place for everything the hub knows. Opened by its own `open` class method."""

    async def write(self, fn: Callable[[Txn], T], *, essential: bool = False) -> T:
        """Run `fn` in a write transaction; return when it is durable. Re-raises what `fn` raises, with nothing changed.

        `essential` writes (reports of workers, cancellations, the sweep) may use the reserve that is kept back when the
        store is nearly full; others are refused with Exhausted (reason STORE_FULL) then.
        """

    def read(self, fn: Callable[[Reader], T]) -> T:
        """Run `fn` on a snapshot, now, on this thread."""

    def facts(self) -> StoreFacts:
        """How full the store is."""

    def verify_chain(self, after: int = 0, limit: int = 1_000_000) -> int:
        """Check up to `limit` events behind a position; the last good position. Raises DataLoss on a break."""

    async def close(self) -> None:
        """Finish what is queued and close."""

    def on_commit(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Call `listener` on the loop's thread with the events of each commit, in order, before its writers return."""
