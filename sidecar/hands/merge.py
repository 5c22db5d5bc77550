"""A MERGE attempt: a pushed change is brought onto fresh main, checked there, and main is pushed. Never by force.

    fetch -> merge in a tree of origin/main -> checks on the merged tree -> push main -> delete the branch
      ^                                                                 |
      +---------------- main has moved: start over, bounded ------------+

The push is the commit point: git refuses it unless main is still where the merge began. So two merges at once are safe,
and so is a try whose report was lost: a change that is in main already is done.
"""

from __future__ import annotations

from pathlib import Path

from kit import logs
from sidecar.core import assignment, change, fault
from sidecar.core.assignment import Done
from sidecar.hands.attempt import Attempt
from sidecar.hands.verify import Subject, red, run_checks
from sidecar.repo import git, workspace
from sidecar.repo.cache import Cache

log = logs.get(__name__)

# Label of the task by which the hub says how the repo wants its changes brought in.
STYLE_LABEL = "merge_style"
FAST_FORWARD = "fast_forward"
# Only branches of ours are deleted after their merge.
BRANCH_PREFIX = "agentcom/"


async def run(attempt: Attempt) -> Done:
    """Merge. Raises Fault: MERGE_CONFLICT and CHECK_FAILED send the change back to its task."""
    task, tools = attempt.task, attempt.tools
    if task.repo is None or task.change is None:
        raise fault.Fault("there is no repo or no change to merge", reason="CHANGE_MISSING", attribution="task")
    workspace.check_disk(tools.settings.work_dir, tools.settings.disk_free_bytes_min)
    return await _Merge(attempt, task.repo, task.change).to_end()


class _Merge:
    def __init__(self, attempt: Attempt, repo: assignment.RepoAccess, pushed: assignment.ChangeRef) -> None:
        self._attempt = attempt
        self._task = attempt.task
        self._change = pushed
        self._cache: Cache = attempt.tools.workspaces.cache(repo)
        self._git: git.Git = attempt.tools.workspaces.git
        self._main = f"refs/heads/{repo.default_branch}"

    async def to_end(self) -> Done:
        tries = self._attempt.tools.settings.merge_try_count_max
        for number in range(1, tries + 1):
            self._attempt.phase("workspace")
            base = await self._fetch()
            if await self._git.is_ancestor(self._change.head_sha, base, cwd=self._cache.path):
                await self._prove(base)
                return await self._merged(base, base, f"{self._change.branch} is in {self._main} already")
            try:
                merged = await self._try(base)
            except fault.PushRejected:
                self._attempt.say(f"main has moved, try {number} of {tries}")
                continue
            return await self._merged(base, merged, f"merged {self._change.branch} as {merged[:12]}")
        raise fault.Fault(
            f"main moved under each of {tries} tries to merge", reason="MAIN_MOVES", attribution="environment"
        )

    async def _fetch(self) -> str:
        async with self._cache.locked():
            base = await self._cache.fetch_base(try_count_max=1, stop=self._attempt.control.stop)
            if not await self._cache.fetch_commit(self._change.branch, self._change.head_sha):
                raise fault.Fault(
                    f"commit {self._change.head_sha[:12]} of {self._change.branch} is gone",
                    reason="CHANGE_GONE",
                    attribution="task",
                )
            return base

    async def _try(self, base: str) -> str:
        """One merge onto `base`, checked and pushed. Raises PushRejected when main is not there any more."""
        workspaces = self._attempt.tools.workspaces
        async with workspaces.detached(self._cache, base, f"{self._task.holding}.merge") as tree:
            self._attempt.phase("merge")
            try:
                merged = await self._merge(tree, base)
            except fault.Fault as error:
                if error.reason == "REPOSITORY_UNSAFE":  # main was checked out well: it is what the change brings
                    error.attribution = "task"
                raise
            await self._check(tree, base, merged)
            self._attempt.phase("push")
            await self._cache.push(merged, self._main)
        return merged

    async def _prove(self, base: str) -> None:
        """The change is in main: an earlier try pushed it and its report was lost. The hub wants its proof all the
        same.
        """
        workspaces = self._attempt.tools.workspaces
        async with workspaces.detached(self._cache, base, f"{self._task.holding}.merge") as tree:
            await self._check(tree, base, base)

    async def _check(self, tree: Path, base: str, merged: str) -> None:
        """The checks on the merged tree. Raises what makes them red."""
        self._attempt.phase("checks")
        subject = Subject(
            tree=tree,
            phase="merged",
            base_sha=base,
            head_sha=merged,
            tree_sha=await self._git.tree(merged, cwd=self._cache.path),
        )
        variables = workspace.environment(self._task, None, agent=self._attempt.tools.agent)
        receipts = await run_checks(self._attempt, self._task.checks, subject, variables=variables)
        # Receipts of a try whose push was refused speak of a tree that never came to be.
        self._attempt.receipts = list(receipts)
        failed = red(receipts)
        if failed is not None:
            raise failed

    async def _merge(self, tree: Path, base: str) -> str:
        head = self._change.head_sha
        if self._task.labels.get(STYLE_LABEL) == FAST_FORWARD and await self._git.is_ancestor(base, head, cwd=tree):
            await self._git.run("merge", "--quiet", "--ff-only", head, cwd=tree, action="fast-forward main")
            return head
        message = change.merge_message(self._task, self._change)
        said = await self._git.run(
            "merge", "--quiet", "--no-ff", "--no-verify", "--no-edit", "--cleanup=whitespace", "-m", message, head,
            cwd=tree, action=f"merge {self._change.branch}", accept=(0, 1),
        )  # fmt: skip
        if said.exit_code:
            paths = await self._git.run("diff", "--name-only", "--diff-filter=U", cwd=tree)
            raise fault.MergeConflict(
                f"{self._change.branch} conflicts with {self._main}",
                tuple(paths.stdout.splitlines()),
                evidence=said.stdout,
            )
        return await self._git.sha("HEAD", cwd=tree)

    async def _merged(self, base: str, merged: str, summary: str) -> Done:
        await self._delete_branch()
        self._attempt.say(summary)
        return Done(
            summary=summary,
            base_sha=base,
            head_sha=self._change.head_sha,
            branch=self._change.branch,
            receipts=tuple(self._attempt.receipts),
            merge_sha=merged,
            tokens=0,
        )

    async def _delete_branch(self) -> None:
        """Delete the branch at the remote, if it still is what was merged. A branch that stays does no harm."""
        if not self._change.branch.startswith(BRANCH_PREFIX):
            return
        ref = f"refs/heads/{self._change.branch}"
        try:
            if await self._cache.remote_sha(ref) == self._change.head_sha:
                await self._cache.delete(ref, expected_sha=self._change.head_sha)
        except fault.Fault as error:
            log.warning("branch.kept", branch=self._change.branch, reason=error.reason, message=error.message)
