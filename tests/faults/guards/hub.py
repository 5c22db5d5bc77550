"""Guards of the hub, taken out: each function leaves the hub without one of them."""

from __future__ import annotations

import time
from typing import Any

from kit import errors
from tests.faults.patching import patch

#: How late a commit is that was acked already.
LATE_S = 0.05


def fence_off() -> None:
    """Any holding is as good as the newest one."""
    from hub.core import task as core
    from hub.engine.script import lifecycle

    def held(txn: Any, holding: Any, agent: str) -> Any:
        task = txn.task(holding.task)
        if task is None or task.state not in core.HELD:
            raise errors.Fenced(f"holding {holding} has ended", metadata={"task": holding.task, "generation": 0})
        return task

    patch(lifecycle, "held", held)


def ack_before_commit() -> None:
    """Callers are answered when their functions have run; the commit comes a moment later."""
    from hub.store.writer import Writer

    real = Writer._transaction

    class NotYet:
        """The environment without its commit."""

        def __init__(self, environment: Any) -> None:
            self.environment = environment

        def __getattr__(self, name: str) -> Any:
            return getattr(self.environment, name)

        def commit(self) -> None:
            pass

    def transaction(self: Any, jobs: Any) -> None:
        environment, self._environment = self._environment, NotYet(self._environment)
        try:
            real(self, jobs)
        finally:
            self._environment = environment
        time.sleep(LATE_S)  # the hole itself: the answer is out, the disk is late
        environment.commit()

    patch(Writer, "_transaction", transaction)


def request_ids_off() -> None:
    """A request that comes again is a new one."""
    from hub.engine.script import requests

    patch(requests, "answered", lambda reader, request, now: None)
    patch(requests, "remember", lambda txn, request, name, expires_at: None)


GUARDS = {
    "fence_off": fence_off,
    "ack_before_commit": ack_before_commit,
    "request_ids_off": request_ids_off,
}
