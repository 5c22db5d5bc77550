"""`make demo`: a hub, two sidecars, a real git repository and a goal file; from nothing to merged work in a minute.

Everything lives in a temporary folder and ends with this process. Exit 0 only when the goal succeeded, its assertions
hold in a fresh clone of the origin, every process ended when it was asked to, and nothing is left running. Otherwise
the ends of the logs are shown, the folder is kept, and the exit code is 1.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agentcom.v1 import goal_pb2
from cli import children, output, session, up
from deploy.demo import origin, summary
from kit import errors, goalfile

HERE = Path(__file__).resolve().parent
GOAL_FILE = HERE / "goal.md"
AGENTS = ("ada", "grace")
SLOTS = 2
REPO = "tally"
REPO_CHECK = "python3 -m unittest"
# The work takes some 20 seconds on two slow cores; what takes this long hangs.
DEADLINE_S = 180.0
CALL_S = 20.0


async def demo(folder: Path, running: list[children.Child]) -> bool:
    """Run it all once; True when everything holds."""
    started = time.monotonic()
    goal = goalfile.parse(GOAL_FILE.read_bytes(), GOAL_FILE.name)
    url = origin.create(folder, HERE / "repo")
    say(f"origin    {url}")
    hub, address = await up.start_hub(folder)
    running.append(hub)
    say(f"hub       {address}, LMDB, pid {hub.pid}")
    for agent in AGENTS:
        running.append(await up.start_sidecar(folder, address, agent, slots=SLOTS))
        say(f"sidecar   {agent}, {SLOTS} slots, pid {running[-1].pid}")
    await agentcom(address, "repo", "add", REPO, str(url), "--check", REPO_CHECK)
    say(f"goal      {GOAL_FILE.name}: {goal.title} ({len(goal.plan.tasks)} tasks, {len(goal.assertions)} assertions)\n")
    code = await agentcom(address, "goal", "submit", str(GOAL_FILE), "--wait", may_fail=True)
    options = session.Options(address, None, output.Format.TABLE, CALL_S)
    report = await session.run(options, summary.collect)
    say("")
    output.Output(output.Format.TABLE).show(summary.table(report))
    problems = [] if code == 0 else [f"agentcom goal submit --wait ended with {code}"]
    problems += summary.problems(report, goal)
    problems += assertions_in_clone(folder, url, goal)
    say(f"\n{time.monotonic() - started:.1f} s in all")
    for problem in problems:
        say(f"NOT GOOD: {problem}")
    return not problems


def assertions_in_clone(folder: Path, url: Path, goal: goal_pb2.Goal) -> list[str]:
    """Run the goal's assertions in a fresh clone of the origin: what the hub says is not taken on trust."""
    clone = origin.clone(url, folder / "clone")
    say(f"\nassertions, run again by the demo itself on {origin.head(clone)[:12]} of the origin's main:")
    failed = []
    for assertion in goal.assertions:
        run = subprocess.run(
            ["sh", "-c", assertion.check.run], cwd=clone, capture_output=True, text=True, timeout=60, check=False
        )
        say(f"  {'holds ' if run.returncode == 0 else 'FAILED'} {assertion.id} {assertion.text}")
        if run.returncode != 0:
            failed.append(f"{assertion.id} does not hold in the clone: {(run.stdout + run.stderr)[-500:]}")
    return failed


async def agentcom(address: str, *words: str, may_fail: bool = False) -> int:
    """Run one command of the CLI as a person would, on our terminal."""
    say(f"$ agentcom {' '.join(words)}")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *words, env={**os.environ, "AGENTCOM_HUB_ADDRESS": address}
    )
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code and not may_fail:
        raise errors.Problem(f"agentcom {words[0]} {words[1]} ended with {code}")
    return code


async def stop(running: list[children.Child]) -> list[str]:
    """End the sidecars, then the hub; says which of them did not end as asked."""
    wrong = []
    for child in reversed(running):
        was_running = child.is_running
        code = await child.stop()
        if code or not was_running:
            wrong.append(f"the {child.name} ended with code {code}{'' if was_running else ' by itself'}")
    return wrong


def left_running(folder: Path) -> list[str]:
    """Processes that still work in the demo's folder or were started for it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            where = os.readlink(entry / "cwd")
        except OSError:  # it has just ended, or is not ours
            continue
        if int(entry.name) != os.getpid() and (str(folder) in line or where.startswith(str(folder))):
            found.append(f"process {entry.name} is left: {line[:200]}")
    return found


async def run(folder: Path) -> bool:
    """The demo with its end, whatever happens in between."""
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    running: list[children.Child] = []
    good = False
    try:
        async with asyncio.timeout(DEADLINE_S):
            good = await demo(folder, running)
    except TimeoutError:
        say(f"NOT GOOD: not done after {DEADLINE_S:.0f} s")
    except (errors.Problem, OSError, subprocess.SubprocessError) as problem:
        say(f"NOT GOOD: {problem}")
    finally:
        wrong = await stop(running) + left_running(folder)
        for line in wrong:
            say(f"NOT GOOD: {line}")
        good = good and not wrong
        if not good:
            for child in running:
                say(f"\n--- end of {child.log}\n{child.tail()}")
    return good


def say(text: str) -> None:
    """One line for the reader, at once, even into a pipe."""
    print(text, flush=True)


def main() -> int:
    """Run the demo in a folder of its own; returns the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="agentcom-demo-")).resolve()
    try:
        good = asyncio.run(run(folder))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say(f"interrupted; everything is stopped, the folder is {folder}")
        return 130
    if not good:
        say(f"\nthe demo did not succeed; its folder is kept: {folder}")
        return 1
    shutil.rmtree(folder)
    say("the demo succeeded; nothing is left running")
    return 0


if __name__ == "__main__":
    sys.exit(main())
