"""`agentcom up` and `agentcom git` as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from cli import command

DEADLINE_S = 60.0


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTCOM_")}
    return {**kept, **more}


def agentcom(address: str, *words: str) -> object:
    run = subprocess.run(
        [sys.executable, "-m", "cli", "-o", "json", *words],
        env=environment(**{command.ENV_ADDRESS: address}),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1] if "--wait" in words else run.stdout)


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_up_runs_a_hub_and_a_sidecar_until_ctrl_c_and_leaves_nothing(tmp_path: Path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "up", "--dir", str(tmp_path), "--agent", "tester"),
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            first = (await process.stdout.readline()).decode()
            while b"Ctrl-C" not in await process.stdout.readline():
                pass
        address = first.split()[1]
        assert (tmp_path / "hub").stat().st_mode & 0o077 == 0, "the data folder is the owner's alone"
        done = await asyncio.to_thread(
            agentcom, address, "task", "create", "say hello", "--command", "echo hello", "--wait"
        )
        assert isinstance(done, dict)
        assert done["task"]["state"] == "STATE_SUCCEEDED"
        pids = children_of(process.pid)
        assert len(pids) == 2
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 0
        assert not [pid for pid in pids if is_alive(pid)]
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def test_a_second_ctrl_c_stops_what_runs_and_the_hub_learns_of_it(tmp_path: Path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "up", "--dir", str(tmp_path), "--agent", "tester"),
        # Its command tells through a pipe outside of its working folder that it runs.
        env=environment(AGENTCOM_SIDECAR_SANDBOX_MODE="off"),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            address = (await process.stdout.readline()).decode().split()[1]
            while b"Ctrl-C" not in await process.stdout.readline():
                pass
        begun = tmp_path / "begun"
        os.mkfifo(begun)
        # The command blocks in the pipe until we have read that it runs.
        await asyncio.to_thread(
            agentcom, address, "task", "create", "endless", "--command", f"echo > {begun}; exec sleep 600"
        )
        assert await asyncio.to_thread(begun.read_text) == "\n"
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_S):
            assert await process.stdout.readline() == b"stopping\n"
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    said = [json.loads(line) for line in (tmp_path / "tester.log").read_text().splitlines()]
    assert "holding.stopping" in [one["event"] for one in said]
    # With the hub gone first the farewell would have waited for it in vain.
    assert "sidecar.detached" not in [one["event"] for one in said]


async def test_up_tells_when_the_hub_cannot_start(tmp_path: Path):
    (tmp_path / "hub").write_text("a file where a folder should be")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "up", "--dir", str(tmp_path)),
        env=environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        _, said = await process.communicate()
    assert process.returncode == 2
    assert said.decode().startswith("error: --dir: ")


def test_git_hands_its_words_to_the_sidecar_and_its_exit_code_back():
    words = [sys.executable, "-m", "cli", "git", "nonsense", "--flag"]
    run = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    same = [sys.executable, "-m", "sidecar", "git", "nonsense", "--flag"]
    want = subprocess.run(same, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (run.returncode, run.stderr) == (want.returncode, want.stderr)
    assert run.returncode != 0
