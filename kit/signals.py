"""Two verbs for ending a process: the first SIGTERM or SIGINT stops it, the second (or the deadline) cancels it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from kit import logs

log = logs.get(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """What a process watches: `stopping` is set by the first signal; the deadline starts to run then."""

    def __init__(self, task: asyncio.Task[object], deadline_s: float) -> None:
        self.stopping = asyncio.Event()
        #: The signal that began it; None while nobody has asked.
        self.signal: signal.Signals | None = None
        self.cancelled = False
        self._task = task
        self._deadline_s = deadline_s
        self._timer: asyncio.TimerHandle | None = None

    def request(self, number: signal.Signals) -> None:
        """Stop on the first call, cancel on the second. Runs on the event loop."""
        if self.signal is None:
            self.signal = number
            log.info("process.stopping", signal=number.name, deadline_s=self._deadline_s)
            self._timer = asyncio.get_running_loop().call_later(self._deadline_s, self._cancel, "deadline")
            self.stopping.set()
        else:
            self._cancel(number.name)

    def done(self) -> None:
        """Disarm the deadline."""
        if self._timer is not None:
            self._timer.cancel()

    def _cancel(self, cause: str) -> None:
        if not self.cancelled:
            self.cancelled = True
            log.warning("process.cancelled", cause=cause)
            self._task.cancel()


async def run(main: Callable[[asyncio.Event], Awaitable[object]], *, deadline_s: float) -> int:
    """Run `main(stopping)` under SIGTERM and SIGINT; returns the exit code of the process.

    `main` returns soon after `stopping` is set, having finished what it held. 0 means that it did; 128 + the signal's
    number that it had to be cancelled. Its exceptions pass through. Call it once, from the main thread.
    """
    task = asyncio.current_task()
    assert task is not None
    shutdown = Shutdown(task, deadline_s)
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, shutdown.request, number)
    try:
        await main(shutdown.stopping)
    except asyncio.CancelledError:
        if not shutdown.cancelled or task.uncancel() > 0:
            raise
        assert shutdown.signal is not None
        return 128 + shutdown.signal
    finally:
        shutdown.done()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
    return 0
