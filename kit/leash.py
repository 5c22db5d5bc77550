"""The end of a running call from outside: whoever holds the other end can pull, and the call ends with a problem.

A call must not be cancelled for that: the peer would see CANCELLED, and could not tell why (and on grpcio 1.85.1 it may
hang). So a pull cancels only the step that runs, and the cancellation comes out of it as the problem. It is what
`asyncio.timeout` does with its deadline, without a deadline: a watch of a busy hub takes this way for each message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from kit import errors

R = TypeVar("R")


class Leash:
    """Of one call. The call runs its steps with `run`, one after the other; everything is on the event loop."""

    __slots__ = ("_is_cut", "_problem", "_task")

    def __init__(self) -> None:
        self._problem: errors.Problem | None = None
        #: Runs a step now.
        self._task: asyncio.Task[object] | None = None
        #: We have cancelled it, and that is not accounted for yet.
        self._is_cut = False

    def pull(self, problem: errors.Problem) -> None:
        """End the step that runs, or the next one, with `problem`. The first one counts. Not from inside a step."""
        if self._problem is None:
            self._problem = problem
            if self._task is not None:
                self._is_cut = self._task.cancel()

    async def run(self, step: Awaitable[R]) -> R:
        """The outcome of a step. Raises the problem when the leash is pulled, in which case the step is cancelled."""
        if self._problem is not None:
            close = getattr(step, "close", None)
            if close is not None:
                close()  # a coroutine that is never awaited is a warning
            raise self._problem
        task = asyncio.current_task()
        assert task is not None
        others = task.cancelling()
        self._task = task
        try:
            return await step
        except asyncio.CancelledError:
            # Who else has cancelled the task means the call as a whole, and is obeyed.
            if self._is_cut:
                self._is_cut = False
                if task.uncancel() <= others and self._problem is not None:
                    raise self._problem from None
            raise
        finally:
            self._task = None
            if self._is_cut:  # it ended otherwise in the same moment
                self._is_cut = False
                task.uncancel()
