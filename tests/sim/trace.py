"""What happened, in order: a running hash always, the lines themselves for a replay, and the product's own log.

Two runs of one seed must give the same hash. The product's log goes through here, too: its events are the most
readable part of a trace, and an error that it logs and nobody caused is a finding.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from kit import errors
from tests.sim.loop import OWNER

#: Errors that the faults cause and the product rightly tells.
EXPECTED = frozenset(
    {
        "store.commit_failed",
        "journal.failed",
        "journal.damaged",
        "holding.not_journaled",
        "holding.abandoned",
        "runner.crashed",
        "sidecar.unavailable",
        "store.degraded",
        "outcome.invalid",
    }
)


class Trace:
    """One run's."""

    def __init__(self, *, keep: bool = False, tell: Callable[[str], None] | None = None) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._keep = keep
        self._tell = tell
        self.lines: list[str] = []
        self.count = 0
        self.errors: list[str] = []
        self.now: Callable[[], float] = lambda: 0.0

    @property
    def verbose(self) -> bool:
        """Are lines kept or told?"""
        return self._keep or self._tell is not None

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def note(self, node: str, what: str, detail: str = "") -> None:
        """Something happened."""
        self.count += 1
        line = f"{self.now():14.6f} {node:<10} {what:<24} {detail}"
        self._hash.update(line.encode())
        if self._keep:
            self.lines.append(line)
        if self._tell is not None:
            self._tell(line)

    def logged(self, event: dict[str, Any]) -> None:
        """The product logged something."""
        owner = OWNER.get()
        name = owner.name if owner is not None else "-"
        what = str(event.pop("event", ""))
        level = event.pop("level", "")
        error = event.pop("exc_info", None)
        if level == "error" and not (owner is not None and owner.dead):
            self._judge(name, what, error, event)
        if self.verbose:
            event.pop("module", None)
            detail = " ".join(f"{key}={value}" for key, value in event.items() if value is not None)
            self.note(name, f"log {what}", detail if error is None else f"{detail} {error!r}")

    def _judge(self, name: str, what: str, error: Any, fields: dict[str, Any]) -> None:
        if what in EXPECTED:
            return
        if what in ("loop.failed", "report.refused") and isinstance(error, errors.Exhausted | errors.Unavailable):
            return
        if what == "report.refused" and type(error).__name__ == "Planned":
            return
        if isinstance(error, errors.IllegalState) and error.reason == "STORE_DEGRADED":
            return
        self.errors.append(f"{self.now():.3f} {name} logged {what}: {error!r} {fields}")


@contextlib.contextmanager
def captured(trace: Trace) -> Iterator[None]:
    """The product's log goes to the trace for the length of a block."""
    before = structlog.get_config()

    def catch(_logger: Any, method: str, event: Any) -> Any:
        event["level"] = method
        trace.logged(event)
        raise structlog.DropEvent

    level = logging.DEBUG if trace.verbose else logging.ERROR
    structlog.configure(
        processors=[catch],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
