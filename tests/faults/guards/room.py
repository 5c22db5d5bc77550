"""Guards of a store without room, taken out."""

from __future__ import annotations

from typing import Any

from tests.faults.patching import patch


def no_reserve() -> None:
    """Submits may use the last page."""
    from hub.store.lmdb import LmdbEnvironment

    patch(LmdbEnvironment, "make_room", _grow)


def impatient_when_full() -> None:
    """A store that takes nothing calls nobody back soon, and leases pass meanwhile."""
    from hub.engine.live.sessions import Sessions

    patch(Sessions, "not_now", lambda self, problem: None)


def _grow(self: Any) -> bool:
    self.grow()
    return True


GUARDS = {"no_reserve": no_reserve, "impatient_when_full": impatient_when_full}
