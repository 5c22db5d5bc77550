"""A process that is found again by its number, and never mistaken for another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.onboarding import plain_process
from cli.onboarding.plain_process import PlainProcess
from tests.support import processes

#: Ends at the second TERM, as a sidecar that still has something to finish.
STUBBORN = """
import signal, sys, threading
done, count = threading.Event(), []
def term(*_):
    count.append(1)
    print("term", len(count), flush=True)
    if len(count) == 2: done.set()
signal.signal(signal.SIGTERM, term)
print("ready", flush=True)
while not done.wait(0.05): pass
"""


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[PlainProcess]:
    made = PlainProcess(tmp_path / "pid", tmp_path / "log", mark=str(tmp_path / "mark"))
    yield made
    pid = made.pid()
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        made.stop(hurry=True)


def start(plain: PlainProcess, tmp_path: Path, code: str) -> int:
    return plain.start([sys.executable, "-c", code, str(tmp_path / "mark")], cwd=tmp_path, environment={})


async def ready(tmp_path: Path) -> None:
    await processes.until(lambda: "ready" in (tmp_path / "log").read_text(), "it is ready")


async def test_it_is_known_as_soon_as_it_is_started_and_gone_when_it_has_ended(plain: PlainProcess, tmp_path: Path):
    pid = start(plain, tmp_path, STUBBORN)
    assert plain.pid() == pid
    again = PlainProcess(tmp_path / "pid", tmp_path / "log", mark=str(tmp_path / "mark"))
    assert again.pid() == pid
    await ready(tmp_path)
    os.kill(pid, signal.SIGKILL)
    await processes.until(lambda: plain.pid() is None, "it has ended")
    plain.stop(hurry=False)


async def test_who_hurries_asks_twice_and_waits_for_its_end(plain: PlainProcess, tmp_path: Path):
    start(plain, tmp_path, STUBBORN)
    await ready(tmp_path)
    plain.stop(hurry=True)
    assert plain.pid() is None
    assert (tmp_path / "log").read_text().split() == ["ready", "term", "1", "term", "2"]


async def test_one_that_finishes_by_itself_is_asked_once(plain: PlainProcess, tmp_path: Path):
    start(plain, tmp_path, STUBBORN.replace("== 2", "== 1"))
    await ready(tmp_path)
    plain.stop(hurry=False)
    assert "term 2" not in (tmp_path / "log").read_text()


async def test_one_that_hears_nothing_is_killed(plain: PlainProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plain_process, "HURRY_S", 0.05)
    monkeypatch.setattr(plain_process, "SAVE_S", 0.05)
    start(plain, tmp_path, STUBBORN.replace("== 2", "== 9"))
    await ready(tmp_path)
    plain.stop(hurry=True)
    assert plain.pid() is None


@pytest.mark.parametrize("content", ["", "x", "-1", "0", "99999999999999", str(2**22 + 1)])
def test_a_number_that_is_none_is_nobodys(plain: PlainProcess, tmp_path: Path, content: str):
    (tmp_path / "pid").write_text(content)
    assert plain.pid() is None
    plain.stop(hurry=True)


def test_a_number_that_is_anothers_now_is_left_alone(plain: PlainProcess, tmp_path: Path):
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            (tmp_path / "pid").write_text(f"{other.pid}\n")
            assert plain.pid() is None
            plain.stop(hurry=True)
            assert other.poll() is None
        finally:
            other.kill()


def test_a_log_that_has_grown_is_put_aside_once(plain: PlainProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plain_process, "LOG_BYTES_MAX", 10)
    (tmp_path / "log").write_text("x" * 11)
    start(plain, tmp_path, STUBBORN)
    assert (tmp_path / "log.1").read_text() == "x" * 11
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


async def test_what_cannot_be_started_ends_and_says_why(plain: PlainProcess, tmp_path: Path):
    plain.start(["/nowhere/program", str(tmp_path / "mark")], cwd=tmp_path, environment={})
    await processes.until(lambda: plain.pid() is None, "it has ended")
    assert "/nowhere/program" in plain.tail()
