"""The policy of a task, with real processes: who gets a task that demands a sandbox, and what it finds there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agentcom.v1 import agent_pb2, task_pb2, task_service_pb2
from tests.support.fleet import Fleet, spec
from tests.support.gitrepo import Origin

REQUIRED = task_pb2.Policy(isolation=task_pb2.Policy.ISOLATION_REQUIRED)


@pytest.fixture(scope="module", autouse=True)
def bubblewrap():
    """Skips where the machine cannot confine anything; CI installs bubblewrap, so there it does not skip."""
    try:
        command = ("bwrap", "--unshare-user", "--ro-bind", "/", "/", "true")
        subprocess.run(command, check=True, timeout=20, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no working bubblewrap: {error}")


async def test_a_task_that_demands_a_sandbox_waits_for_an_agent_that_has_one_and_is_merged_by_it(
    fleet: Fleet, origin: Origin, tmp_path: Path
):
    await fleet.start_hub()
    await fleet.start_sidecars("bare")
    repo = await fleet.add_repo("demo", origin.path)
    (tmp_path / "secret").write_text("CANARY")
    command = (
        f"cat {tmp_path}/secret > stolen.txt; touch {tmp_path}/escaped; ls {fleet.root} >> stolen.txt; echo 1 > a.txt"
    )
    check = task_pb2.Check(run=f"test -s a.txt && ! test -e {tmp_path}/secret")
    contract = spec(
        "be confined", command, repo=repo, delivery=task_pb2.DELIVERY_MERGE, checks=[check], policy=REQUIRED
    )
    (name,) = await fleet.submit(contract)
    explained = await fleet.tasks.ExplainTask(task_service_pb2.ExplainTaskRequest(name=name))
    assert "no agent offers a sandbox" in explained.summary
    assert (await fleet.task(name)).state == task_pb2.Task.STATE_QUEUED
    await fleet.start_sidecar("safe", sandbox_mode="required")
    task = (await fleet.until_tasks([name]))[name]
    assert [attempt.agent for attempt in (await fleet.task(name)).attempts] == ["agents/safe"]
    assert (await fleet.agent("safe")).offer.sandbox
    assert not (await fleet.agent("bare")).offer.sandbox
    assert task.spec.policy == REQUIRED
    assert origin.read("a.txt") == "1"
    assert "CANARY" not in origin.read("stolen.txt")
    assert not (tmp_path / "escaped").exists()


async def test_a_machine_that_demands_a_sandbox_and_has_none_is_blocked_and_says_what_to_install(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await fleet.start_hub()
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "git", "rm", "chmod"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    monkeypatch.setenv("PATH", str(tools))
    await fleet.start_sidecar("strict", sandbox_mode="required")
    agent = await fleet.until_agent("strict", agent_pb2.Agent.STATE_BLOCKED)
    (finding,) = (one for one in agent.self_test.findings if one.probe == "sandbox")
    assert not finding.passed
    assert "install bubblewrap" in finding.message
