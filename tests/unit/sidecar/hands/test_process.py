"""Child processes: their ends, their output, and what they cannot leave behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from kit import clock
from sidecar.child import guard, process
from sidecar.child.control import Stop
from tests.support import sidecar_hands as hands

ROOT = Path(__file__).parents[4]


@pytest.fixture
def launcher(tmp_path):
    return process.Launcher(clock.SystemClock(), f"test-{os.getpid()}-{tmp_path.name}")


@pytest_asyncio.fixture
async def guarded(launcher):
    await launcher.start_guard()
    yield launcher
    launcher.close()


def order(tmp_path, script, **changed):
    fields = {
        "argv": ("sh", "-c", script),
        "cwd": tmp_path,
        "environment": {"PATH": os.environ["PATH"]},
        "timeout_s": 30.0,
        "kill_grace_s": 0.2,
    }
    return process.Order(**{**fields, **changed})


async def test_exit_code_output_and_hash_come_back(launcher, tmp_path):
    ended = await launcher.run(order(tmp_path, "echo out; echo err >&2; exit 7"))
    assert (ended.cause, ended.exit_code) == ("exited", 7)
    assert sorted(ended.output.text.splitlines()) == ["err", "out"]
    assert not ended.succeeded


async def test_the_hash_covers_all_output(launcher, tmp_path):
    ended = await launcher.run(order(tmp_path, "seq 1 200000"))
    whole = "".join(f"{n}\n" for n in range(1, 200001)).encode()
    assert ended.output.sha256 == hashlib.sha256(whole).hexdigest()
    assert ended.output.size_bytes == len(whole)


async def test_a_flood_is_cut_in_the_middle_and_counted(launcher, tmp_path):
    ended = await launcher.run(
        order(tmp_path, "echo first; yes | head -c 30000000; echo last", head_bytes_max=1000, tail_bytes_max=1000)
    )
    text = ended.output.text
    assert text.startswith("first\n")
    assert text.endswith("last\n")
    assert len(text) < 3000
    assert ended.output.dropped_bytes == 30_000_011 - 2000


async def test_watchers_get_whole_characters_however_the_bytes_are_split(launcher, tmp_path):
    pieces = []
    script = r"printf '\303'; sleep 0.05; printf '\244\342\202'; sleep 0.05; printf '\254\377'"
    await launcher.run(order(tmp_path, script, on_output=pieces.append))
    assert "".join(pieces) == "ä€\ufffd"
    assert all(piece for piece in pieces)


async def test_a_signal_shows_as_a_negative_exit_code(launcher, tmp_path):
    ended = await launcher.run(order(tmp_path, "kill -SEGV $$"))
    assert ended.exit_code == -signal.SIGSEGV


async def test_standard_input_is_empty(launcher, tmp_path):
    ended = await launcher.run(order(tmp_path, "cat; echo end"))
    assert ended.output.text == "end\n"


async def test_the_deadline_ends_a_child(launcher, tmp_path):
    ended = await launcher.run(order(tmp_path, "echo $$ > pid; exec sleep 600", timeout_s=0.3))
    assert ended.cause == "timeout"
    assert not hands.alive(await hands.number_in(tmp_path / "pid"))


async def test_silence_ends_a_child_that_hangs(launcher, tmp_path):
    ended = await launcher.run(order(tmp_path, "echo begin; exec sleep 600", silence_timeout_s=0.3))
    assert ended.cause == "silent"
    assert ended.output.text == "begin\n"


async def test_output_keeps_a_child_alive_beyond_the_silence_timeout(launcher, tmp_path):
    script = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done"
    ended = await launcher.run(order(tmp_path, script, silence_timeout_s=0.4))
    assert ended.cause == "exited"
    assert ended.duration_s > 0.4


async def test_a_child_that_ignores_term_is_killed_after_the_grace(launcher, tmp_path):
    stop = Stop()
    script = "trap '' TERM; echo $$ > pid; while :; do sleep 600; done"
    async with asyncio.TaskGroup() as group:
        running = group.create_task(launcher.run(order(tmp_path, script, stop=stop)))
        pid = await hands.number_in(tmp_path / "pid")
        stop.set("CANCELLED")
    assert running.result().cause == "stopped"
    assert running.result().exit_code == -signal.SIGKILL
    assert not hands.alive(pid)


async def test_a_child_may_clean_up_within_the_grace(launcher, tmp_path):
    stop = Stop()
    script = "trap 'echo saved; exit 0' TERM; touch ready; while :; do sleep 0.01; done"
    async with asyncio.TaskGroup() as group:
        running = group.create_task(launcher.run(order(tmp_path, script, stop=stop, kill_grace_s=10.0)))
        await hands.until_exists(tmp_path / "ready")
        stop.set("DRAIN")
    assert running.result().output.text.endswith("saved\n")


async def test_grandchildren_that_hold_the_pipe_open_neither_delay_the_end_nor_survive_it(launcher, tmp_path):
    ended = await launcher.run(order(tmp_path, "sleep 600 & echo $! > pid; echo end"))
    assert ended.cause == "exited"
    assert ended.output.text == "end\n"
    assert ended.duration_s < process.PIPE_GRACE_S
    assert not hands.alive(await hands.number_in(tmp_path / "pid"))


async def test_a_grandchild_that_left_the_process_group_does_not_survive(launcher, tmp_path):
    script = "setsid sh -c 'echo $$ > pid; exec sleep 600' & while [ ! -s pid ]; do :; done"
    ended = await launcher.run(order(tmp_path, script))
    assert ended.cause == "exited"
    await hands.until_dead(await hands.number_in(tmp_path / "pid"))


async def test_what_escapes_with_the_pipe_in_its_hands_delays_the_end_by_the_grace_at_most(
    launcher, tmp_path, monkeypatch
):
    monkeypatch.setattr(process, "PIPE_GRACE_S", 0.1)
    escape = "env -i setsid sh -c 'echo $$ > pid; exec sleep 600' & while [ ! -s pid ]; do :; done; echo end"
    ended = await launcher.run(order(tmp_path, escape))
    os.kill(await hands.number_in(tmp_path / "pid"), signal.SIGKILL)
    assert ended.output.text == "end\n"


async def test_cancelling_the_run_kills_the_child(launcher, tmp_path):
    running = asyncio.create_task(launcher.run(order(tmp_path, "echo $$ > pid; exec sleep 600")))
    pid = await hands.number_in(tmp_path / "pid")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not hands.alive(pid)


async def test_a_program_that_is_not_there_raises(launcher, tmp_path):
    with pytest.raises(FileNotFoundError):
        await launcher.run(order(tmp_path, "", argv=("no-such-program",)))


async def test_no_file_descriptor_is_left_open(launcher, tmp_path):
    await launcher.run(order(tmp_path, "true"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await launcher.run(order(tmp_path, "true", separate_stderr=True))
    with pytest.raises(FileNotFoundError):
        await launcher.run(order(tmp_path, "", argv=("no-such-program",)))
    assert len(os.listdir("/proc/self/fd")) == before


async def test_closing_the_guard_kills_what_still_runs(guarded, tmp_path):
    script = "echo $$ > pid; exec sleep 600"
    environment = {**os.environ, guard.COOKIE: f"{guarded.sidecar_id}.{os.getpid()}-1"}
    with hands.start("sh", "-c", script, cwd=tmp_path, environment=environment) as child:
        await hands.number_in(tmp_path / "pid")
        guarded.close()
        assert child.wait(timeout=hands.PATIENCE_S) == -signal.SIGKILL


async def test_the_guard_of_a_process_leaves_the_children_of_the_next_one_alone(guarded, tmp_path):
    own = {**os.environ, guard.COOKIE: f"{guarded.sidecar_id}.{os.getpid()}-1"}
    next_ones = {**os.environ, guard.COOKIE: f"{guarded.sidecar_id}.{os.getpid()}0-1"}
    with (
        hands.start("sh", "-c", "echo $$ > own; exec sleep 600", cwd=tmp_path, environment=own) as child,
        hands.start("sh", "-c", "echo $$ > next; exec sleep 600", cwd=tmp_path, environment=next_ones) as later,
    ):
        await hands.number_in(tmp_path / "own")
        await hands.number_in(tmp_path / "next")
        guarded.close()
        assert child.wait(timeout=hands.PATIENCE_S) == -signal.SIGKILL
        assert later.poll() is None
        later.kill()


async def test_a_start_kills_what_an_earlier_sidecar_of_this_folder_left(launcher, tmp_path):
    environment = {**os.environ, guard.COOKIE: f"{launcher.sidecar_id}.1-1"}
    other = {**os.environ, guard.COOKIE: f"{launcher.sidecar_id}2.1-1"}
    with (
        hands.start("sleep", "600", cwd=tmp_path, environment=environment) as left,
        hands.start("sleep", "600", cwd=tmp_path, environment=other) as strangers,
    ):
        await launcher.start_guard()
        assert left.wait(timeout=hands.PATIENCE_S) == -signal.SIGKILL
        assert strangers.poll() is None
        strangers.kill()
    launcher.close()


async def test_a_guard_that_was_killed_is_started_again(guarded):
    first = guarded.guard_pid
    os.kill(first, signal.SIGKILL)
    await hands.until_dead(first)
    await guarded.start_guard()
    assert guarded.guard_pid not in (None, first)
    assert hands.alive(guarded.guard_pid)


SIDECAR = """
import asyncio, os, pathlib, sys
from kit import clock
from sidecar.child import process
async def main():
    launcher = process.Launcher(clock.SystemClock(), sys.argv[1])
    await launcher.start_guard()
    detached = "setsid sh -c 'echo $$ > detached; exec sleep 600'"
    script = f"sleep 600 & echo $! > grandchild; echo $$ > child; {detached} & wait"
    await launcher.run(process.Order(argv=("sh", "-c", script), cwd=pathlib.Path(sys.argv[2]),
        environment={"PATH": os.environ["PATH"]}, timeout_s=600))
asyncio.run(main())
"""


async def test_all_descendants_die_when_the_sidecar_is_killed_with_9(tmp_path):
    name = f"test-{os.getpid()}-kill9"
    with hands.start(sys.executable, "-c", SIDECAR, name, str(tmp_path), cwd=ROOT) as sidecar:
        pids = [await hands.number_in(tmp_path / name) for name in ("child", "grandchild", "detached")]
        assert all(hands.alive(pid) for pid in pids)
        sidecar.kill()
    for pid in pids:
        await hands.until_dead(pid)
