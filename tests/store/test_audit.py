"""The audit and the reading of pages: what is whole is good, and damage anywhere is found, never served and deadly to
nobody.
"""

from __future__ import annotations

import asyncio
import random
import struct
from pathlib import Path

import pytest

from hub.store import codec, keys
from hub.store.care import audit, errand, pages
from hub.store.lmdb import LmdbStore
from hub.store.memory import MemoryStore
from hub.store.reader import Classes, OrderedReader
from kit import errors
from tests.store.build import NOW, task, task_id
from tests.store.whole import everything, make, raw_edit


async def made(path: Path, rounds: int = 5) -> Path:
    """A closed store with something of every sort."""
    await (await make(path, rounds)).close()
    return path


async def test_a_whole_store_is_good_and_everything_in_it_was_read(tmp_path: Path):
    await made(tmp_path / "store")
    report = errand.check(tmp_path / "store")
    assert report.problems == ()
    assert report.events == 100
    assert report.records > 100 * 6
    assert report.index_entries > 100 * 6
    assert report.identity.position == 100 and report.identity.uid and report.identity.newest_at == NOW + 100
    from_file = errand.check(tmp_path / "store" / "data.mdb")
    assert (from_file.records, from_file.index_entries, from_file.problems) == (
        report.records,
        report.index_entries,
        (),
    )


async def test_a_store_at_work_can_be_read_through_while_it_grows(tmp_path: Path):
    store = await make(tmp_path / "store", map_bytes_first=1 << 20)
    report = await errand.run("check", str(tmp_path / "store"))
    assert report.problems == ()
    audits = [asyncio.create_task(errand.run("check", str(tmp_path / "store"))) for _ in range(3)]
    first = 10_001
    while not all(one.done() for one in audits):
        await store.write(everything(first))
        first += 20
    assert first > 10_001 + 200
    assert [one.result().problems for one in audits] == [(), (), ()]
    await store.close()


async def test_a_store_in_memory_can_be_read_through(tmp_path: Path):
    store = MemoryStore.open()
    await store.write(everything(1))
    found = audit.Audit(lambda fn: fn(OrderedReader(store._map, Classes()))).run()
    assert found.problems == () and found.events == 20


def changed_value(key: bytes):
    def edit(txn) -> None:
        raw = bytearray(txn.get(key))
        raw[-1] ^= 1
        txn.put(key, bytes(raw))

    return edit


def moved(old: bytes, new: bytes):
    def edit(txn) -> None:
        txn.put(new, txn.pop(old))

    return edit


def gone(key: bytes):
    return lambda txn: txn.delete(key)


def stray(prefix: bytes):
    return lambda txn: txn.put(prefix + TWO, b"")


ONE, TWO = task_id(1), task_id(2).encode()
TASK = keys.named(keys.TASK, ONE)
BY_STATE = keys.by_state(task(2).state, task(2).lane) + TWO
EXPIRY = keys.answer_expiry(NOW + 3, keys.answer("local", "CreateTask", "r-3"))
LACKS, STRAY = "lacks its index entry", "without its record"
DAMAGE = {
    "a bit of a task": (changed_value(TASK), "checksum"),
    "a bit of a contract": (changed_value(keys.named(keys.SPEC, ONE)), "checksum"),
    "a bit of an artefact": (changed_value(keys.artifact(ONE, 3, "log")), "checksum"),
    "a bit of an event": (changed_value(keys.event(50)), "event 50|checksum"),
    "a bit of the commit record": (changed_value(keys.COMMIT), "checksum"),
    "a bit of a small fact": (changed_value(keys.meta("uid")), "checksum"),
    "a task under another's key": (moved(TASK, keys.named(keys.TASK, task_id(999))), "holds the record of"),
    "a contract without its task": (gone(TASK), "contract of no task"),
    "a task without its contract": (gone(keys.named(keys.SPEC, ONE)), "lacks its contract"),
    "no entry by state": (gone(BY_STATE), LACKS),
    "a stray entry of a holder": (stray(keys.held("ben")), STRAY),
    "a stray due time": (stray(keys.due(NOW)), STRAY),
    "a stray goal": (stray(keys.of_goal("x")), STRAY),
    "a stray dependant": (stray(keys.dependants(task_id(9))), STRAY),
    "a stray end": (stray(keys.ended(1, NOW)), STRAY),
    "no dependant": (gone(keys.dependants(task_id(1)) + TWO), LACKS),
    "no hash of a token": (gone(keys.token_hash(f"{1:064x}") + ONE.encode()), LACKS),
    "no change on the train": (gone(keys.train("r") + ONE.encode()), LACKS),
    "no expiry of an answer": (gone(EXPIRY), LACKS),
    "an event that is gone": (gone(keys.event(50)), f"event 50|{STRAY}"),
    "an event not listed": (gone(keys.event_of(f"tasks/{ONE}", 1)), LACKS),
    "wrong counts": (lambda txn: txn.put(keys.COMMIT, wrong_counts(txn)), "newest commit says"),
    "a key of an unknown sort": (lambda txn: txn.put(b"~x", b""), "unknown sort"),
    "no schema": (gone(keys.SCHEMA), "no store of a hub"),
}


def wrong_counts(txn) -> bytes:
    head = codec.COMMIT.decode(txn.get(keys.COMMIT), b"")
    counts = {packed: count + 1 for packed, count in head.counts.items()}
    return codec.COMMIT.encode(codec.Commit(position=head.position, hash=head.hash, counts=counts))


@pytest.mark.parametrize("what", DAMAGE)
async def test_damage_of_every_sort_is_found(tmp_path: Path, what: str):
    path = await made(tmp_path / "store", 3)
    edit, told = DAMAGE[what]
    raw_edit(path, edit)
    problems = errand.check(path).problems
    assert problems
    assert any(word in problem for problem in problems for word in told.split("|")), problems


async def test_at_most_a_hundred_problems_are_told(tmp_path: Path):
    path = await made(tmp_path / "store", 10)

    def flip_all(txn) -> None:
        for number in range(1, 201):
            changed_value(keys.named(keys.TASK, task_id(number)))(txn)

    raw_edit(path, flip_all)
    assert len(errand.check(path).problems) == 100


# The file


async def test_every_place_where_a_bit_is_flipped_is_found_or_is_of_no_use(tmp_path: Path, rng: random.Random):
    """A flip in what a reader follows is found; one in free space, padding or an old meta page changes nothing."""
    path = await made(tmp_path / "store", 3)
    file = path / "data.mdb"
    whole = file.read_bytes()
    target = tmp_path / "flipped.mdb"
    was = errand.check(file)
    found = 0
    for _ in range(150):
        place = rng.randrange(len(whole))
        target.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        report = await errand.run("check", str(target)) if found < 3 else errand.check(target)
        if report.problems:
            found += 1
        else:  # then everything that can be read is as it was
            assert (report.records, report.index_entries, report.identity) == (
                was.records,
                was.index_entries,
                was.identity,
            )
    assert found >= 50


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.95])
async def test_a_file_that_is_cut_short_is_found(tmp_path: Path, share: float):
    file = await made(tmp_path / "store") / "data.mdb"
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(int(size * share))
    with pytest.raises(pages.Broken):
        pages.check(file)
    assert errand.check(file).problems


META = 16 + 24
FIELDS = {
    "the magic": (16, b"\0\0\0\0"),
    "the version": (20, b"\7\0\0\0"),
    "the page size": (META, b"\1\0\0\0"),
    "the depth": (META + 48 + 6, b"\xff\0"),
    "the root": (META + 48 + 40, struct.pack("<Q", 1 << 40)),
    "the entries": (META + 48 + 32, struct.pack("<Q", 3)),
}


@pytest.mark.parametrize("field", FIELDS)
async def test_a_damaged_meta_page_is_found(tmp_path: Path, field: str):
    path = await made(tmp_path / "store")
    file = path / "data.mdb"
    newest = pages.head(file)
    offset, value = FIELDS[field]
    data = bytearray(file.read_bytes())
    at = (newest.txn & 1) * newest.page_size + offset
    data[at : at + len(value)] = value
    file.write_bytes(data)
    with pytest.raises(pages.Broken):
        pages.check(file)
    if field != "the entries":  # what the hub looks at when it opens the store costs two reads
        with pytest.raises(errors.DataLoss) as caught:
            LmdbStore.open(path)
        assert caught.value.reason == "STORE_CORRUPT"


COUNTS = {"branches": 8, "leaves": 16, "overflows": 24, "entries": 32}


@pytest.mark.parametrize("count", COUNTS)
async def test_a_store_at_work_is_compared_with_what_its_newest_commit_counts(tmp_path: Path, count: str):
    store = await make(tmp_path / "store")
    try:
        file = tmp_path / "store" / "data.mdb"
        newest = pages.head(file)
        at = (newest.txn & 1) * newest.page_size + META + 48 + COUNTS[count]
        with file.open("r+b") as opened:
            opened.seek(at)
            opened.write(struct.pack("<Q", getattr(newest.main, count) + 1))
        (problem,) = (await errand.run("check", str(tmp_path / "store"))).problems
        assert "the tree has" in problem and "the commit says" in problem
    finally:
        await store.close()


async def test_a_commit_whose_meta_page_is_gone_already_is_looked_for_no_longer(tmp_path: Path):
    path = await made(tmp_path / "store")
    newest = pages.head(path / "data.mdb")
    assert pages.check_at(path / "data.mdb", newest.txn)
    assert not pages.check_at(path / "data.mdb", newest.txn - 2)


async def test_a_page_that_is_used_twice_or_is_free_too_is_found(tmp_path: Path):
    path = await made(tmp_path / "store")
    file = path / "data.mdb"
    newest = pages.head(file)
    data = bytearray(file.read_bytes())
    root = newest.main.root * newest.page_size
    first, second = struct.unpack_from("<2H", data, root + 16)
    data[root + second : root + second + 6] = data[root + first : root + first + 6]
    file.write_bytes(data)
    with pytest.raises(pages.Broken, match="used twice"):
        pages.check(file)


@pytest.mark.parametrize("how", ["empty", "gone"])
async def test_a_store_whose_file_is_gone_is_a_loss_and_no_new_store(tmp_path: Path, how: str):
    path = await made(tmp_path / "store")
    if how == "gone":
        (path / "data.mdb").unlink()
    else:
        (path / "data.mdb").write_bytes(b"")
    with pytest.raises(errors.DataLoss) as caught:
        LmdbStore.open(path)
    assert caught.value.reason == "STORE_CORRUPT"
    assert not (path / "data.mdb").exists() or not (path / "data.mdb").stat().st_size
