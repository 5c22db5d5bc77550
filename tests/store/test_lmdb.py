"""The LMDB store only: what is on the disk, and who may open it."""

from __future__ import annotations

# Scripts here are lambdas that bind loop variables and put many records: mypy infers neither.
# mypy: disable-error-code="misc,func-returns-value"
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from hub.core.task import State
from hub.store import codec, keys, migrate
from hub.store.lmdb import LmdbStore
from kit import errors
from tests.store.build import NOW, changed, filed, spec, task, task_id

ROOT = Path(__file__).parents[2]
Open = Callable[[], LmdbStore]


def child(name: str, *arguments: str) -> subprocess.Popen[str]:
    """A real process that runs one of the scripts of children.py."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store.children", name, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def raw_edit(path: Path, edit: Callable[[Any], object]) -> None:
    """Change the file behind the store's back."""
    with lmdb.open(os.fspath(path), map_size=1 << 30) as env, env.begin(write=True) as txn:
        edit(txn)


async def test_everything_is_there_after_opening_again(lmdb_open: Open) -> None:
    store = lmdb_open()
    uid = store.read(lambda r: r.meta("uid"))
    await store.write(filed(task(1), task(2)))
    event = await store.write(lambda txn: txn.append(NOW, "hub.started", "hub"))
    await store.close()
    store = lmdb_open()
    assert store.read(lambda r: r.tasks(limit=9)) == [task(1), task(2)]
    assert store.read(lambda r: r.meta("uid")) == uid
    assert store.read(lambda r: r.events(after=0, limit=9)) == [event]
    second = await store.write(lambda txn: txn.append(NOW, "hub.started", "hub"))
    assert second.position == 2
    assert await store.write(lambda txn: sum(txn.counts().values())) == 2
    assert store.verify_chain() == 2
    await store.close()


@pytest.mark.parametrize("after", [1, 40, 400])
async def test_every_acknowledged_write_survives_kill_9(tmp_path: Path, lmdb_open: Open, after: int) -> None:
    writer = child("write_for_ever", os.fspath(tmp_path / "store"))
    assert writer.stdout is not None
    acknowledged = []
    for line in writer.stdout:
        acknowledged.append(line.strip())
        if len(acknowledged) == after:
            writer.send_signal(signal.SIGKILL)
            break
    acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    store = lmdb_open()
    for id in acknowledged:
        assert store.read(lambda r, id=id: r.task(id)) is not None
    found = store.read(lambda r: r.tasks(limit=100_000))
    assert len(found) >= len(acknowledged)
    # Whole functions only: each files two tasks with one event.
    assert len(found) == 2 * store.read(lambda r: r.position()) == 2 * store.verify_chain()
    assert sum(store.read(lambda r: r.counts()).values()) == len(found)
    assert len(store.read(lambda r: r.tasks_in(State, [t.lane for t in found], limit=100_000))) == len(found)
    await store.close()


async def test_a_flipped_bit_is_found_and_never_served(tmp_path: Path, lmdb_open: Open) -> None:
    store = lmdb_open()
    await store.write(filed(task(1, reason="right"), task(2)))
    await store.write(lambda txn: txn.put_artifact(task_id(1), 1, "log", b"content"))
    await store.close()

    def flip(txn: Any) -> None:
        for key in (keys.named(keys.TASK, task_id(1)), keys.artifact(task_id(1), 1, "log")):
            value = bytearray(txn.get(key))
            value[-3] ^= 4
            txn.put(key, bytes(value))

    raw_edit(tmp_path / "store", flip)
    store = lmdb_open()
    for look in (
        lambda r: r.task(task_id(1)),
        lambda r: r.tasks(limit=9),
        lambda r: r.ready_heads(1) and r.tasks_in([State.QUEUED], [task(1).lane], limit=9),
        lambda r: r.artifact(task_id(1), 1, "log"),
    ):
        with pytest.raises(errors.DataLoss) as caught:
            store.read(look)
        assert caught.value.reason == "STORE_CORRUPT"
    with pytest.raises(errors.DataLoss):
        await store.write(changed(task(1)))
    assert store.read(lambda r: r.task(task_id(2))) == task(2)
    await store.close()


async def test_an_index_entry_that_is_gone_is_found_when_its_record_changes(tmp_path: Path, lmdb_open: Open) -> None:
    store = lmdb_open()
    await store.write(filed(task(1)))
    await store.close()
    entry = keys.ready_entry(1, task(1).lane, NOW + 1, task_id(1))
    raw_edit(tmp_path / "store", lambda txn: txn.delete(entry))
    store = lmdb_open()
    with pytest.raises(errors.DataLoss):
        await store.write(changed(task(1, state=State.PARKED)))
    assert store.read(lambda r: r.task(task_id(1))) == task(1)
    await store.close()


@pytest.mark.parametrize("what", ["flip", "forge", "drop", "swap", "truncate", "head"])
async def test_a_changed_event_log_is_found(tmp_path: Path, lmdb_open: Open, what: str) -> None:
    store = lmdb_open()
    await store.write(lambda txn: [txn.append(NOW, "hub.started", "hub", n=str(n)) for n in range(10)])
    assert store.verify_chain() == store.verify_chain(after=9) == store.verify_chain(after=10) == 10
    assert (store.verify_chain(limit=4), store.verify_chain(after=4, limit=3)) == (4, 7)
    await store.close()

    def edit(txn: Any) -> None:
        five, six = txn.get(keys.event(5)), txn.get(keys.event(6))
        if what == "flip":
            txn.put(keys.event(5), five[:-30] + b"!" + five[-29:])
        elif what == "forge":  # with a right checksum
            body = codec.unseal(codec.EVENT.tag, five, b"")
            txn.put(keys.event(5), codec.seal(codec.EVENT.tag, body.replace(b"hub.started", b"hub.stopped")))
        elif what == "drop":
            txn.delete(keys.event(5))
        elif what == "swap":
            txn.put(keys.event(5), six)
            txn.put(keys.event(6), five)
        elif what == "truncate":
            for position in range(5, 11):
                txn.delete(keys.event(position))
        else:
            txn.put(keys.COMMIT, store_head(txn))

    raw_edit(tmp_path / "store", edit)
    store = lmdb_open()
    with pytest.raises(errors.DataLoss) as caught:
        store.verify_chain()
    if what != "head":
        assert caught.value.metadata["good"] == "4"
    await store.close()


def store_head(txn: Any) -> bytes:
    """A commit record that tells of an event that is not there."""
    head = codec.COMMIT.decode(txn.get(keys.COMMIT), keys.COMMIT)
    return codec.COMMIT.encode(codec.Commit(position=head.position + 1, hash=head.hash, counts=head.counts))


async def test_a_newer_schema_is_refused_and_not_touched(tmp_path: Path, lmdb_open: Open) -> None:
    await lmdb_open().close()
    raw_edit(tmp_path / "store", lambda txn: txn.put(keys.SCHEMA, b"agentcom store 7"))
    data = tmp_path / "store" / "data.mdb"
    before = data.read_bytes()
    with pytest.raises(errors.IllegalState, match=f"version 7, this hub knows up to {migrate.VERSION}") as caught:
        lmdb_open()
    assert caught.value.reason == "STORE_NEWER"
    assert data.read_bytes() == before
    raw_edit(tmp_path / "store", lambda txn: txn.put(keys.SCHEMA, b"agentcom store 2"))
    await lmdb_open().close()


@pytest.mark.parametrize("schema", [None, b"something else", b"agentcom store x"])
def test_a_map_that_is_no_store_is_refused(tmp_path: Path, lmdb_open: Open, schema: bytes | None) -> None:
    (tmp_path / "store").mkdir()
    raw_edit(tmp_path / "store", lambda txn: txn.put(keys.SCHEMA if schema else b"key", schema or b"value"))
    with pytest.raises(errors.IllegalState) as caught:
        lmdb_open()
    assert caught.value.reason == "STORE_UNKNOWN"


def test_a_file_that_is_no_map_is_refused_in_one_line(tmp_path: Path, lmdb_open: Open) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.mdb").write_bytes(b"not a map" * 1000)
    with pytest.raises(errors.DataLoss, match="cannot be opened") as caught:
        lmdb_open()
    assert "\n" not in str(caught.value)


async def test_a_second_hub_on_the_folder_is_refused_until_the_first_has_ended(tmp_path: Path, lmdb_open: Open) -> None:
    holder = child("hold", os.fspath(tmp_path / "store"))
    assert holder.stdout is not None and holder.stdout.readline() == "open\n"
    with pytest.raises(errors.Unavailable, match=f"in use by another hub \\(process {holder.pid}\\)") as caught:
        lmdb_open()
    assert caught.value.reason == "STORE_LOCKED" and "\n" not in str(caught.value)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    store = lmdb_open()
    with pytest.raises(errors.Unavailable, match="in use"):
        lmdb_open()
    await store.close()
    await lmdb_open().close()


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.Unavailable, match="cannot be used") as caught:
        LmdbStore.open(tmp_path / "file" / "store")
    assert caught.value.reason == "STORE_FOLDER"


async def test_an_environment_that_refuses_all_work_is_opened_anew(lmdb_open: Open) -> None:
    store = lmdb_open()
    await store.write(filed(task(1)))
    environment: Any = store._environment

    class Panicked:
        """What LMDB does after its meta page could not be written."""

        def __init__(self, env: Any) -> None:
            self.env = env

        def __getattr__(self, name: str) -> Any:
            return getattr(self.env, name)

        def begin(self, **options: Any) -> Any:
            raise lmdb.PanicError("update of meta page failed")

    environment._env = Panicked(environment._env)
    await store.write(filed(task(2)))
    assert store.read(lambda r: r.tasks(limit=9)) == [task(1), task(2)]
    assert await store.write(lambda txn: sum(txn.counts().values())) == 2
    await store.close()


async def test_a_copy_made_while_commits_go_on_is_a_whole_store(tmp_path: Path, lmdb_open: Open) -> None:
    store = lmdb_open()
    await store.write(filed(task(0)))
    target = tmp_path / "copy"
    target.mkdir()
    stop = asyncio.Event()

    async def keep_writing() -> None:
        n = 1
        while not stop.is_set():

            def script(txn, n=n):
                txn.add_task(task(n), spec())
                txn.append(NOW, "task.created", f"tasks/{task_id(n)}")

            await store.write(script)
            n += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_writing())
        await asyncio.to_thread(store.copy, target)
        stop.set()
    await store.close()
    copy = LmdbStore.open(target)
    count = len(copy.read(lambda r: r.tasks(limit=1_000_000)))
    assert count == 1 + copy.verify_chain() == sum(copy.read(lambda r: r.counts()).values())
    await copy.close()


async def test_many_snapshots_that_failed_leave_no_slot_taken(lmdb_open: Open) -> None:
    store = lmdb_open()
    kept = []
    for _ in range(1_000):
        try:
            store.read(lambda r: "".index("x"))
        except ValueError as error:
            kept.append(error)  # with its traceback, and the frames in it
    assert store.read(lambda r: r.position()) == 0
    assert store.reader_check() == 0
    await store.close()


async def test_a_transaction_that_is_kept_is_of_no_use(lmdb_open: Open) -> None:
    store = lmdb_open()
    txn = await store.write(lambda txn: txn)
    reader = store.read(lambda r: r)
    for kept in (txn, reader):
        with pytest.raises((AssertionError, AttributeError)):
            kept.spec(task_id(1))
    await store.write(filed(task(1)))
    await store.close()


async def test_nothing_is_lost_that_waits_when_the_store_closes(lmdb_open: Open) -> None:
    store = lmdb_open()
    writes = [asyncio.ensure_future(store.write(filed(task(n)))) for n in range(100)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*writes) == [None] * 100
    store = lmdb_open()
    assert len(store.read(lambda r: r.tasks(limit=999))) == 100
    await store.close()
