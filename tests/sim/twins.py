"""Broken twins: the product with one guard taken out. Each must be found within a few seeds, or the simulator proves
nothing about that guard.

A name that is gone makes its twin fail to begin, so that none of them turns into an empty one unseen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, NamedTuple
from unittest import mock

import msgspec

from hub.core import retry
from hub.core.task import HELD, Attribution
from hub.engine.live import dispatch as dispatching
from hub.engine.live import fleet, session, silence, waiting
from hub.engine.script import attaching, lifecycle, requests, work
from hub.store.care import guard
from kit import errors
from sidecar.wire import conversation, stream
from tests.sim import disk as disks


class Twin(NamedTuple):
    """One guard, taken out."""

    break_: Callable[[ExitStack], None]
    #: What its failure says: a part of one of the problems.
    finds: str
    #: Seeds that are tried at most.
    seeds: int = 60
    start: int = 1


def _patch(stack: ExitStack, place: Any, name: str, new: Any) -> None:
    assert hasattr(place, name), f"{place} has no {name}: its twin is empty"
    stack.enter_context(mock.patch.object(place, name, new))


def _fence_off(stack: ExitStack) -> None:
    def held(txn: Any, holding: Any, agent: str) -> Any:
        task = txn.task(holding.task)
        if task is None or task.state not in HELD:
            raise errors.Fenced("no such holding", metadata={})
        return task

    _patch(stack, lifecycle, "held", held)


def _ack_before_commit(stack: ExitStack) -> None:
    real = session.Session.receive

    async def receive(self: Any, way: Any, message: Any) -> None:
        self.stored = max(self.stored, message.seq)
        way.ack()
        await real(self, way, message)

    _patch(stack, session.Session, "receive", receive)


def _readoption_off(stack: ExitStack) -> None:
    real = attaching.enter

    def enter(txn: Any, entry: Any, now: float, *, roll: float) -> Any:
        return real(txn, entry._replace(hello=msgspec.structs.replace(entry.hello, holdings=())), now, roll=roll)

    _patch(stack, attaching, "enter", enter)


def _dispatch_loop_off(stack: ExitStack) -> None:
    async def nothing(self: Any, now: float) -> int:
        return 0

    _patch(stack, dispatching.Dispatcher, "run_once", nothing)


def _lease_never_passes(stack: ExitStack) -> None:
    _patch(stack, silence.Silence, "overdue", lambda self, monotonic: [])


def _request_ids_off(stack: ExitStack) -> None:
    _patch(stack, requests, "answered", lambda reader, request, now: None)


def _fsync_off(stack: ExitStack) -> None:
    """The last commit is told and not on the disk when the process dies."""
    real_settle, real_init = disks.DurableMap.settle, disks.SimStore.__init__

    def settle(self: Any) -> None:
        self._unsynced = self._before + self._undo
        real_settle(self)

    def init(self: Any, disk: Any, process: Any) -> None:
        if disk.commits:
            disk.map._undo, disk.map._unsynced = disk.map._unsynced, []
            disk.map.undo()
        real_init(self, disk, process)

    _patch(stack, disks.DurableMap, "settle", settle)
    _patch(stack, disks.SimStore, "__init__", init)


def _charges_everybody(stack: ExitStack) -> None:
    real = retry.after_failure

    def after_failure(task: Any, failure: Any, *, stopped: bool, roll: float) -> Any:
        if failure.attribution is Attribution.AGENT and not stopped:
            return real(task, failure, stopped=False, roll=roll)._replace(charged=True)
        return real(task, failure, stopped=stopped, roll=roll)

    _patch(stack, retry, "after_failure", after_failure)


def _a_seat_leaks(stack: ExitStack) -> None:
    _patch(stack, fleet, "_STAYS", fleet._STAYS | {"task.cancelled"})


def _the_hint_forgets(stack: ExitStack) -> None:
    real = waiting.Waiting._enter

    def enter(self: Any, class_id: int, rank: float) -> None:
        if class_id % 2:
            real(self, class_id, rank)

    _patch(stack, waiting.Waiting, "_enter", enter)


def _retry_waits_for_ever(stack: ExitStack) -> None:
    _patch(stack, lifecycle, "gone_dependency", lambda txn, task: "")


def _duplicates_are_applied(stack: ExitStack) -> None:
    """A repeated submit and a repeated report count again, and nobody compares generations."""
    _fence_off(stack)
    _patch(stack, work, "_repeat", lambda txn, holding, agent, outcome: None)


def _no_patience(stack: ExitStack) -> None:
    """A hub that comes back acts at once on what became due while it was away."""
    _patch(stack, silence.Silence, "patience_left_s", lambda self, monotonic: 0.0)


def _cancel_is_lost(stack: ExitStack) -> None:
    async def talk(self: Any, stub: Any, metadata: Any) -> Any:
        try:
            return await real(self, stub, metadata)
        except BaseException as error:
            if isinstance(error.__cause__, BaseExceptionGroup):  # the cancel came with the end of the stream
                return stream.cause_of(error.__cause__)
            raise

    real = conversation.Conversation.run
    _patch(stack, conversation.Conversation, "run", talk)


def _a_failed_submit_keeps_its_slot(stack: ExitStack) -> None:
    """Only a fault at that very await shows it: the store refuses the write, or the caller goes while it waits."""
    real = dispatching.Dispatcher.release

    def release(self: Any, agent: str) -> None:
        if sys.exc_info()[0] is None:
            real(self, agent)

    _patch(stack, dispatching.Dispatcher, "release", release)


def _damage_is_written_on(stack: ExitStack) -> None:
    """A store that is known to be damaged goes on taking writes."""
    _patch(stack, guard.Guarded, "write", lambda self, fn, essential=False: self.inner.write(fn, essential=essential))


TWINS: Final[dict[str, Twin]] = {
    "fence_off": Twin(_fence_off, ""),
    "ack_before_commit": Twin(_ack_before_commit, "report:"),
    "readoption_off": Twin(_readoption_off, "was begun", start=20),
    "dispatch_loop_off": Twin(_dispatch_loop_off, "long after the healing"),
    "lease_never_passes": Twin(_lease_never_passes, "was silent for"),
    "request_ids_off": Twin(_request_ids_off, "submit: request"),
    "fsync_off": Twin(_fsync_off, ""),
    "charges_everybody": Twin(_charges_everybody, "attempts:"),
    "a_seat_leaks": Twin(_a_seat_leaks, "the seat of", seeds=150),
    "the_hint_forgets": Twin(_the_hint_forgets, "the hint of what waits"),
    "retry_waits_for_ever": Twin(_retry_waits_for_ever, "is still PENDING", start=80),
    "duplicates_are_applied": Twin(_duplicates_are_applied, "fence:"),
    "no_patience": Twin(_no_patience, "was begun", seeds=300, start=100),
    "cancel_is_lost": Twin(_cancel_is_lost, "long after its death"),
    "a_failed_submit_keeps_its_slot": Twin(_a_failed_submit_keeps_its_slot, "are still reserved"),
    "damage_is_written_on": Twin(_damage_is_written_on, "a damaged store was written to"),
}
