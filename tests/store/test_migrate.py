"""A store of each earlier version, kept from the program that wrote it, is brought forward whole, or not touched."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.core import change, goal, task
from hub.store import keys, migrate, upgrade
from hub.store.base import Ended, Reader
from hub.store.lmdb import LmdbEnvironment, LmdbStore
from kit import errors
from tests.store.kept.picture import ALL, picture

KEPT = Path(__file__).parent / "kept"
VERSIONS = sorted(int(folder.name[1:]) for folder in KEPT.glob("v*"))


def unpack(version: int, folder: Path) -> Path:
    """The kept store of this version, in a folder of its own."""
    folder.mkdir(parents=True)
    (folder / "data.mdb").write_bytes(gzip.decompress((KEPT / f"v{version}" / "data.mdb.gz").read_bytes()))
    return folder


def must_be_found(version: int) -> Any:
    return json.loads((KEPT / f"v{version}" / "found.json").read_text())


def shown(reader: Reader) -> Any:
    """As `found.json` has it."""
    return json.loads(json.dumps(picture(reader)))


def schema(folder: Path) -> bytes | None:
    """What a store says of its version, without bringing it forward."""
    environment = LmdbEnvironment(folder, map_bytes_first=1 << 20, map_bytes_max=1 << 30, reserve_bytes=None, sync=True)
    with environment.snapshot() as kv:
        found = kv.get(keys.SCHEMA)
    environment.close()
    return found


def test_there_is_a_kept_store_of_every_version():
    assert list(range(1, migrate.VERSION + 1)) == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_kept_store_is_brought_forward_and_nothing_is_lost(tmp_path: Path, version: int):
    folder = unpack(version, tmp_path / "store")
    expected = must_be_found(version)
    store = LmdbStore.open(folder)
    try:
        found = store.read(shown)
        for name in expected:
            assert found[name] == expected[name], name
        assert store.verify_chain() == expected["events"][-1][0]
        assert store.facts().schema_version == migrate.VERSION
        assert store.read(lambda reader: reader.meta("uid")) == b"0123456789abcdef"
    finally:
        await store.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_had_ended_before_is_in_the_list_that_retention_reads(tmp_path, version):
    store = LmdbStore.open(unpack(version, tmp_path / "store"))
    try:
        found = {
            sort: {id for _, id in store.read(lambda r, s=sort: r.ended(s, until=1e10, limit=ALL))} for sort in Ended
        }
        tasks = store.read(lambda reader: reader.tasks(limit=ALL))
        goals = store.read(lambda reader: reader.goals.page(limit=ALL))
        changes = store.read(lambda reader: reader.changes.page(limit=ALL))
        tokens = store.read(lambda reader: reader.tokens.page(limit=ALL))
    finally:
        await store.close()
    dead = {one.id for one in tasks if one.state is task.State.DEAD}
    assert found[Ended.DEAD_TASK] == dead != set()
    assert found[Ended.TASK] == {one.id for one in tasks if one.state in task.FINAL} - dead != set()
    failed = {one.id for one in goals if one.state is goal.State.FAILED}
    assert found[Ended.FAILED_GOAL] == failed != set()
    assert found[Ended.GOAL] == {one.id for one in goals if one.state in goal.FINAL} - failed != set()
    assert found[Ended.CHANGE] == {one.id for one in changes if one.state in change.FINAL} != set()
    assert found[Ended.TOKEN] == {one.id for one in tokens if one.revoked_at or one.expires_at} != set()


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_record_of_a_kept_store_can_be_written_again(tmp_path: Path, version: int):
    """An index entry that is missing or too much would be refused as damage."""
    store = LmdbStore.open(unpack(version, tmp_path / "store"))

    def forget_all(txn):
        for one in txn.tasks(limit=ALL):
            txn.delete_task(one)
        for table in (txn.goals, txn.changes, txn.tokens):
            for record in table.page(limit=ALL):
                table.delete(record.id)

    try:
        await store.write(forget_all)
        left = store.read(lambda r: [r.ended(sort, until=1e10, limit=ALL) for sort in Ended])
        assert left == [[] for _ in Ended]
    finally:
        await store.close()


async def test_the_older_store_is_kept_aside_as_it_was(tmp_path: Path):
    folder = unpack(1, tmp_path / "store")
    await LmdbStore.open(folder).close()
    aside = upgrade.aside_folder(folder, 1)
    assert schema(aside) == b"agentcom store 1"
    assert schema(folder) == b"agentcom store %d" % migrate.VERSION
    again = LmdbStore.open(aside)  # it is whole: it can be brought forward, too
    assert again.read(shown)["tasks"] == must_be_found(1)["tasks"]
    await again.close()


async def test_without_room_for_the_copy_nothing_is_brought_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = unpack(1, tmp_path / "store")
    before = (folder / "data.mdb").read_bytes()

    def full(self, target: Path) -> None:
        (target / "data.mdb").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LmdbEnvironment, "copy", full)
    with pytest.raises(errors.Unavailable, match="could not be copied") as caught:
        LmdbStore.open(folder)
    assert caught.value.reason == "NO_COPY_BEFORE_MIGRATION"
    assert (folder / "data.mdb").read_bytes() == before
    assert os.listdir(tmp_path) == ["store"], "half a copy is left"
    monkeypatch.undo()
    await LmdbStore.open(folder).close()


async def test_a_map_that_is_too_small_for_the_step_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = unpack(1, tmp_path / "store")
    step = migrate.STEPS[1]

    def large(kv):
        for number in range(30_000):
            kv.put(b"z\x09%08d" % number, b"x" * 100)
        return step(kv)

    monkeypatch.setitem(migrate.STEPS, 1, large)
    store = LmdbStore.open(folder, map_bytes_first=1 << 20)
    assert store.read(shown)["tasks"] == must_be_found(1)["tasks"]
    await store.close()


async def test_killed_in_the_middle_the_older_store_is_still_there(tmp_path: Path):
    folder = unpack(1, tmp_path / "store")
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.store.children",
        "migrate_and_hang",
        str(folder),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(30):
            assert await child.stdout.readline() == b"in the middle\n"
    finally:
        child.kill()
        await child.communicate()
    assert schema(folder) == b"agentcom store 1"
    store = LmdbStore.open(folder)
    assert store.read(shown)["tasks"] == must_be_found(1)["tasks"]
    assert store.verify_chain() == len(must_be_found(1)["events"])
    await store.close()


async def test_a_store_of_a_newer_version_is_not_touched(tmp_path: Path):
    folder = tmp_path / "store"
    await LmdbStore.open(folder).close()
    environment = LmdbEnvironment(folder, map_bytes_first=1 << 20, map_bytes_max=1 << 30, reserve_bytes=None, sync=True)
    environment.begin().put(keys.SCHEMA, b"agentcom store %d" % (migrate.VERSION + 1))
    environment.commit()
    environment.close()
    before = (folder / "data.mdb").read_bytes()
    with pytest.raises(errors.IllegalState, match="use a newer hub") as caught:
        LmdbStore.open(folder)
    assert caught.value.reason == "STORE_NEWER"
    assert (folder / "data.mdb").read_bytes() == before
    assert os.listdir(tmp_path) == ["store"]
