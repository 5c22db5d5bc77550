"""The journal survives kill -9 at any byte and flipped bits anywhere; a full disk costs nothing that was promised."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import errors
from sidecar.core import record
from sidecar.core.assignment import Artifact, Assignment, Done, Failure, Holding, NotDone
from sidecar.core.record import Closed, Ended, Given, Open
from sidecar.wire import state
from sidecar.wire.journal import DAMAGED, FILE, Journal

#: A bound for failures, never a pace.
PATIENCE_S = 10.0


def held(number: int) -> Holding:
    return Holding(task=f"{number:020}", generation=1)


def given_(number: int) -> Given:
    return Given(Assignment(holding=held(number), title=f"task {number}"))


def ended(number: int) -> Ended:
    if number % 2:
        return Ended(held(number), Done(summary=f"did {number}", tokens=None))
    return Ended(held(number), NotDone(failure=Failure(reason="R", message="m", attribution="agent"), stopped=True))


RECORDS = [given_(1), given_(2), ended(1), given_(3), Closed(held(1), "acked"), ended(2), given_(4), ended(4)]


def image(records: list[record.Record]) -> tuple[bytes, list[int]]:
    """A file, and where each record ends."""
    data, ends = b"", []
    for item in records:
        data += record.frame(record.encode(item), len(data))
        ends.append(len(data))
    return data, ends


def reopened(folder: Path) -> list[Open]:
    journal = Journal(folder)
    try:
        return journal.still_open()
    finally:
        journal.close()


async def test_what_was_appended_is_there_after_a_restart(tmp_path):
    journal = Journal(tmp_path)
    await journal.append(*RECORDS[:4])
    await journal.append(*RECORDS[4:])
    assert reopened(tmp_path) == record.still_open(RECORDS)  # as after kill -9: nobody closed it
    journal.close()


def test_a_file_cut_at_every_byte_gives_exactly_the_whole_records_before_the_cut(tmp_path):
    data, ends = image(RECORDS)
    for cut in range(len(data) + 1):
        whole = sum(end <= cut for end in ends)
        found = record.scan(data[:cut])
        assert found.records == RECORDS[:whole]
        assert (found.end, found.damaged_bytes) == (ends[whole - 1] if whole else 0, 0)


async def test_a_torn_tail_is_cut_and_the_journal_goes_on(tmp_path):
    data, ends = image(RECORDS)
    for cut in (ends[2] + 1, ends[3] + 13, ends[6] - 1):
        (tmp_path / FILE).write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        journal = Journal(tmp_path)
        assert journal.size_bytes == ends[whole - 1]
        await journal.append(given_(9))
        journal.close()
        assert reopened(tmp_path) == record.still_open([*RECORDS[:whole], given_(9)])


def test_a_flipped_bit_costs_the_record_it_hit_and_no_other():
    data, ends = image(RECORDS)
    for place in range(len(data)):
        hurt = bytearray(data)
        hurt[place] ^= 0x10
        hit = sum(end <= place for end in ends)
        assert record.scan(bytes(hurt)).records == RECORDS[:hit] + RECORDS[hit + 1 :]


@given(st.binary(max_size=200), st.integers(0, 3))
def test_noise_is_never_taken_for_records(noise, where):
    data, ends = image(RECORDS)
    place = ends[where]
    found = record.scan(data[:place] + noise + data[place:])
    assert found.records[: where + 1] == RECORDS[: where + 1]
    assert all(item in RECORDS for item in found.records)


def test_a_journal_inside_an_artefact_is_not_believed():
    inner, _ = image([given_(7)])
    artifact = Artifact(id="log", media_type="text/plain", content=inner, size_bytes=len(inner))
    data, _ = image([Ended(held(1), Done(summary="x", artifacts=(artifact,)))])
    hurt = bytearray(data)
    hurt[5] ^= 1  # the outer frame is damaged, so the reader looks for frames inside it
    assert record.scan(bytes(hurt)).records == []


def test_a_damaged_journal_is_repaired_and_the_damaged_one_kept(tmp_path):
    data, ends = image(RECORDS)
    hurt = bytearray(data)
    hurt[ends[0] + 20] ^= 1
    (tmp_path / FILE).write_bytes(hurt)
    left = reopened(tmp_path)
    assert left == record.still_open(RECORDS[:1] + RECORDS[2:])
    assert (tmp_path / DAMAGED).read_bytes() == bytes(hurt)
    assert reopened(tmp_path) == left


def test_an_outcome_whose_assignment_is_damaged_is_still_told(tmp_path):
    assert record.still_open([ended(1)]) == [Open(held(1), None, ended(1).outcome)]


async def test_appends_of_many_tasks_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    count, entered = 0, asyncio.Event()
    loop, real = asyncio.get_running_loop(), os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == 1:
            loop.call_soon_threadsafe(entered.set)
            gate.result()
        real(descriptor)

    gate: concurrent.futures.Future[None] = concurrent.futures.Future()
    monkeypatch.setattr(os, "fsync", fsync)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(journal.append(given_(0)))
        await entered.wait()
        for number in range(1, 50):
            group.create_task(journal.append(given_(number)))
        await asyncio.sleep(0)
        gate.set_result(None)
    assert count == 2
    journal.close()


async def test_the_file_stays_bounded_however_much_passes_through(tmp_path):
    journal = Journal(tmp_path, compact_bytes_min=4096)
    await journal.append(given_(0))
    sizes = []
    for number in range(1, 300):
        await journal.append(given_(number))
        await journal.append(ended(number))
        journal.note(Closed(held(number), "acked"))
        sizes.append(journal.size_bytes)
    journal.close()
    assert max(sizes) < 4096 + 1024
    assert reopened(tmp_path) == [Open(held(0), given_(0).assignment, None)]


async def test_a_write_that_fails_is_told_and_leaves_the_journal_usable(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    await journal.append(given_(1))
    real = state.write_all

    def half(descriptor: int, data: bytes) -> None:
        real(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "write_all", half)
    with pytest.raises(errors.Unavailable, match="No space left"):
        await journal.append(given_(2))
    monkeypatch.setattr(state, "write_all", real)
    await journal.append(given_(3))
    journal.close()
    assert [left.holding for left in reopened(tmp_path)] == [held(1), held(3)]


async def test_after_a_failed_fsync_the_file_is_rewritten_before_anything_more_is_promised(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    await journal.append(given_(1))
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(5, "I/O error")))
    with pytest.raises(errors.Unavailable):
        await journal.append(given_(2))
    monkeypatch.setattr(os, "fsync", real)
    before = (tmp_path / FILE).stat().st_ino
    await journal.append(given_(3))
    journal.close()
    assert (tmp_path / FILE).stat().st_ino != before
    assert [left.holding for left in reopened(tmp_path)] == [held(1), held(3)]


async def test_text_that_no_file_can_hold_is_refused(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(errors.Invalid):
        await journal.append(Closed(held(1), "\ud800"))
    journal.close()


def test_random_files_never_crash_the_reader(rng: random.Random):
    for _ in range(200):
        data = bytearray(rng.randbytes(rng.randrange(300)))
        for _ in range(3):
            place = rng.randrange(len(data) + 1)
            data[place:place] = record.MAGIC
        record.scan(bytes(data))


def test_a_second_sidecar_on_the_same_folder_is_refused_with_one_line(tmp_path):
    first = state.StateFolder(tmp_path)
    with pytest.raises(errors.IllegalState) as refused:
        state.StateFolder(tmp_path)
    assert str(os.getpid()) in refused.value.message
    assert "\n" not in refused.value.message
    first.close()
    state.StateFolder(tmp_path).close()


def test_a_lock_dies_with_its_process(tmp_path):
    imports = "import os, sys, pathlib; from sidecar.wire import state"
    code = f"{imports}; state.StateFolder(pathlib.Path(sys.argv[1])); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    state.StateFolder(tmp_path).close()


def test_the_identity_is_readable_by_its_owner_only(tmp_path):
    identity = state.Identity(agent="a", token="act_x", request_id="r")
    state.write_identity(tmp_path, identity)
    assert (tmp_path / state.IDENTITY).stat().st_mode & 0o777 == 0o600
    assert state.read_identity(tmp_path) == identity
    (tmp_path / state.IDENTITY).write_text("{")
    with pytest.raises(errors.Invalid, match="damaged"):
        state.read_identity(tmp_path)
