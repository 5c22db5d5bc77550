"""Guards of the sidecar, taken out."""

from __future__ import annotations

from typing import Any

from tests.faults.patching import patch


def journal_off() -> None:
    """What is appended is said to be durable and is not written."""
    from sidecar.wire.journal import Journal

    async def append(self: Any, *records: Any) -> None:
        return None

    patch(Journal, "append", append)
    patch(Journal, "note", lambda self, entry: None)


def orphan_guard_off() -> None:
    """Nobody ends the children of a sidecar that died."""
    from sidecar.child import guard

    patch(guard.Guard, "start", lambda self: None)
    patch(guard, "sweep", lambda cookie: 0)


def stop_off() -> None:
    """It does not stop its work, whoever says so."""
    from sidecar.wire.holdings import Holdings

    patch(Holdings, "stop", lambda self, holding, reason: None)


def drain_off() -> None:
    """It is asked to end and goes on as before."""
    from sidecar.wire.session import Session

    patch(Session, "drain", lambda self, reason: None)
    patch(Session, "halt", lambda self, reason: None)


def knock_off() -> None:
    """It takes a hub that is not there for one that is silent."""
    from sidecar.wire import knock

    async def nobody_knows(host: str, port: int) -> bool:
        return False

    patch(knock, "is_nobody_there", nobody_knows)


GUARDS = {
    "drain_off": drain_off,
    "knock_off": knock_off,
    "journal_off": journal_off,
    "orphan_guard_off": orphan_guard_off,
    "stop_off": stop_off,
}
