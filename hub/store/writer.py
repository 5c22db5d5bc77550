"""The one thread that writes: group commit, with each failing function rolled back alone.

Theory. An fsync costs more than many functions, so the functions that arrive while one transaction is made durable
share the next one; no timer is needed, the load makes the batches. A function is run under a mark of the undo log:
when it raises, the map and the counters go back to the mark, its caller gets the exception, and the batch goes on.
Only the transaction as a whole can fail: when the map is full it is aborted, grown and run again (functions may run
more than once), and when the disk refuses, every function of the batch fails and the next batch tries again.

Callers hear of the outcome through the event loop, once a batch and never before the commit.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol

from hub.core.event import Event
from hub.store.ordered import Ordered
from hub.store.txn import OrderedTxn
from kit import errors, logs

log = logs.get(__name__)

BATCH_COUNT_MAX: Final = 512
"""Functions in one transaction: beyond this the fsync is a small part of the cost of each already."""

BATCH_S: Final = 0.01
"""Functions join a running batch for this long; the first one of it waits at most so much for the others."""

MISSED_EVENTS_MAX: Final = 100_000
"""Events looked up after a commit whose outcome was unknown; a batch is far smaller."""

STORE_FULL_RETRY_S: Final = 30.0
"""When to try again after STORE_FULL: room comes from people or from retention, not within a second."""


class Job(NamedTuple):
    """A function that waits to be run."""

    fn: Callable[..., Any]
    """Takes the transaction; nothing when it runs alone."""
    essential: bool
    future: asyncio.Future[Any]
    alone: bool = False
    """Called without a transaction, between two of them: the others wait for it."""


class Outcome(NamedTuple):
    """What became of it: an error, or its result."""

    job: Job
    result: Any
    error: BaseException | None


class Environment(Protocol):
    """What the writer needs of the place that it writes to."""

    full_errors: tuple[type[BaseException], ...]
    """Raised when the map is full: the transaction is lost, and may be run again after `grow`."""

    damage_errors: tuple[type[BaseException], ...]
    """Raised when the file is damaged: no function is to blame, and the transaction is lost."""

    def begin(self) -> Ordered:
        """A write transaction."""

    def commit(self) -> None:
        """Make it durable."""

    def abort(self) -> None:
        """Drop it, if there is one."""

    def make_room(self) -> bool:
        """Grow the map before it is full; False when only the reserve is left."""

    def grow(self) -> bool:
        """Grow the map at once; False when it is as large as it may get."""

    def problem(self, error: BaseException) -> errors.Problem:
        """What callers are told when a transaction as a whole failed."""


class Writer:
    """Runs functions on its thread, and calls `deliver` on it once a batch: outcomes, and the events of the commit."""

    def __init__(self, environment: Environment, deliver: Callable[[list[Outcome], list[Event]], None]) -> None:
        self._environment = environment
        self._deliver = deliver
        self._txn = OrderedTxn()
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._ending = False
        self._kept: Job | None = None
        """One that must run alone and came while a batch ran."""
        self._told = -1
        """Position of the newest event that was delivered; -1: not known yet."""
        self.commits = 0
        self.writes = 0
        #: Numbers of classes that are another requirement's since a commit; emptied by who reads.
        self.reused: deque[int] = deque()

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def put(self, job: Job) -> None:
        """Queue a function; the store bounds how many wait."""
        self._queue.put(job)

    def stop(self) -> None:
        """Serve what is queued, then end. Nothing may be put afterwards."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait for the end. Blocks."""
        self._thread.join()

    def _run(self) -> None:
        while not self._ending or self._kept is not None:
            job, self._kept = self._kept or self._queue.get(), None
            if job is None:
                return
            if job.alone:
                self._run_alone(job)
            else:
                self._serve(job)

    def _serve(self, first: Job) -> None:
        jobs: list[Job] = []
        try:
            self._transaction(self._arriving(first, jobs))
        except self._environment.full_errors:
            self._again(jobs)
        except BaseException as error:
            self._fail(jobs or [first], error)

    def _arriving(self, first: Job, jobs: list[Job]) -> Iterator[Job]:
        """The first job and those that arrive while the batch runs; each is kept in `jobs`."""
        deadline = time.monotonic() + BATCH_S
        job: Job | None = first
        while job is not None:
            jobs.append(job)
            yield job
            if len(jobs) >= BATCH_COUNT_MAX or time.monotonic() > deadline:
                return
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return
            if job is not None and job.alone:
                self._kept = job
                return
        self._ending = True

    def _again(self, jobs: list[Job]) -> None:
        """The map was full: grow it and run the whole batch again; one by one when it cannot grow."""
        try:
            while self._environment.grow():
                try:
                    return self._transaction(jobs)
                except self._environment.full_errors:
                    continue
        except BaseException as error:
            return self._fail(jobs, error)
        for job in jobs:
            try:
                self._transaction([job])
            except BaseException as error:
                self._fail([job], error)
        return None

    def _transaction(self, jobs: Iterable[Job]) -> None:
        """Run the jobs in one transaction, commit it, deliver. Raises when the transaction as a whole failed."""
        environment, txn = self._environment, self._txn
        roomy = environment.make_room()
        outcomes = []
        try:
            txn.begin(environment.begin())
            missed = self._missed()
            for job in jobs:
                if roomy or job.essential:
                    outcomes.append(self._run_one(job))
                else:
                    outcomes.append(Outcome(job, None, store_full()))
            events = txn.seal()
            environment.commit()
        except BaseException:
            txn.abort()
            environment.abort()
            raise
        finally:
            if txn.reused:  # after a failure, too: such a commit may be on the disk
                self.reused.extend(txn.reused)
        self.commits += 1
        self.writes += len(outcomes)
        self._told = txn.position()
        self._deliver(outcomes, missed + events)

    def _run_one(self, job: Job) -> Outcome:
        txn = self._txn
        txn.mark()
        try:
            return Outcome(job, job.fn(txn), None)
        except (*self._environment.full_errors, *self._environment.damage_errors):
            raise
        except BaseException as error:  # whatever it is, it is its caller's
            txn.rollback()
            return Outcome(job, None, error)

    def _run_alone(self, job: Job) -> None:
        try:
            result, error = job.fn(), None
        except BaseException as problem:  # its caller's, whatever it is
            result, error = None, problem
        self._deliver([Outcome(job, result, error)], [])

    def _missed(self) -> list[Event]:
        """Events of a commit that reported failure and yet is on disk: listeners must see every position."""
        if self._told < 0:
            self._told = self._txn.position()
        if self._told == self._txn.position():
            return []
        return self._txn.events(after=self._told, limit=MISSED_EVENTS_MAX)

    def _fail(self, jobs: list[Job], error: BaseException) -> None:
        problem = self._environment.problem(error)
        log.error("store.commit_failed", reason=problem.reason, error=repr(error), writes=len(jobs))
        kind, message, reason, delay = type(problem), problem.message, problem.reason, problem.retry_delay_s
        # One exception for each caller: raised in several tasks, one object would collect all their tracebacks.
        outcomes = [Outcome(job, None, kind(message, reason=reason, retry_delay_s=delay)) for job in jobs]
        self._deliver(outcomes, [])


def store_full() -> errors.Exhausted:
    """Only the reserve is left."""
    return errors.Exhausted(
        "the store is nearly full: new work is refused, reports of running work are still taken",
        reason="STORE_FULL",
        retry_delay_s=STORE_FULL_RETRY_S,
    )
