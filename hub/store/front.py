"""The front of the writer on the event loop: callers wait here, and hear of the commit here.

Theory. A caller's function goes to the writer's thread and its future stays here. After each commit the loop gets the
whole batch at once: first the listeners see the events, in order, then the callers return; so a caller that returns
knows that every listener has been told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from hub.core.event import Event
from hub.store.base import Txn
from hub.store.writer import Environment, Job, Outcome, Writer
from kit import errors, logs

log = logs.get(__name__)

T = TypeVar("T")

WAITING_MAX: Final = 20_000
"""Functions that wait for the writer: a few seconds of its work. More callers are refused rather than kept waiting."""
BUSY_RETRY_S: Final = 1.0


class Front:
    """`write` and `on_commit` of a store with a writer's thread."""

    def __init__(self, environment: Environment) -> None:
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        self._waiting = 0
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = Writer(environment, self._deliver)
        self._writer.start()

    async def write(self, fn: Callable[[Txn], T], *, essential: bool = False) -> T:
        return await self._put(fn, essential=essential)

    async def _alone(self, fn: Callable[[], T]) -> T:
        """Run a function on the writer's thread between two transactions; writes wait for it."""
        return await self._put(fn, alone=True)

    async def _put(self, fn: Callable[..., T], *, essential: bool = False, alone: bool = False) -> T:
        if self._closed:
            raise errors.Unavailable("the store is closed", reason="STORE_CLOSED")
        if self._waiting >= WAITING_MAX:
            raise errors.Exhausted(
                f"{WAITING_MAX} writes wait already", reason="STORE_BUSY", retry_delay_s=BUSY_RETRY_S
            )
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting += 1
        self._writer.put(Job(fn, essential, future, alone))
        return await future

    def on_commit(self, listener: Callable[[Sequence[Event]], None]) -> None:
        self._listeners.append(listener)

    async def _finish(self) -> None:
        """Take no more, and wait until the writer has served what is queued."""
        self._closed = True
        self._writer.stop()
        await asyncio.to_thread(self._writer.join)
        # Outcomes of the last batch are still on their way through the loop.
        await asyncio.sleep(0)

    def _deliver(self, outcomes: list[Outcome], events: list[Event]) -> None:
        """On the writer's thread: hand a batch over to the loop."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, outcomes, events)

    def _settle(self, outcomes: list[Outcome], events: list[Event]) -> None:
        """On the loop's thread: first the listeners, then the callers."""
        self._waiting -= len(outcomes)
        if events:
            for listener in self._listeners:
                try:
                    listener(events)
                except Exception:  # a listener's fault must not keep callers from what is committed
                    log.exception("store.listener_failed")
        for job, result, error in outcomes:
            if job.future.done():  # its caller was cancelled; the write stands
                continue
            if error is None:
                job.future.set_result(result)
            elif isinstance(error, StopIteration):  # a future refuses it
                job.future.set_exception(RuntimeError("a transaction script raised StopIteration"))
            else:
                job.future.set_exception(error)
