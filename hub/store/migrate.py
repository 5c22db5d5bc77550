"""The schema of a store as a whole: numbered steps from one version to the next.

Theory. A store says its version under one key that every version can read. A newer one than this hub knows is refused
before anything is written, so that going back to the older program by mistake harms nothing. An older one is brought
forward step by step, in one transaction: a crash in the middle leaves the older store as it was, and the next start
begins anew. A map that is not empty and says nothing is somebody else's.

A step works on bytes that an older program wrote. It is tried on a kept store of that version (tests/store/kept), which
is made with that program before the next version is begun. When a record's own version changes, the step that needs the
old form keeps the old decoder.

| version | what is new |
| --- | --- |
| 1 | the first |
| 2 | what has ended is listed by the time of its end; the log may begin behind an anchor |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from hub.core import task as tasks
from hub.core.task import Lane
from hub.store import codec, index, keys
from hub.store.ordered import Ordered, ReadOrdered, walk
from kit import errors, logs

log = logs.get(__name__)

VERSION: Final = 2
_MAGIC: Final = b"agentcom store "

FORGET_EVERY: Final = 10_000
"""Keys written between two marks: nothing here is undone alone, so what was replaced need not be remembered."""


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
        count = STEPS[step](kv)
        log.info("store.migrated", version_before=step, version_after=step + 1, entries=count)
    kv.put(keys.SCHEMA, _MAGIC + str(VERSION).encode())
    kv.mark()


def _list_what_has_ended(kv: Ordered) -> int:
    """1 to 2: every record that has ended gets its entry in the list of its sort. How many."""
    count = 0
    for entry in _ended_entries(kv):
        kv.add(entry)
        count += 1
        if count % FORGET_EVERY == 0:
            kv.mark()
    return count


def _ended_entries(kv: ReadOrdered) -> Iterator[bytes]:
    """From the lists by state where there is one: what is alive may be a million tasks, and needs no look."""
    for state in sorted(tasks.FINAL):
        for lane in Lane:
            prefix = keys.by_state(state, lane)
            for entry in walk(kv, prefix, keys.end(prefix)):
                key = keys.TASK + entry[len(prefix) :]
                raw = kv.get(key)
                if raw is None:
                    raise codec.corrupt(key, "is missing, but listed")
                yield from _new_ones(index.of_task(codec.TASK.decode(raw, key)))
    kinds: tuple[index.Kind[Any], ...] = (index.GOALS, index.CHANGES, index.TOKENS)
    for kind in kinds:
        assert kind.entries is not None
        for key in walk(kv, kind.prefix, keys.end(kind.prefix)):
            raw = kv.get(key)
            assert raw is not None
            yield from _new_ones(kind.entries(kind.codec.decode(raw, key)))


def _new_ones(entries: tuple[bytes, ...]) -> Iterator[bytes]:
    return (entry for entry in entries if entry.startswith(keys.ENDED))


STEPS: Final[dict[int, Callable[[Ordered], int]]] = {1: _list_what_has_ended}
"""From this version to the next one; each gives how many entries it wrote."""
