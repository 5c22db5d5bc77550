"""`python -m sidecar git`: claim, work, check, push, report; a refused check reports nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentcom.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from kit import errors, interceptors, principal, serving
from tests.support import gitrepo
from tests.support.attach import holding, proto

HELD = holding(1, 4)
PATIENCE_S = 60.0
_Servicer: Any = task_service_pb2_grpc.TaskServiceServicer


class Tasks(_Servicer):  # type: ignore[misc]  # its base is chosen at run time
    """A hub that has one task to claim."""

    def __init__(self, origin: gitrepo.Origin) -> None:
        self.claims: list[task_service_pb2.ClaimTaskRequest] = []
        self.reports: list[task_service_pb2.ReportTaskRequest] = []
        self.problem: errors.Problem | None = None
        self._repo = task_service_pb2.RepoAccess(name="repos/demo", url=str(origin.path), default_branch="main")

    async def ClaimTask(self, request: Any, context: Any) -> Any:  # noqa: N802  # the contract's name
        if self.problem is not None:
            raise self.problem
        self.claims.append(request)
        spec = task_pb2.TaskSpec(
            title="say hello", repo="repos/demo", delivery=task_pb2.DELIVERY_BRANCH,
            checks=[task_pb2.Check(id="greets", run="grep -q hello greeting.txt")],
        )  # fmt: skip
        return task_service_pb2.ClaimTaskResponse(
            holding=proto(HELD), task=task_pb2.Task(name=request.name, spec=spec), repo=self._repo
        )

    async def ReportTask(self, request: Any, context: Any) -> Any:  # noqa: N802  # the contract's name
        self.reports.append(request)
        state = task_pb2.Task.STATE_SUCCEEDED
        return task_service_pb2.ReportTaskResponse(task=task_pb2.Task(name=request.holding.task, state=state))


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gitrepo.Origin:
    gitrepo.isolate(monkeypatch)
    return gitrepo.Origin(tmp_path / "repo")


@pytest.fixture
async def tasks(origin: gitrepo.Origin) -> AsyncIterator[Tasks]:
    servicer = Tasks(origin)
    gate = interceptors.Gate(lambda context, method: principal.Principal(name="test", scope="operator"))
    server = serving.Server(services=["agentcom.v1.TaskService"], interceptors=[gate])
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(servicer, server.grpc)
    servicer.address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    try:
        yield servicer
    finally:
        await server.grpc.stop(0)


async def run(*words: str, cwd: Path, **variables: str) -> tuple[int, str, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTCOM_")} | variables
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "git", *words,
        cwd=cwd, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, error = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


async def started(tasks: Tasks, folder: Path) -> Path:
    tree = folder / "tree"
    code, out, error = await run(
        "start-task", HELD.task, "--hub", tasks.address, "--agent", "ann", "--state-dir", str(folder / "state"),
        "--dir", str(tree), cwd=folder,
    )  # fmt: skip
    assert code == 0, error
    assert "agentcom/ann/" in out
    return tree


async def test_a_task_is_claimed_done_checked_pushed_and_reported(tasks, origin, tmp_path):
    tree = await started(tasks, tmp_path)
    assert tasks.claims[0].agent == "agents/ann"
    (tree / "greeting.txt").write_text("hello\n")
    gitrepo.git("add", "greeting.txt", cwd=tree)
    gitrepo.git("commit", "--quiet", "-m", "greet", cwd=tree)
    code, out, error = await run("submit", "--state-dir", str(tmp_path / "state"), "--output", "json", cwd=tree)
    assert code == 0, error
    told = json.loads(out)
    assert told["state"] == "succeeded"
    (report,) = tasks.reports
    assert report.holding == proto(HELD)
    assert [r.verdict for r in report.result.receipts] == [task_pb2.Receipt.VERDICT_PASS]
    assert gitrepo.git("rev-parse", report.result.branch, cwd=origin.path) == report.result.head_sha == told["head_sha"]


async def test_a_red_check_is_refused_and_nothing_is_pushed_or_reported(tasks, origin, tmp_path):
    tree = await started(tasks, tmp_path)
    (tree / "greeting.txt").write_text("goodbye\n")
    gitrepo.git("add", "greeting.txt", cwd=tree)
    gitrepo.git("commit", "--quiet", "-m", "greet", cwd=tree)
    code, _, error = await run("submit", "--state-dir", str(tmp_path / "state"), cwd=tree)
    assert code == 1
    assert error.startswith("not submitted: CHECK_FAILED")
    assert not tasks.reports
    assert "agentcom/ann" not in gitrepo.git("branch", "--list", "--all", cwd=origin.path)


async def test_status_tells_where_the_work_stands(tasks, origin, tmp_path):
    tree = await started(tasks, tmp_path)
    (tree / "greeting.txt").write_text("hello\n")
    code, out, error = await run("status", "--state-dir", str(tmp_path / "state"), "--output", "json", cwd=tree)
    assert code == 0, error
    told = json.loads(out)
    assert (told["holding"]["generation"], told["dirty"], told["hook_is_set"]) == (4, True, True)


async def test_a_task_that_cannot_be_prepared_is_given_back(tasks, tmp_path):
    tasks._repo.url = str(tmp_path / "nowhere")
    code, _, error = await run(
        "start-task", HELD.task, "--hub", tasks.address, "--agent", "ann", "--state-dir", str(tmp_path / "state"),
        cwd=tmp_path,
    )  # fmt: skip
    assert code == 1
    assert error
    assert tasks.reports[0].failure.attribution == task_pb2.ATTRIBUTION_ENVIRONMENT


async def test_a_task_that_the_hub_does_not_give_makes_no_worktree(tasks, tmp_path):
    tasks.problem = errors.IllegalState("tasks/1 is running", state="running")
    code, _, error = await run(
        "start-task", HELD.task, "--hub", tasks.address, "--agent", "ann", "--state-dir", str(tmp_path / "state"),
        "--dir", "tree", cwd=tmp_path,
    )  # fmt: skip
    assert (code, error) == (1, "agentcom-sidecar: tasks/1 is running\n")
    assert not (tmp_path / "tree").exists()


async def test_submit_and_status_find_their_folders_by_themselves(tasks, origin, tmp_path):
    tree = await started(tasks, tmp_path)
    (tree / "greeting.txt").write_text("hello\n")
    gitrepo.git("add", "greeting.txt", cwd=tree)
    gitrepo.git("commit", "--quiet", "-m", "greet", cwd=tree)
    home = {"HOME": str(tmp_path / "elsewhere")}
    code, out, error = await run("status", "--output", "json", cwd=tree, **home)
    assert (code, error) == (0, "")
    assert json.loads(out)["hook_is_set"]
    code, out, error = await run("submit", "--output", "json", cwd=tree, **home)
    assert code == 0, error
    assert json.loads(out)["state"] == "succeeded"
    assert not (tmp_path / "elsewhere").exists()


async def test_outside_of_a_worktree_submit_says_so(tmp_path):
    code, _, error = await run("submit", "--agent", "ann", "--state-dir", str(tmp_path / "state"), cwd=tmp_path)
    assert code == 1
    assert "no worktree of a task" in error


async def test_without_an_agent_it_asks_as_whom(tmp_path):
    code, _, error = await run("start-task", HELD.task, "--state-dir", str(tmp_path / "state"), cwd=tmp_path)
    assert code == 2
    assert "as whom" in error
