"""What the LMDB tests run in processes of their own: `python -m tests.store.children NAME FOLDER`."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from pathlib import Path

from hub.store import migrate
from hub.store.lmdb import LmdbStore
from kit import errors, logs
from tests.store.build import NOW, spec, task, task_id


def pair(number: int):
    """A script that files two tasks and one event: a torn one would show."""

    def script(txn):
        txn.add_task(task(2 * number), spec())
        txn.add_task(task(2 * number + 1), spec())
        txn.append(NOW, "task.created", f"tasks/{task_id(2 * number)}")

    return script


async def write_for_ever(folder: Path) -> None:
    """Print each id when, and only when, its write was acknowledged."""
    store = LmdbStore.open(folder, map_bytes_first=1 << 20)

    async def caller(first: int) -> None:
        for number in range(first, 1_000_000, 8):
            await store.write(pair(number))
            print(task_id(2 * number), flush=True)

    async with asyncio.TaskGroup() as group:
        for first in range(8):
            group.create_task(caller(first))


async def hold(folder: Path) -> None:
    """Keep the store open until somebody ends this process."""
    LmdbStore.open(folder)
    print("open", flush=True)
    await asyncio.Event().wait()


async def full_disk(folder: Path) -> None:
    """Let the file grow no further, as a full disk would, then give it room again."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = LmdbStore.open(folder)
    await store.write(pair(0))
    print("before")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))

    def large(txn):
        pair(1)(txn)
        txn.put_artifact(task_id(1), 1, "x", b"x" * (4 << 20))

    try:
        await store.write(large)
    except (errors.Exhausted, errors.Unavailable):
        print("refused")
    assert len(store.read(lambda r: r.tasks(limit=99))) == 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await store.write(large)
    print("after")
    assert len(store.read(lambda r: r.tasks(limit=99))) == 4
    assert store.read(lambda r: r.position()) == store.verify_chain() == 2
    print("whole")
    await store.close()


async def migrate_and_hang(folder: Path) -> None:
    """Write half of what the step from version 1 writes, say so, and wait for the end."""
    step = migrate.STEPS[1]

    def half(kv):
        count = step(kv)
        print("in the middle", flush=True)
        signal.pause()
        return count

    migrate.STEPS[1] = half
    LmdbStore.open(folder)


if __name__ == "__main__":
    logs.configure()
    asyncio.run(
        {"write_for_ever": write_for_ever, "hold": hold, "full_disk": full_disk, "migrate_and_hang": migrate_and_hang}[
            sys.argv[1]
        ](Path(sys.argv[2]))
    )
