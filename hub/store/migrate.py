"""The schema of a store as a whole: numbered steps from one version to the next.

Theory. A store says its version under one key that every version can read. A newer one than this hub knows is refused
before anything is written, so that going back to the older program by mistake harms nothing. An older one is brought
forward step by step, in one transaction. A map that is not empty and says nothing is somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hub.store import keys
from hub.store.ordered import Ordered, ReadOrdered
from kit import errors

VERSION: Final = 1
_MAGIC: Final = b"agentcom store "

STEPS: Final[dict[int, Callable[[Ordered], None]]] = {}
"""From this version to the next one. Version 1 is the first: there is nothing to bring forward yet."""


def found(kv: ReadOrdered) -> int | None:
    """The version of a store; None when it is new. Raises IllegalState when this hub must not touch it."""
    raw = kv.get(keys.SCHEMA)
    if raw is None:
        if kv.keys(b"\0", b"\xff", 1):
            raise errors.IllegalState(
                "the data folder holds a map that is no store of a hub", state="unknown", reason="STORE_UNKNOWN"
            )
        return None
    number = raw.removeprefix(_MAGIC)
    if number == raw or not number.isdigit():
        raise errors.IllegalState(
            "the data folder holds a store whose version cannot be read", state="unknown", reason="STORE_UNKNOWN"
        )
    version = int(number)
    if version > VERSION:
        raise errors.IllegalState(
            f"the store has schema version {version}, this hub knows up to {VERSION}: use a newer hub",
            state=f"version {version}",
            reason="STORE_NEWER",
        )
    return version


def bring(kv: Ordered) -> None:
    """Make a new store, or bring an older one to this version."""
    version = found(kv)
    if version == VERSION:
        return
    for step in range(version if version is not None else VERSION, VERSION):
        STEPS[step](kv)
    kv.put(keys.SCHEMA, _MAGIC + str(VERSION).encode())
