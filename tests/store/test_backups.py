"""Backups of an LMDB store: made while it works, verified, rotated, and nothing half-done, whatever ends them."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.core import backup as rules
from hub.core.backup import Backup, Trigger
from hub.store import lmdb
from hub.store.care import backups as backups_module
from hub.store.care import errand, pages
from hub.store.care.backups import Backups
from kit import errors, ids
from tests.store.build import NOW, filed, task, task_id
from tests.store.test_audit import TASK, changed_value
from tests.store.whole import everything, make, raw_edit
from tests.support.processes import is_alive, until

ROOT = Path(__file__).parents[2]
ID = "01hgw2n8abcdefghjkmn"
SECOND = "01hgw2n8abcdefghjkmp"


async def test_a_backup_holds_what_was_written_before_it_and_says_so(tmp_path: Path):
    store = await make(tmp_path / "store")
    backups = Backups(tmp_path / "backups", tmp_path / "store")
    made = await backups.make(ID, NOW, Trigger.REQUEST)
    await store.write(everything(1_001))
    assert made.good and made.event_position == 100 and made.trigger is Trigger.REQUEST
    assert made.uid.encode() == store.read(lambda reader: reader.meta("uid"))
    assert backups.all() == [made]
    file = backups.file(ID)
    assert file.stat().st_size == made.size_bytes and errand.sha256(file) == made.sha256
    assert file.stat().st_mode & 0o077 == 0
    assert errand.check(file).identity.position == 100
    assert (await backups.verify(ID, NOW + 1)).problems == ()
    assert backups.all()[0].verified_at == NOW + 1
    await store.close()


async def test_writes_go_on_and_the_map_grows_while_a_backup_is_made(tmp_path: Path):
    store = await make(tmp_path / "store", map_bytes_first=1 << 20)
    backups = Backups(tmp_path / "backups", tmp_path / "store")
    making = asyncio.create_task(backups.make(ID, NOW, Trigger.SCHEDULE))
    first = 10_001
    while not making.done():
        await store.write(everything(first))
        first += 20
    assert first > 10_001 + 200  # a single write takes a few milliseconds, a backup some hundred
    assert (await making).good
    await store.close()


async def test_a_backup_of_a_damaged_store_is_refused_and_leaves_nothing(tmp_path: Path):
    await (await make(tmp_path / "store")).close()
    raw_edit(tmp_path / "store", changed_value(TASK))
    backups = Backups(tmp_path / "backups", tmp_path / "store")
    with pytest.raises(errors.DataLoss):
        await backups.make(ID, NOW, Trigger.SCHEDULE)
    assert list((tmp_path / "backups").iterdir()) == []


async def test_a_tree_that_cannot_be_followed_is_damage_and_not_a_bad_day(tmp_path: Path):
    """The copy itself fails then: LMDB looks for a page that there is not."""
    await (await make(tmp_path / "store")).close()
    file = tmp_path / "store" / "data.mdb"
    newest = pages.head(file)
    with file.open("r+b") as opened:
        opened.seek(newest.main.root * newest.page_size + 16)
        (first,) = struct.unpack("<H", opened.read(2))
        opened.seek(newest.main.root * newest.page_size + first)
        opened.write(struct.pack("<HHH", 0xFFFF, 0xFFFF, 0))
    with pytest.raises(errors.DataLoss) as caught:
        await Backups(tmp_path / "backups", tmp_path / "store").make(ID, NOW, Trigger.SCHEDULE)
    assert caught.value.reason == "STORE_CORRUPT"
    assert list((tmp_path / "backups").iterdir()) == []


@pytest.mark.parametrize("damaged", [False, True])
async def test_what_the_copy_fails_of_is_decided_by_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
):
    await (await make(tmp_path / "store")).close()
    file = tmp_path / "store" / "data.mdb"
    if damaged:
        newest = pages.head(file)
        with file.open("r+b") as opened:
            opened.seek(newest.main.root * newest.page_size)
            opened.write(bytes(8))

    def fail(_source: Path, _target: Path) -> None:
        raise OSError(5, "MDB_PROBLEM: Unexpected problem - txn should abort")

    monkeypatch.setattr(lmdb, "copy_file", fail)
    report = errand.copy(tmp_path / "store", tmp_path / "copy.mdb")
    assert (bool(report.problems), bool(report.failure)) == (damaged, not damaged)


async def test_a_backup_whose_copy_is_damaged_on_the_way_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The guard is the reading after the writing: the copy is what is looked at, not the store."""
    await (await make(tmp_path / "store")).close()

    async def flipping(*words: str) -> errand.Report:
        report = await real(*words)
        flip(Path(words[-1]))
        return errand.check(Path(words[-1])) if not report.problems else report

    real = errand.run
    monkeypatch.setattr(errand, "run", flipping)
    backups = Backups(tmp_path / "backups", tmp_path / "store")
    with pytest.raises(errors.DataLoss, match="copy is damaged"):
        await backups.make(ID, NOW, Trigger.SCHEDULE)
    assert list((tmp_path / "backups").iterdir()) == []


async def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    await (await make(tmp_path / "store")).close()
    backups = Backups(tmp_path / "backups", tmp_path / "store")
    monkeypatch.setattr(backups_module, "DISK_RESERVE_BYTES", 1 << 60)
    with pytest.raises(errors.Exhausted) as caught:
        await backups.make(ID, NOW, Trigger.SCHEDULE)
    assert caught.value.reason == "DISK_FULL"
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_disk_that_fills_up_under_the_copy_leaves_nothing_half_done(tmp_path: Path):
    script = f"""
import asyncio, resource, signal
from pathlib import Path
from hub.store.care.backups import Backups
from hub.core.backup import Trigger
from kit import errors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))
backups = Backups(Path({os.fspath(tmp_path / "backups")!r}), Path({os.fspath(tmp_path / "store")!r}))
try:
    asyncio.run(backups.make({ID!r}, 1.0, Trigger.SCHEDULE))
except errors.Unavailable as problem:
    print("refused", problem.message)
"""
    asyncio.run(_made(tmp_path / "store"))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("refused"), done
    assert list((tmp_path / "backups").iterdir()) == []


async def _made(path: Path) -> None:
    await (await make(path)).close()


@pytest.mark.parametrize("moment", ["copying", "named"])
async def test_kill_9_in_the_middle_of_a_backup_leaves_no_backup_that_is_not_whole(tmp_path: Path, moment: str):
    await _made(tmp_path / "store")
    folder = tmp_path / "backups"
    script = f"""
import asyncio, os, signal
from pathlib import Path
from hub.store.care.backups import Backups
from hub.core.backup import Trigger
backups = Backups(Path({os.fspath(folder)!r}), Path({os.fspath(tmp_path / "store")!r}))
write = backups._write_manifest
def dying(made):
    write(made)
    os.kill(os.getpid(), signal.SIGKILL)
if {moment!r} == "named":
    backups._write_manifest = dying
asyncio.run(backups.make({ID!r}, 1.0, Trigger.SCHEDULE))
"""
    process = start(script)
    if moment == "copying":
        await until(lambda: list(folder.glob("*.part")), "the copy is begun")
        process.send_signal(signal.SIGKILL)
    assert await asyncio.to_thread(process.wait, 60) == -signal.SIGKILL
    backups = Backups(folder, tmp_path / "store")
    assert all(one.id != ID for one in backups.all())
    made = await backups.make(SECOND, NOW, Trigger.SCHEDULE)
    assert sorted(path.name for path in folder.iterdir()) == [f"{SECOND}.json", f"{SECOND}.mdb"]
    assert (await backups.verify(made.id, NOW)).problems == ()


async def test_the_child_dies_with_the_hub_that_sent_it(tmp_path: Path):
    """It stands still until its parent is gone, so that it cannot end by itself first."""
    words = (
        "import os, time\nfrom hub.store.care import errand\n"
        "errand._die_with(os.getppid())\nprint(os.getpid(), flush=1)\n"
    )
    script = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {words + "time.sleep(60)"!r}])
"""
    parent = start(script, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    await until(lambda: not is_alive(child), "the child has died with it")


def start(script: str, **options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **options)


def flip(copy: Path) -> None:
    """A bit of the record of the first task."""
    data = bytearray(copy.read_bytes())
    data[data.index(task_id(1).encode()) + 40] ^= 1
    copy.write_bytes(data)


@pytest.mark.parametrize("what", ["flip", "cut", "swap", "manifest"])
async def test_a_damaged_backup_is_found_and_told(tmp_path: Path, what: str):
    store = await make(tmp_path / "store")
    backups = Backups(tmp_path / "backups", tmp_path / "store")
    await backups.make(ID, NOW, Trigger.REQUEST)
    await store.write(filed(task(5_001)))
    await backups.make(SECOND, NOW + 1, Trigger.REQUEST)
    file = backups.file(ID)
    if what == "flip":
        flip(file)
    elif what == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif what == "swap":  # whole, and not the one that the manifest tells of
        file.write_bytes(backups.file(SECOND).read_bytes())
    else:
        (tmp_path / "backups" / f"{ID}.json").write_text("{")
    report = await backups.verify(ID, NOW + 2)
    told = {one.id: one for one in backups.all()}
    assert bool(report.problems) == (what != "manifest")
    assert not told[ID].good and told[ID].problem
    assert told[SECOND].good
    assert rules.newest_good(backups.all()) == told[SECOND]
    await store.close()


def test_an_unknown_backup_is_not_found(tmp_path: Path):
    backups = Backups(tmp_path / "backups", tmp_path / "store")
    assert backups.all() == []
    for name in (ID, "../../etc/passwd", ""):
        with pytest.raises(errors.NotFound):
            backups.file(name)


# Rotation


def one(number: int, *, age_s: float = 0.0, problem: str = "", verified: bool = True) -> Backup:
    fields: dict[str, Any] = {"uid": "u", "generation_floor": 0, "schema_version": 2, "size_bytes": 1, "sha256": "s"}
    return Backup(
        id=f"{number:020d}",
        event_position=number,
        trigger=Trigger.SCHEDULE,
        created_at=NOW - age_s,
        verified_at=NOW if verified else None,
        problem=problem,
        **fields,
    )


def ids_of(backups: list[Backup]) -> list[int]:
    return [int(each.id) for each in backups]


def test_old_backups_go_by_count_and_by_age_but_never_the_newest_good_one():
    many = [one(number) for number in range(10)]
    assert ids_of(rules.expired(many, NOW, keep_count=3, keep_age_s=1e9)) == [6, 5, 4, 3, 2, 1, 0]
    aged = [one(number, age_s=100.0 * (10 - number)) for number in range(10)]
    assert ids_of(rules.expired(aged, NOW, keep_count=99, keep_age_s=350.0)) == [6, 5, 4, 3, 2, 1, 0]
    assert ids_of(rules.expired(aged, NOW + 1e6, keep_count=99, keep_age_s=350.0)) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    bad = [one(1), one(2, problem="damaged"), one(3, verified=False)]
    assert ids_of(rules.expired(bad, NOW, keep_count=1, keep_age_s=1e9)) == [2]
    assert rules.newest_good(bad) == bad[0]
    assert rules.newest_good([]) is None


async def test_rotation_takes_the_files(tmp_path: Path):
    await _made(tmp_path / "store")
    backups = Backups(tmp_path / "backups", tmp_path / "store")
    names = []
    for number in range(4):
        names.append(ids.encode(int(NOW * 1000 + number) << 52))
        await backups.make(names[-1], NOW + number, Trigger.SCHEDULE)
    gone = backups.rotate(NOW + 4, keep_count=2, keep_age_s=1e9)
    assert [each.id for each in gone] == names[1::-1]
    left = sorted(path.stem for path in (tmp_path / "backups").iterdir())
    assert left == sorted(2 * names[2:])
