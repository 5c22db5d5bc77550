"""The LMDB store only: how it grows, what it keeps in reserve, and what a full disk does."""

from __future__ import annotations

# Scripts here are lambdas that bind loop variables and put many records: mypy infers neither.
# mypy: disable-error-code="misc,func-returns-value"
import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hub.store.lmdb import LmdbStore
from kit import errors
from tests.store.build import NOW, filed, spec, task, task_id

ROOT = Path(__file__).parents[2]
Open = Callable[[], LmdbStore]


async def test_the_map_grows_by_itself_under_readers_and_writers(lmdb_open: Open) -> None:
    store = lmdb_open()  # 1 MiB at first
    content = os.urandom(60_000)

    async def writer(n: int) -> None:
        await store.write(lambda txn: txn.put_artifact(task_id(n), 1, "x", content))
        for each in range(0, n, 37):
            found = store.read(lambda r, each=each: r.artifact(task_id(each), 1, "x"))
            assert found is None or found == content

    async with asyncio.TaskGroup() as group:
        for n in range(300):
            group.create_task(writer(n))
    assert store.facts().used_bytes > 18_000_000
    assert all(store.read(lambda r, n=n: r.artifact(task_id(n), 1, "x")) == content for n in range(300))
    await store.close()


async def test_small_writes_run_once_each_for_the_map_grows_before_it_is_full(lmdb_open: Open) -> None:
    store = lmdb_open()
    runs: list[int] = []

    async def write(n: int) -> None:
        await store.write(lambda txn: (runs.append(n), txn.put_artifact(task_id(n), 1, "x", b"x" * 20_000)))

    for n in range(200):
        await write(n)
    assert runs == list(range(200))
    assert store.facts().used_bytes > 4_000_000
    await store.close()


async def test_the_map_never_grows_under_a_reader_or_a_copy(lmdb_open: Open) -> None:
    store = lmdb_open()
    environment: Any = store._environment

    class Watched:
        """The LMDB environment, with an eye on the locks."""

        def __init__(self, env: Any) -> None:
            self.env = env
            self.grown = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.env, name)

        def set_mapsize(self, size: int) -> None:
            assert environment._reading.locked() and environment._copying.locked()
            self.grown += 1
            self.env.set_mapsize(size)

        def copy(self, *arguments: Any, **options: Any) -> None:
            assert environment._copying.locked()
            self.env.copy(*arguments, **options)

    watched = Watched(environment._env)
    environment._env = watched
    await store.write(lambda txn: txn.put_artifact(task_id(1), 1, "x", b"x" * (4 << 20)))
    assert watched.grown
    assert store.read(lambda r: environment._reading.locked())
    target = environment.path / "copy"
    target.mkdir()
    store.copy(target)
    assert not environment._reading.locked() and not environment._copying.locked()
    await store.close()


async def test_commits_are_synced_unless_the_option_that_names_the_risk_says_otherwise(tmp_path: Path) -> None:
    for risky in (False, True):
        store = LmdbStore.open(tmp_path / str(risky), lose_data_on_power_cut=risky)
        flags = store._environment._env.flags()
        assert (flags["sync"], flags["metasync"]) == (not risky, True)
        await store.close()


async def test_a_function_that_fills_the_map_runs_again_on_a_larger_one(lmdb_open: Open) -> None:
    store = lmdb_open()
    runs: list[int] = []

    def large(txn):
        runs.append(len(runs))
        txn.add_task(task(1), spec())
        txn.append(NOW, "task.created", "tasks/1")
        for n in range(100):
            txn.put_artifact(task_id(1), n, "x", b"x" * 100_000)
        return "done"

    assert await store.write(large) == "done"
    assert len(runs) > 1
    assert store.read(lambda r: r.position()) == 1
    assert store.read(lambda r: sum(r.counts().values())) == 1
    assert store.verify_chain() == 1
    await store.close()


async def test_nearly_full_refuses_new_work_and_takes_reports(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "s", map_bytes_first=1 << 20, map_bytes_max=8 << 20, reserve_bytes=4 << 20)
    content = b"x" * 200_000

    async def fill(n: int, essential: bool) -> None:
        await store.write(lambda txn: txn.put_artifact(task_id(n), 1, "x", content), essential=essential)

    async def fill_up(first: int, essential: bool) -> tuple[int, errors.Exhausted]:
        for n in range(100):
            try:
                await fill(first + n, essential)
            except errors.Exhausted as problem:
                return n, problem
        raise AssertionError("never full")

    accepted, problem = await fill_up(0, False)
    assert problem.reason == "STORE_FULL" and problem.retry_delay_s
    assert 15 <= accepted <= 21
    for n in range(200, 208):
        await fill(n, True)
    _, problem = await fill_up(300, True)  # even the reserve has an end, and the store survives it
    assert problem.reason == "STORE_FULL"
    await store.write(lambda txn: txn.set_meta("paused", b"1"), essential=True)

    def drop(txn):
        for n in range(accepted):
            txn.add_task(task(n), spec())
            txn.delete_task(task(n))

    await store.write(drop, essential=True)
    for n in range(3):
        await store.write(lambda txn, n=n: txn.set_meta("pages", b"%d" % n), essential=True)
    await fill(1, False)
    assert store.read(lambda r: r.artifact(task_id(1), 1, "x")) == content
    await store.close()


def test_a_full_disk_fails_writes_and_the_store_works_again_with_room(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.store.children", "full_disk", os.fspath(tmp_path / "store")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["before", "refused", "after", "whole"]


async def test_too_many_waiting_writers_are_refused_and_the_others_served(
    lmdb_open: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.store.front.WAITING_MAX", 10)
    store = lmdb_open()
    results = await asyncio.gather(*(store.write(filed(task(n))) for n in range(30)), return_exceptions=True)
    refused = [each for each in results if isinstance(each, errors.Exhausted)]
    assert len(refused) == 20 and {each.reason for each in refused} == {"STORE_BUSY"}
    await store.write(filed(task(99)))
    assert len(store.read(lambda r: r.tasks(limit=99))) == 11
    await store.close()
