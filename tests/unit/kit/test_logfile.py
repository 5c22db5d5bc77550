"""A log file: bounded, private, rotated by itself or by others, and no reason for a process to stop."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading

import pytest
import structlog

from kit import errors, logfile, logs
from kit.logfile import LogFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "hub.log"


def opened(path, **more):
    return LogFile(path, **{"bytes_max": 100, "count_max": 2, **more})


def test_it_is_for_its_owner_alone_whatever_the_umask_says(path):
    before = os.umask(0)
    try:
        file = opened(path)
        file.write("x" * 90 + "\n")
        file.write("y" * 90 + "\n")
    finally:
        os.umask(before)
    assert [one.stat().st_mode & 0o777 for one in path.parent.iterdir()] == [0o600, 0o600]
    assert path.parent.stat().st_mode & 0o777 == 0o700
    file.close()


def test_what_does_not_fit_begins_a_new_file_and_only_so_many_old_ones_are_kept(path):
    file = opened(path)
    for word in "abcdefgh":
        file.write(word * 60 + "\n")
    found = {one.name: one.read_text()[0] for one in path.parent.iterdir()}
    assert found == {"hub.log": "h", "hub.log.1": "g", "hub.log.2": "f"}
    file.close()


def test_a_record_that_is_longer_than_a_file_is_written_all_the_same(path):
    file = opened(path)
    file.write("x" * 1_000 + "\n")
    file.write("y\n")
    assert (path.read_text(), len((path.parent / "hub.log.1").read_text())) == ("y\n", 1_001)
    file.close()


def test_a_file_that_was_there_is_gone_on_with(path):
    path.parent.mkdir()
    path.write_text("before\n")
    file = opened(path)
    file.write("after\n")
    assert path.read_text() == "before\nafter\n"
    file.close()


def test_a_second_process_is_refused(path):
    file = opened(path)
    with pytest.raises(errors.IllegalState, match="in use by another process"):
        opened(path)
    file.close()
    opened(path).close()


@pytest.mark.parametrize("kind", ["folder", "no way"])
def test_a_file_that_cannot_be_written_is_said_at_the_start(path, kind):
    if kind == "folder":
        path.mkdir(parents=True)
    else:
        path.parent.write_text("a file where its folder should be")
    with pytest.raises(errors.Invalid, match=r"log\.file"):
        opened(path)


@pytest.mark.parametrize("kind", ["a device", "a pipe"])
def test_what_is_no_file_is_left_as_it_is(path, kind):
    path.parent.mkdir()
    if kind == "a device":
        path.symlink_to("/dev/null")
    else:
        os.mkfifo(path, 0o644)
    before = path.stat().st_mode
    with pytest.raises(errors.Invalid, match=r"log\.file"):
        opened(path)
    assert path.stat().st_mode == before


def test_a_file_that_somebody_else_renames_is_begun_anew(path, monkeypatch):
    monkeypatch.setattr(logfile, "LOOK_S", 0.0)
    file = opened(path)
    file.write("one\n")
    path.rename(path.with_name("hub.log-20261121"))
    file.write("two\n")
    path.unlink()
    file.write("three\n")
    assert path.read_text() == "three\n"
    assert (path.parent / "hub.log-20261121").read_text() == "one\n"
    file.close()


def test_a_file_that_somebody_else_copies_and_truncates_goes_on_from_its_begin(path, monkeypatch):
    monkeypatch.setattr(logfile, "LOOK_S", 0.0)
    file = opened(path)
    file.write("x" * 90 + "\n")
    os.truncate(path, 0)
    file.write("y" * 50 + "\n")
    assert path.read_bytes() == b"y" * 50 + b"\n"
    assert [one.name for one in path.parent.iterdir()] == ["hub.log"], "it has room again"
    file.close()


def test_a_full_disk_drops_records_and_says_how_many_when_it_has_room_again(path, monkeypatch):
    file = opened(path, bytes_max=1_000)
    real, room = os.write, [5]

    def write(descriptor, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "no space left on device")
        written = real(descriptor, bytes(data)[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    file.write('{"event":"a.torn"}\n')
    file.write('{"event":"a.lost"}\n')
    assert file.dropped == 2
    room[0] = 10_000
    file.write('{"event":"a.kept"}\n')
    torn, resumed, kept = path.read_text().splitlines()
    assert torn == '{"eve'
    assert (json.loads(resumed)["event"], json.loads(resumed)["dropped"]) == ("log.resumed", 2)
    assert json.loads(kept)["event"] == "a.kept"
    assert file.dropped == 0
    file.close()


def test_old_files_stay_while_no_new_one_can_be_begun(path, monkeypatch):
    file = opened(path)
    for word in "abc":
        file.write(word * 60 + "\n")

    def refuse():
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file, "_open", refuse)
        for word in "defghi":
            file.write(word * 60 + "\n")
        assert {one.name: one.read_text()[0] for one in path.parent.iterdir()} == {"hub.log.1": "c", "hub.log.2": "b"}
    file.write("j" * 60 + "\n")
    assert '"dropped":6' in path.read_text()
    assert (path.parent / "hub.log.1").read_text()[0] == "c"
    file.close()


def test_records_of_many_threads_are_whole_lines_and_none_is_missing(path):
    file = LogFile(path, bytes_max=2_000, count_max=100)

    def tell(name):
        for number in range(50):
            file.write(json.dumps({"name": name, "number": number}) + "\n")

    threads = [threading.Thread(target=tell, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [json.loads(line) for one in path.parent.iterdir() for line in one.read_text().splitlines()]
    assert {(one["name"], one["number"]) for one in found} == {(name, n) for name in "abcd" for n in range(50)}
    assert len(found) == 200
    assert all(one.stat().st_size <= 2_000 for one in path.parent.iterdir())
    file.close()


@pytest.fixture
def configured(path):
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield path
    structlog.reset_defaults()
    root.setLevel(level)
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)


def test_what_is_logged_goes_into_the_configured_file_as_json_without_secrets(configured):
    logs.begin(logs.LogConfig(file=configured))
    logs.get("x").warning("a.b", token="hunter2", task="t1")
    (line,) = [json.loads(line) for line in configured.read_text().splitlines()]
    assert (line["event"], line["token"], line["task"]) == ("a.b", logs.HIDDEN, "t1")


def test_an_edge_says_what_its_records_are_about_and_a_record_says_it_better(configured):
    logs.begin(logs.LogConfig(file=configured))
    log = logs.get("x")
    with logs.bound(agent="ada", task="t1"):
        log.info("a.b")
        log.info("a.b", task="t2")
    log.info("a.b")
    found = [json.loads(line) for line in configured.read_text().splitlines()]
    assert [(one.get("agent"), one.get("task")) for one in found] == [("ada", "t1"), ("ada", "t2"), (None, None)]
