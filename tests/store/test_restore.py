"""Restore of an LMDB store: the old one or the new one is there, whatever ends it; no generation comes twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.core.agent import Agent
from hub.core.backup import Trigger
from hub.core.task import Requirement, State
from hub.engine.script import lifecycle, queue
from hub.store.care import errand
from hub.store.care import restore as restoring
from hub.store.care.backups import Backups
from hub.store.lmdb import LmdbStore
from kit import errors
from tests.store.build import NOW, filed, spec, task, task_id
from tests.store.test_audit import TASK, changed_value
from tests.store.test_compact import child, close, ids_in
from tests.store.whole import everything, make, raw_edit

ROOT = Path(__file__).parents[2]
ID = "01hgw2n8abcdefghjkmn"
LATER = 1_790_000_000.0


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Errands run in this process where no hub has the store open in it: a process costs a second on a busy core."""
    if "restore" in request.node.name or "overwritten" in request.node.name or "replaced" in request.node.name:
        apart = errand.run

        async def run(what: str, *words: str, timeout_s: float = 60.0) -> Any:
            if what == "copy":
                return await apart(what, *words)
            report = getattr(errand, what)(*map(Path, words))
            assert not report.failure, report
            return report

        monkeypatch.setattr(errand, "run", run)


@pytest.fixture
async def backed(tmp_path: Path) -> Path:
    """A store of 100 events with a backup of it."""
    store = await make(tmp_path / "store")
    await Backups(tmp_path / "backups", tmp_path / "store").make(ID, NOW, Trigger.REQUEST)
    await store.close()
    return tmp_path / "backups" / f"{ID}.mdb"


async def opened(path: Path) -> tuple[int, int]:
    """That a hub can work with it: its newest event and its tasks, after a write."""
    store = LmdbStore.open(path)
    position, count = store.read(lambda reader: reader.position()), len(ids_in(store))
    await store.write(everything(900_001))
    await store.close()
    assert errand.check(path).problems == ()
    return position, count


async def more(path: Path) -> None:
    store = LmdbStore.open(path)
    await store.write(everything(5_001))
    await store.close()


async def test_a_backup_is_restored_in_the_place_of_nothing(tmp_path: Path, backed: Path):
    done = await restoring.restore(backed, tmp_path / "new" / "store", LATER)
    assert (done.replaced, done.aside, done.identity.position) == (None, None, 100)
    assert await opened(tmp_path / "new" / "store") == (101, 100)  # one event tells of the restore
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["store"]


async def test_a_newer_store_is_not_overwritten_without_force_and_kept_aside_with_it(tmp_path: Path, backed: Path):
    await more(tmp_path / "store")
    data = (tmp_path / "store" / "data.mdb").read_bytes()
    with pytest.raises(errors.IllegalState, match="20 events that the backup has not: add --force") as caught:
        await restoring.restore(backed, tmp_path / "store", LATER)
    assert caught.value.reason == "STORE_NEWER"
    assert (tmp_path / "store" / "data.mdb").read_bytes() == data
    done = await restoring.restore(backed, tmp_path / "store", LATER, force=True)
    assert done.aside is not None and (done.aside / "data.mdb").read_bytes() == data
    assert done.replaced is not None and done.replaced.position == 120
    assert await opened(tmp_path / "store") == (101, 100)
    assert await opened(done.aside) == (120, 120)  # and that one is whole, too


async def test_another_store_is_not_overwritten_without_force(tmp_path: Path, backed: Path):
    await (await make(tmp_path / "other", rounds=1)).close()
    with pytest.raises(errors.IllegalState, match="is another store"):
        await restoring.restore(backed, tmp_path / "other", LATER)
    await restoring.restore(backed, tmp_path / "other", LATER, force=True)
    assert await opened(tmp_path / "other") == (101, 100)


async def test_a_store_that_lived_on_after_a_restore_is_not_overwritten_though_its_log_is_shorter(
    tmp_path: Path, backed: Path
):
    """Positions alone would say that the older backup is newer: the chain tells that their ways have parted."""
    await more(tmp_path / "store")
    store = LmdbStore.open(tmp_path / "store")
    newer = await Backups(tmp_path / "backups", tmp_path / "store").make(f"{ID[:-1]}p", NOW, Trigger.REQUEST)
    await store.close()
    await restoring.restore(backed, tmp_path / "store", LATER, force=True)
    file = tmp_path / "backups" / f"{newer.id}.mdb"
    with pytest.raises(errors.IllegalState, match="lived on apart"):
        await restoring.restore(file, tmp_path / "store", LATER + 1)
    await restoring.restore(file, tmp_path / "store", LATER + 1, force=True)
    assert await opened(tmp_path / "store") == (121, 120)


async def test_the_same_store_or_an_older_part_of_it_is_overwritten_without_force(tmp_path: Path, backed: Path):
    await restoring.restore(backed, tmp_path / "store", LATER)
    assert await opened(tmp_path / "store") == (101, 100)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "garbage"])
async def test_a_store_that_cannot_be_read_is_replaced_and_kept_aside(tmp_path: Path, backed: Path, damage: str):
    data = tmp_path / "store" / "data.mdb"
    if damage == "gone":
        data.unlink()
    elif damage == "garbage":
        data.write_bytes(b"no map " * 10_000)
    else:
        os.truncate(data, data.stat().st_size // 2 if damage == "cut" else 0)
    kept = data.read_bytes() if data.exists() else None
    done = await restoring.restore(backed, tmp_path / "store", LATER)
    assert done.replaced is None
    assert (done.aside is None) == (kept is None)
    assert done.aside is None or (done.aside / "data.mdb").read_bytes() == kept
    assert await opened(tmp_path / "store") == (101, 100)


async def test_a_store_with_a_damaged_record_is_replaced(tmp_path: Path, backed: Path):
    raw_edit(tmp_path / "store", changed_value(TASK))
    await restoring.restore(backed, tmp_path / "store", LATER)
    assert await opened(tmp_path / "store") == (101, 100)


def break_backup(backup: Path, how: str) -> None:
    data = bytearray(backup.read_bytes())
    data[data.index(task_id(1).encode()) + 40] ^= 1
    if how == "flip":
        backup.write_bytes(data)
    elif how == "cut":
        os.truncate(backup, len(data) // 2)
    elif how == "gone":
        backup.unlink()
    else:
        backup.write_text("a shopping list")


def beside(path: Path, pattern: str) -> list[str]:
    return sorted(one.name for one in path.glob(pattern))


@pytest.mark.parametrize("how", ["flip", "cut", "gone", "other"])
async def test_a_damaged_backup_is_not_restored_even_with_force(tmp_path: Path, backed: Path, how: str):
    break_backup(backed, how)
    before = (tmp_path / "store" / "data.mdb").read_bytes()
    with pytest.raises(errors.Problem) as caught:
        await restoring.restore(backed, tmp_path / "store", LATER, force=True)
    assert caught.value.reason == ("BACKUP_NOT_FOUND" if how == "gone" else "BACKUP_DAMAGED")
    assert (tmp_path / "store" / "data.mdb").read_bytes() == before
    assert not (tmp_path / "store" / "restoring").exists()


async def test_a_restore_is_refused_while_a_hub_has_the_store(tmp_path: Path, backed: Path):
    store = LmdbStore.open(tmp_path / "store")
    with pytest.raises(errors.Unavailable, match=f"process {os.getpid()}.*stop it first"):
        await restoring.restore(backed, tmp_path / "store", LATER, force=True)
    await store.close()


@pytest.mark.parametrize("number", range(5))
async def test_kill_9_in_the_middle_of_a_restore_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, backed: Path, rng: random.Random, number: int
):
    await more(tmp_path / "store")
    process = child("restore", tmp_path / "store", backed)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    if number % 2:
        process.stdout.readline()
    await asyncio.sleep(rng.random() * 2.0)  # anywhere: the point of it
    process.kill()
    process.wait()
    restored = process.stdout.read().count("restored") + number % 2
    process.stdout.close()
    close(process)
    assert errand.check(tmp_path / "store" / "data.mdb").problems == ()
    position, count = await opened(tmp_path / "store")
    assert (position, count) in ((120, 120), (101, 100)) if not restored else (position, count) == (101, 100)
    # And what it left is in nobody's way.
    await restoring.restore(backed, tmp_path / "store", LATER + 10, force=True)
    assert await opened(tmp_path / "store") == (101, 100)
    assert not beside(tmp_path, "*.partial")


@pytest.mark.parametrize("step", ["link", "take_over", "replace", "mark_made"])
async def test_a_restore_that_dies_at_a_step_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, backed: Path, step: str
):
    """The few instructions that a random kill seldom meets."""
    await more(tmp_path / "store")
    patches = {
        "link": "import os as where; name = 'link'",
        "take_over": "from hub.store import folder as where; name = 'take_over'",
        "replace": "from pathlib import Path as where; name = 'replace'",
        "mark_made": "from hub.store import folder as where; name = 'mark_made'",
    }
    script = f"""
import asyncio, os, signal
from pathlib import Path
from hub.store.care import restore
{patches[step]}
setattr(where, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
asyncio.run(restore.restore(Path({os.fspath(backed)!r}), Path({os.fspath(tmp_path / "store")!r}), {LATER}, force=True))
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert await opened(tmp_path / "store") == ((101, 100) if step == "mark_made" else (120, 120))
    await restoring.restore(backed, tmp_path / "store", LATER, force=True)
    assert await opened(tmp_path / "store") == (101, 100)
    assert len(beside(tmp_path, "store.replaced-*")) == (2 if step == "mark_made" else 1)
    assert not beside(tmp_path, "*.partial")


# Generations


async def assigned(store: LmdbStore, id: str, agent: str) -> int:
    placed = await store.write(lambda txn: queue.assign(txn, id, agent, NOW))
    assert placed is not None
    return placed.task.generation


async def test_no_generation_is_handed_out_twice_across_restores(tmp_path: Path):
    """A zombie that was given a task after the backup never has the number of whoever gets it after the restore."""
    path, backups = tmp_path / "store", Backups(tmp_path / "backups", tmp_path / "store")
    store = LmdbStore.open(path)

    def file(txn) -> None:
        txn.class_for(Requirement())
        txn.agents.put(Agent(id="anna", created_at=NOW))
        lifecycle.file(txn, task_id(1), spec(), NOW)

    await store.write(file)
    await backups.make(ID, NOW, Trigger.REQUEST)
    given = {await assigned(store, task_id(1), "anna")}
    await store.close()
    for number in range(3):  # each time from the same old backup, and the last store is lost
        if number:
            (path / "data.mdb").unlink()
        await restoring.restore(backups.file(ID), path, LATER + number, force=True)
        store = LmdbStore.open(path)
        generation = await assigned(store, task_id(1), "ben")
        assert generation not in given and generation > max(given)
        given.add(generation)
        assert generation < 1 << 32
        restored = store.read(lambda reader: reader.events(after=0, limit=99))
        assert [event.type for event in restored].count("hub.restored") == 1
        await store.close()


async def test_a_holding_from_before_the_backup_keeps_its_generation(tmp_path: Path):
    path, backups = tmp_path / "store", Backups(tmp_path / "backups", tmp_path / "store")
    store = LmdbStore.open(path)
    await store.write(filed(task(1, state=State.RUNNING, agent="anna", generation=3)))
    await backups.make(ID, NOW, Trigger.REQUEST)
    await store.close()
    await restoring.restore(backups.file(ID), path, LATER)
    store = LmdbStore.open(path)
    held = store.read(lambda reader: reader.held_by("anna"))
    assert [(one.id, one.generation) for one in held] == [(task_id(1), 3)]
    await store.close()


@pytest.mark.parametrize(
    ("now", "known", "expected"),
    [
        (restoring.FLOOR_ZERO_AT + 500.0, 0, restoring.FLOOR_STEP),
        (restoring.FLOOR_ZERO_AT + 5_000_000.0, 0, 5_000_000),
        (0.0, 0, restoring.FLOOR_STEP),
        (restoring.FLOOR_ZERO_AT + 5_000_000.0, 6_000_000, 7_000_000),  # the clock was ahead then
    ],
)
def test_a_floor_is_above_all_that_were_before_also_with_a_clock_of_no_use(now: float, known: int, expected: int):
    backup = errand.Identity(generation_floor=known)
    assert restoring._floor(now, backup, None) == expected
    assert restoring._floor(now, errand.Identity(), backup) == expected
