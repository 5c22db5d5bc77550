"""The hub's store on a simulated disk: the real writer and front over a map that survives a crash of the process.

The real one has a thread that takes what waits, runs it, waits for the fsync and hands the outcome to the loop. Here
the same happens in virtual time: a batch is taken, the fsync takes as long as the dice say, then it is run and kept
(which comes to the same, as nobody else writes), and a little later the loop hears of it. In between, readers see the
commit and no listener has been told: the races of the real thing.

Every commit may crash the hub before or after it, fail, fail and yet be on the disk, be slow; every function may be run
twice; a full disk leaves only the reserve.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from hub.core import attach
from hub.core.event import Event
from hub.store import chain, front, migrate, writer
from hub.store.base import Reader, StoreFacts
from hub.store.memory import MemoryOrdered
from hub.store.reader import Classes, OrderedReader
from kit import errors
from tests.sim.process import Process, never

DELIVERY_S = 0.0002
"""From the commit to the loop's knowing of it."""


class MapFull(Exception):
    """Not raised: how a map grows and what a damaged file does is tried by the store's own tests."""


class Planned(Exception):
    """A defect of a transaction script, as the dice have it."""


class DurableMap(MemoryOrdered):
    """The map of one disk; a transaction that is dropped leaves nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._before: list[tuple[bytes, bytes | None]] = []

    def mark(self) -> None:
        self._before += self._undo
        self._undo.clear()

    def settle(self) -> None:
        """The transaction is on the disk."""
        self._undo.clear()
        self._before.clear()

    def drop(self) -> None:
        """The transaction never was."""
        self.undo()
        self._undo, self._before = self._before, []
        self.undo()


class Disk:
    """What stays of a hub when its process dies."""

    def __init__(self) -> None:
        self.map = DurableMap()
        migrate.bring(self.map)
        self.map.settle()
        self.full = False
        #: Every commit fails.
        self.broken = False
        #: Fsyncs take this many times as long.
        self.slow = 1.0
        self.commits = 0
        #: Every event that ever was committed, also those that are forgotten.
        self.history: list[Event] = []

    def tell(self, events: Sequence[Event]) -> None:
        """These were committed."""
        last = self.history[-1].position if self.history else 0
        self.history += [event for event in events if event.position > last]

    def remember(self) -> None:
        """Look up what was committed and never told."""
        reader = open_reader(self)
        while found := reader.events(after=self.history[-1].position if self.history else 0, limit=10_000):
            self.tell(found)


class Environment:
    """`writer.Environment` on the disk."""

    full_errors: tuple[type[BaseException], ...] = (MapFull,)
    damage_errors: tuple[type[BaseException], ...] = ()

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self._open = False
        #: What the next commit does; set by the writer, which knows whose commit it is.
        self.fault = ""

    def begin(self) -> DurableMap:
        self._open = True
        self._disk.map.mark()
        return self._disk.map

    def commit(self) -> None:
        fault, self.fault = self.fault, ""
        if self._disk.broken or fault == "commit.fail":
            raise OSError(5, "Input/output error")
        self._disk.map.settle()
        self._disk.commits += 1
        self._open = False
        if fault == "commit.fail_but_done":
            raise OSError(5, "Input/output error, and yet it is there")

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._disk.map.drop()

    def make_room(self) -> bool:
        return not self._disk.full

    def grow(self) -> bool:
        return False

    def problem(self, error: BaseException) -> errors.Problem:
        if self._disk.full:
            return writer.store_full()
        return errors.Unavailable(
            f"the store could not commit: {error}",
            reason="STORE_FAILED",
            retry_delay_s=writer.STORE_FULL_RETRY_S,
        )


def _commit_failed() -> errors.Problem:
    return errors.Unavailable("the store could not commit", reason="STORE_FAILED", retry_delay_s=1.0)


REFUSALS: tuple[Callable[[], errors.Problem], ...] = (writer.store_full, _commit_failed)
"""What the caller of one write is told when the store does not take it."""


class SimWriter(writer.Writer):
    """The real writer, its thread replaced by timers of the process."""

    process: Process
    disk: Disk

    def start(self) -> None:
        self._jobs: deque[writer.Job] = deque()
        self._busy = False
        #: What a strike does to a job, by the future that its caller waits for.
        self.doomed: dict[int, str] = {}
        self._dice = self.process.world.dice("commit", self.process.name, self.process.world.number("commits"))

    def put(self, job: writer.Job) -> None:
        self._jobs.append(job)
        if not self._busy:
            self._busy = True
            world = self.process.world
            gather_s = 0.0
            if self._dice.random() < world.chance("commit.gather"):
                world.tally.faults["commit.gather"] += 1
                gather_s = self._dice.random() * 0.01
            self.process.call_later(gather_s, self._take)

    def stop(self) -> None:
        pass

    def join(self) -> None:
        pass

    @property
    def idle(self) -> bool:
        """Is nothing queued and nothing under way?"""
        return not self._busy

    def _take(self) -> None:
        world = self.process.world
        jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), writer.BATCH_COUNT_MAX))]
        fsync_s = world.mix.fsync_s * (0.5 + self._dice.random()) * self.disk.slow
        if self._roll("commit.slow", jobs):
            fsync_s += self._dice.choice((0.5, 5.0, 40.0))
        self.process.call_later(fsync_s, self._sync, jobs)

    def _sync(self, jobs: list[writer.Job]) -> None:
        if self._roll("commit.crash_before", jobs):
            self.process.kill("before a commit")
            return
        assert isinstance(self._environment, Environment)
        for fault in ("commit.fail", "commit.fail_but_done"):
            if self._roll(fault, jobs):
                self._environment.fault = fault
                break
        crash = self._roll("commit.crash_after", jobs)
        self._crash = crash
        self._after = 0.0
        self._batch = jobs
        for job in jobs:
            self.process.world.tally.scripts[_script(job)] += 1
        self._serve(jobs[0])
        self._environment.fault = ""
        if crash:
            self.process.kill("after a commit")
            return
        if self._jobs:
            self.process.call_later(0.0, self._take)
        else:
            self._busy = False

    def _arriving(self, first: writer.Job, jobs: list[writer.Job]) -> Iterator[writer.Job]:
        for job in self._batch:
            jobs.append(job)
            yield job

    def _run_one(self, job: writer.Job) -> writer.Outcome:
        if self.doomed.pop(id(job.future), "") == "refuse":
            self.process.world.tally.commits["refuse", _script(job)] += 1
            return writer.Outcome(job, None, self._dice.choice(REFUSALS)())
        if (chance := self.process.world.chance("commit.error")) and self._dice.random() < chance and _may_err(job):
            self.process.world.tally.commits["commit.error", _script(job)] += 1
            self.process.world.fault("commit.error", self.process.name, _script(job))
            return writer.Outcome(job, None, Planned("as the dice said"))
        if self._dice.random() < self.process.world.chance("commit.twice"):
            self._txn.mark()
            outcome = super()._run_one(job)
            if outcome.error is None:
                self._txn.rollback()
                self.process.world.tally.faults["commit.twice"] += 1
        return super()._run_one(job)

    def _roll(self, fault: str, jobs: list[writer.Job]) -> bool:
        world = self.process.world
        doomed = [job for job in jobs if self.doomed.get(id(job.future)) == fault] if self.doomed else []
        for job in doomed:
            del self.doomed[id(job.future)]
        if self._dice.random() >= world.chance(fault) and not doomed:
            return False
        for job in jobs:
            world.tally.commits[fault, _script(job)] += 1
        world.fault(fault, self.process.name, _script(jobs[0]))
        return True


class SimStore(front.Front):
    """`base.Store` on a simulated disk."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self._classes = Classes()

        def make(environment: Any, deliver: Any) -> SimWriter:
            made = SimWriter.__new__(SimWriter)
            made.process, made.disk = process, disk
            made.__init__(environment, deliver)  # type: ignore[misc]  # made without its class's own call
            return made

        with mock.patch.object(front, "Writer", make):
            super().__init__(Environment(disk, process))
        self._deliver_at = 0.0
        self._news_dice = process.world.dice("news", process.world.number("news"))
        self._on_their_way: deque[tuple[list[writer.Outcome], list[Event]]] = deque()
        self.undelivered = 0
        #: Is it known to whoever writes that it is damaged?
        self.damaged: Callable[[], bool] = lambda: False
        #: Called after each commit that the loop was told of, when no other is under way.
        self.on_rest: Callable[[], None] = lambda: None
        disk.map.drop()  # what the process before had begun and not committed
        disk.remember()

    def doom(self, waited_for: Any, how: str) -> None:
        """Do this to the write whose caller waits for that future."""
        self._writer.doomed[id(waited_for)] = how  # type: ignore[attr-defined]  # beyond what its protocol says

    async def write(self, fn: Any, *, essential: bool = False) -> Any:
        if self._process.dead:
            await never()
        if self.damaged():
            self._process.world.trace.errors.append(f"{self._process.name}: a damaged store was written to")
        return await super().write(fn, essential=essential)

    def read(self, fn: Callable[[Reader], Any]) -> Any:
        return fn(OrderedReader(self._disk.map, self._classes))

    def facts(self) -> StoreFacts:
        return StoreFacts("simulated", migrate.VERSION, 1 << 30, self._disk.map.used_bytes, self._writer.commits, 0)

    def verify_chain(self, after: int = 0, limit: int = 1_000_000) -> int:
        return chain.verify(lambda fn: fn(OrderedReader(self._disk.map, Classes())), after, limit)

    async def close(self) -> None:
        self._closed = True
        while not self._writer.idle or self.undelivered:  # type: ignore[attr-defined]  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)

    def _deliver(self, outcomes: list[writer.Outcome], events: list[Event]) -> None:
        self._disk.tell(events)
        loop = self._process.world.loop
        late_s = 0.0
        if self._news_dice.random() < self._process.world.chance("commit.late_news"):
            self._process.world.fault("commit.late_news", self._process.name)
            late_s = self._news_dice.choice((0.005, 0.05, 0.5))
        self._deliver_at = max(self._deliver_at, loop.time() + DELIVERY_S + late_s)
        self.undelivered += 1
        self._on_their_way.append((outcomes, events))
        self._process.call_later(self._deliver_at - loop.time(), self._told)

    def _told(self) -> None:
        outcomes, events = self._on_their_way.popleft()
        self.undelivered -= 1
        world = self._process.world
        for event in events:
            world.trace.note(self._process.name, event.type, f"{event.subject} {event.fields}")
        self._settle(outcomes, events)
        if not self.undelivered:
            self.on_rest()


def _may_err(job: writer.Job) -> bool:
    """Is it the taking in of reports, and not of the hub's own words on one that it could not take in?"""
    if not _script(job).startswith("live.worker.Worker._write"):
        return False
    batches = [cell.cell_contents for cell in job.fn.__closure__ or ()]
    return not any(
        isinstance(report.outcome, attach.Failed) and report.outcome.failure.reason == "REPORT_REFUSED"
        for batch in batches
        for report in getattr(batch, "reports", ())
    )


def _script(job: writer.Job) -> str:
    """The name of a transaction, as the code says it."""
    return f"{job.fn.__module__}.{job.fn.__qualname__}".replace(".<locals>", "").replace("hub.engine.", "")


def open_reader(disk: Disk) -> OrderedReader:
    """What is on a disk, for whoever judges it."""
    return OrderedReader(disk.map, Classes())
