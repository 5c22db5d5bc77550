"""A VERIFY attempt: the checks on a fresh tree of the default branch, or of a change. It changes nothing."""

from __future__ import annotations

from sidecar.core import fault
from sidecar.core.assignment import Done
from sidecar.hands.attempt import Attempt
from sidecar.hands.verify import Subject, red, run_checks
from sidecar.repo import workspace
from sidecar.repo.cache import Cache


async def run(attempt: Attempt) -> Done:
    """Check. Raises Fault unless every check passes; a task without checks proves nothing and fails."""
    task, tools = attempt.task, attempt.tools
    if not task.checks:
        raise fault.Fault("there is no check to run", reason="NO_CHECKS", attribution="task")
    if task.repo is None:
        raise fault.Fault("there is no repo to check", reason="REPO_MISSING", attribution="task")
    attempt.phase("workspace")
    workspace.check_disk(tools.settings.work_dir, tools.settings.disk_free_bytes_min)
    cache = tools.workspaces.cache(task.repo)
    base, sha = await _subject(attempt, cache)
    attempt.phase("checks")
    async with tools.workspaces.detached(cache, sha, f"{task.holding}.verify") as tree:
        subject = Subject(
            tree=tree,
            phase="merged" if task.change is None else "head",
            base_sha=base,
            head_sha=sha,
            tree_sha=await tools.workspaces.git.tree(sha, cwd=cache.path),
        )
        variables = workspace.environment(task, None, agent=tools.agent)
        receipts = await run_checks(attempt, task.checks, subject, variables=variables)
    attempt.receipts += receipts
    failed = red(receipts)
    if failed is not None:
        raise failed
    return Done(
        summary=f"{len(receipts)} checks hold on {sha[:12]}",
        base_sha=base,
        head_sha=sha,
        receipts=tuple(attempt.receipts),
        tokens=0,
    )


async def _subject(attempt: Attempt, cache: Cache) -> tuple[str, str]:
    """The base and the commit to check."""
    tools, change = attempt.tools, attempt.task.change
    async with cache.locked():
        base = await cache.fetch_base(try_count_max=tools.settings.fetch_try_count_max, stop=attempt.control.stop)
        if change is None:
            return base, base
        if not await cache.fetch_commit(change.branch, change.head_sha):
            raise fault.Fault(
                f"commit {change.head_sha[:12]} of {change.branch} is gone", reason="CHANGE_GONE", attribution="task"
            )
        return base, change.head_sha
