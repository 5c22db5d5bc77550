"""What a person types: `make demo`, `agentcom up` with the CLI beside it, and a task done by hand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from agentcom.v1 import task_pb2
from tests.e2e.test_goals import goal_text
from tests.support import processes
from tests.support.fleet import Fleet, spec
from tests.support.gitrepo import Origin, git

ROOT = Path(__file__).parents[2]
DEMO_S_MAX = 170.0
COMMAND_S_MAX = 60.0


async def run(*words: str, cwd: Path = ROOT, timeout_s: float = COMMAND_S_MAX, **variables: Any) -> tuple[int, str]:
    """Run one of our commands; its exit code, and what it printed on both outputs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTCOM_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words,
        cwd=cwd, env={**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen")]), **variables},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_the_demo_brings_a_goal_to_merged_work_and_leaves_nothing(tmp_path: Path):
    code, said = await run("deploy/demo/run.py", timeout_s=DEMO_S_MAX, TMPDIR=str(tmp_path))
    assert code == 0, said
    assert "the demo succeeded; nothing is left running" in said
    assert "NOT GOOD" not in said and said.count("  holds ") == 7
    assert os.listdir(tmp_path) == []
    assert processes.working_under(tmp_path) == []


async def test_up_and_the_cli_beside_it_take_a_goal_from_its_file_into_main(origin: Origin, tmp_path: Path):
    folder = tmp_path / "up"
    up = await processes.Process.start(
        "agentcom up", [sys.executable, "-m", "cli", "up", "--dir", str(folder)], log=tmp_path / "up.log"
    )
    try:
        await up.until(lambda: "Ctrl-C stops both" in up.said(), processes.PATIENCE_S)
        address: dict[str, Any] = {"AGENTCOM_HUB_ADDRESS": up.said().split()[1]}
        code, said = await run("-m", "cli", "repo", "add", "demo", str(origin.path), **address)
        assert code == 0, said
        file = tmp_path / "words.md"
        file.write_text(goal_text("alpha", "beta"))
        code, said = await run("-m", "cli", "goal", "submit", str(file), "--wait", **address)
        assert code == 0, said
        assert origin.read("words.txt") == "alpha\nbeta"
        code, said = await run("-m", "cli", "-o", "json", "goal", "list", **address)
        assert (code, json.loads(said)[0]["state"]) == (0, "STATE_SUCCEEDED"), said
        file.write_text(goal_text("gamma", "delta", command="exit 7"))
        code, said = await run("-m", "cli", "goal", "submit", str(file), "--request-id", "bad id", **address)
        assert code == 2 and "request_id" in said, "wrong usage names the field"
        up.signal(signal.SIGINT)
        async with asyncio.timeout(processes.PATIENCE_S):
            assert await up.wait() == 0, up.tail()
    finally:
        await up.stop()
    await processes.until(lambda: not processes.working_under(folder), "nothing is left running")


async def test_a_task_is_done_by_hand_under_the_same_rules(fleet: Fleet, origin: Origin, tmp_path: Path):
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    repo = await fleet.add_repo("demo", origin.path)
    check = task_pb2.Check(
        id="greets", run="grep -q hello greeting.txt", expect_on_base=task_pb2.Check.EXPECTATION_FAIL
    )
    by_ann = task_pb2.Requirement(capabilities=["ann"])
    (name,) = await fleet.submit(
        spec("greet", repo=repo, checks=[check], requirement=by_ann, delivery=task_pb2.DELIVERY_MERGE)
    )
    tree, state = tmp_path / "tree", str(tmp_path / "ann")
    code, said = await run("-m", "cli", "agent", "enroll", "ann", AGENTCOM_HUB_ADDRESS=fleet.address)
    assert code == 0, said
    words = ("-m", "cli", "git")
    code, said = await run(
        *words, "start-task", name, "--agent", "ann", "--state-dir", state, "--dir", str(tree),
        cwd=tmp_path, AGENTCOM_HUB_ADDRESS=fleet.address,
    )  # fmt: skip
    assert code == 0, said
    code, said = await run(*words, "submit", "--state-dir", state, cwd=tree)
    assert code == 1, "nothing is done yet"
    (tree / "greeting.txt").write_text("hello\n")
    git("add", "greeting.txt", cwd=tree)
    git("commit", "--quiet", "-m", "greet", cwd=tree)
    code, said = await run(*words, "status", "--state-dir", state, cwd=tree)
    assert code == 0 and name.removeprefix("tasks/") in said
    code, said = await run(*words, "submit", "--state-dir", state, cwd=tree)
    assert code == 0, said
    await fleet.until_tasks([name])
    assert origin.read("greeting.txt") == "hello"
    assert [attempt.agent for attempt in (await fleet.task(name)).attempts] == ["agents/ann"]
