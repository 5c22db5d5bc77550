"""Compaction of an LMDB store: nothing is lost by it, whatever ends it in the middle."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hub.core.backup import Trigger
from hub.store import folder
from hub.store.care import compaction, errand, pages
from hub.store.care.backups import Backups
from hub.store.lmdb import LmdbStore
from kit import errors
from tests.store.build import NOW, task_id
from tests.store.whole import everything, make

ROOT = Path(__file__).parents[2]
ID = "01hgw2n8abcdefghjkmn"
LATER = 1_790_000_000.0


def forget(first: int, last: int):
    def script(txn) -> None:
        for number in range(first, last):
            found = txn.task(task_id(number))
            if found is not None:
                txn.delete_task(found)

    return script


def ids_in(store: LmdbStore) -> list[str]:
    return [one.id for one in store.read(lambda reader: reader.tasks(limit=100_000))]


def child(what: str, *paths: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.store.whole", what, *map(os.fspath, paths)]
    return subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def close(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()


async def test_compaction_gives_space_back_and_keeps_everything(tmp_path: Path):
    store = await make(tmp_path / "store", rounds=60)
    await store.write(forget(1, 1_100))
    await store.write(lambda txn: txn.append(NOW, "hub.started", "hub"))
    position, uid = store.read(lambda reader: (reader.position(), reader.meta("uid")))
    left = ids_in(store)
    before, after = await store.compact()
    assert after < before / 2 and (tmp_path / "store" / "data.mdb").stat().st_size == after
    assert ids_in(store) == left and store.read(lambda reader: (reader.position(), reader.meta("uid"))) == (
        position,
        uid,
    )
    await store.write(everything(50_001))  # it lives on, also after it was opened again
    assert store.verify_chain() == position + 20
    await store.close()
    store = LmdbStore.open(tmp_path / "store")
    assert len(ids_in(store)) == len(left) + 20
    await store.close()
    assert errand.check(tmp_path / "store" / "data.mdb").problems == ()


async def test_writes_wait_for_a_compaction_and_reads_go_on(tmp_path: Path):
    store = await make(tmp_path / "store", rounds=40)
    busy = asyncio.create_task(store.compact())
    writes = [asyncio.create_task(store.write(everything(10_001 + 20 * n))) for n in range(20)]
    read = 0
    while not busy.done():
        assert store.read(lambda reader: reader.task(task_id(1))) is not None
        read += 1
        await asyncio.sleep(0)
    await asyncio.gather(*writes)
    assert read > 0
    assert len(ids_in(store)) == 40 * 20 + 20 * 20
    await store.close()
    assert errand.check(tmp_path / "store").problems == ()


async def test_a_backup_and_an_audit_read_the_store_that_was_compacted(tmp_path: Path):
    store = await make(tmp_path / "store")
    for number in range(5):
        await store.compact()
        await store.write(everything(10_001 + 20 * number))
        assert (await errand.run("check", str(tmp_path / "store"))).problems == ()
    made = await Backups(tmp_path / "backups", tmp_path / "store").make(ID, NOW, Trigger.REQUEST)
    assert made.event_position == 200
    await store.close()


async def test_a_tool_that_reads_the_old_file_does_not_confuse_the_new_one(tmp_path: Path):
    """Its table of snapshots tells of the transactions of the old file; those of the new one are counted anew."""
    store = await make(tmp_path / "store", rounds=20)
    holder = child("hold", tmp_path / "store")
    assert holder.stdout is not None and holder.stdout.readline().strip().isdigit()
    for number in range(3):
        await store.compact()
        await store.write(everything(10_001 + 20 * number))
        if number:  # odd and even counts: they name the meta page
            await store.write(forget(10_001 + 20 * number, 10_011 + 20 * number))
    assert len(ids_in(store)) == 20 * 20 + 20 + 2 * 10
    await store.close()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    close(holder)
    assert errand.check(tmp_path / "store" / "data.mdb").problems == ()
    store = LmdbStore.open(tmp_path / "store")
    assert len(ids_in(store)) == 20 * 20 + 20 + 2 * 10
    await store.close()


async def test_a_disk_without_room_refuses_a_compaction_and_the_store_lives_on(tmp_path: Path, monkeypatch):
    store = await make(tmp_path / "store")
    monkeypatch.setattr(store.environment, "disk_free_bytes", lambda: 1 << 20)
    with pytest.raises(errors.Exhausted) as caught:
        await store.compact()
    assert caught.value.reason == "DISK_FULL"
    monkeypatch.undo()
    await store.write(everything(10_001))
    assert not (tmp_path / "store" / folder.DRAFT_NAME).exists()
    await store.close()


@pytest.mark.parametrize("number", range(4))
async def test_kill_9_in_the_middle_of_a_compaction_leaves_a_good_store(
    tmp_path: Path, rng: random.Random, number: int
):
    await (await make(tmp_path / "store", rounds=40)).close()
    process = child("compact", tmp_path / "store")
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    wanted = rng.randrange(1, 8)
    acknowledged = [process.stdout.readline().strip() for _ in range(wanted)]
    await asyncio.sleep(rng.random() * 0.02)  # anywhere in what follows the last word: the point of it
    process.kill()
    acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    close(process)
    assert errand.check(tmp_path / "store" / "data.mdb").problems == ()
    store = LmdbStore.open(tmp_path / "store")
    there = set(ids_in(store))
    assert there.issuperset(acknowledged)
    await store.write(everything(90_001))
    await store.compact()
    await store.close()
    assert errand.check(tmp_path / "store").problems == ()


async def test_a_store_that_is_not_open_is_compacted_and_a_damaged_one_is_not(tmp_path: Path):
    store = await make(tmp_path / "store", rounds=30)
    await store.write(forget(1, 500))
    await store.write(lambda txn: txn.append(NOW, "hub.started", "hub"))
    with pytest.raises(errors.Unavailable):
        compaction.compact(tmp_path / "store")
    await store.close()
    before, after = compaction.compact(tmp_path / "store")
    assert after < before
    assert errand.check(tmp_path / "store").problems == ()
    os.truncate(tmp_path / "store" / "data.mdb", after // 2)
    with pytest.raises(pages.Broken):
        compaction.compact(tmp_path / "store")
