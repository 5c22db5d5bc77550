"""Child processes end: when asked, when they do not listen, and when they never were ready."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cli import children
from kit import errors

READY = "print('ready', flush=True); signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}"
POLITE = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); {READY}"


async def child(code: str, log: Path) -> children.Child:
    started = await children.Child.start("child", [sys.executable, "-c", code], log=log)
    await started.until(lambda: "ready" in log.read_text(), 20)
    return started


async def test_a_child_that_listens_ends_by_itself(tmp_path: Path):
    polite = await child(POLITE, tmp_path / "log")
    assert await polite.stop() == 7
    assert await polite.stop() == 7  # asking again is no error
    assert polite.tail() == "ready\n"


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path):
    deaf = await child(DEAF, tmp_path / "log")
    assert await deaf.stop(stop_s=0.05, cancel_s=0.05) == -9
    assert not deaf.is_running


async def test_a_child_that_ends_before_it_is_ready_is_told_at_once(tmp_path: Path):
    early = await children.Child.start("child", [sys.executable, "-c", "exit(3)"], log=tmp_path / "log")
    with pytest.raises(errors.Unavailable, match="ended with code 3"):
        await early.until(lambda: False, 20)
    assert await early.wait() == 3


async def test_a_child_that_is_never_ready_is_given_up(tmp_path: Path):
    deaf = await child(DEAF, tmp_path / "log")
    with pytest.raises(errors.Unavailable, match="not ready"):
        await deaf.until(lambda: False, 0.05)
    await deaf.stop(stop_s=0.05, cancel_s=0.05)
