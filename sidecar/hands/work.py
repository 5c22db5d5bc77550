"""A WORK attempt in a repository: from an empty worktree to a pushed branch that holds by its checks.

    workspace -> checks on the base -> executor -> commit -> checks on the clean committed tree
        -> repair rounds -> push -> Done

"Clean" is meant strictly: the checks run in a second, fresh tree of the commit, so that nothing that lies about in the
worktree (ignored files, build results, an uncommitted fix) can make them green.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from kit import logs
from sidecar.core import assignment, base_run, change, fault
from sidecar.core.assignment import Done, Receipt
from sidecar.executors.base import Executor, ExecutorResult, Job
from sidecar.hands.attempt import Attempt
from sidecar.hands.verify import Subject, red, run_checks
from sidecar.repo import workspace
from sidecar.repo.git import NO_SUBMODULES
from sidecar.repo.workspace import Workspace

log = logs.get(__name__)


async def run(attempt: Attempt) -> Done:
    """Do the work. Raises Fault; what is unfinished then stays in `attempt.workspace`, for the runner to save."""
    executor = attempt.tools.executors.choose(attempt.task)
    attempt.phase("workspace")
    attempt.workspace = place = await attempt.tools.workspaces.open(attempt.task, stop=attempt.control.stop)
    done = await _Work(attempt, executor, place).to_end()
    attempt.workspace = None
    await remove(place)
    return done


async def remove(place: Workspace) -> None:
    """Remove a workspace whose work is safe. That it could not be removed is no reason to deny the work."""
    try:
        await place.remove()
    except fault.Fault as error:
        log.warning("workspace.kept", tree=str(place.tree), reason=error.reason, message=error.message)


class _Work:
    def __init__(self, attempt: Attempt, executor: Executor, place: Workspace) -> None:
        self._attempt = attempt
        self._task = attempt.task
        self._executor = executor
        self._space = place
        self._base = place.place.base_sha
        contract = place.write_contract()
        self._variables: Mapping[str, str] = workspace.environment(attempt.task, contract, agent=attempt.tools.agent)

    async def to_end(self) -> Done:
        if base_run.is_needed(self._task.checks):
            self._attempt.phase("base_checks")
            receipts = await self._check(self._base, "base")
            self._attempt.receipts += receipts
            if base_run.already_done(self._task.checks, receipts):
                return Done(
                    summary="already done: the checks hold on the base",
                    base_sha=self._base,
                    already_done=True,
                    receipts=tuple(self._attempt.receipts),
                    tokens=0,
                )
            broken = base_run.broken(self._task.checks, receipts)
            if broken is not None:
                raise broken
        result = await self._execute(0, None)
        if self._task.delivery == "none":
            return await self._without_change(result)
        head = await self._commit()
        head, receipts = await self._prove(head)
        return await self._deliver(head, receipts, result)

    async def _without_change(self, result: ExecutorResult) -> Done:
        """Nothing is delivered: the checks look at the tree as the command left it."""
        self._attempt.phase("checks")
        subject = Subject(tree=self._space.tree, phase="head", base_sha=self._base, head_sha=self._base)
        receipts = await run_checks(self._attempt, self._task.checks, subject, variables=self._variables)
        self._attempt.receipts += receipts
        failed = red(receipts)
        if failed is not None:
            raise failed
        return Done(
            summary=result.summary or self._task.title,
            base_sha=self._base,
            receipts=tuple(self._attempt.receipts),
            tokens=self._attempt.tokens,
        )

    async def _execute(self, round_: int, failure: assignment.Failure | None) -> ExecutorResult:
        attempt = self._attempt
        attempt.phase("execute")
        job = Job(
            task=self._task,
            tree=self._space.tree,
            control=attempt.control,
            variables={**self._variables, **await attempt.tools.workspaces.git.identity()},
            start=attempt.child,
            say=attempt.say,
            round=round_,
            red=failure,
        )
        watcher = asyncio.create_task(self._watch(), name=f"progress of {self._task.holding}")
        try:
            result = await attempt.executed(self._executor, job)
        except (fault.Fault, OSError):
            raise
        except Exception as error:
            log.error("executor.crashed", executor=self._executor.name, exc_info=True)
            raise fault.Fault(
                f"the executor {self._executor.name} crashed: {error}", reason="EXECUTOR_CRASHED", attribution="agent"
            ) from error
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher
        if result.tokens is not None:
            attempt.tokens = (attempt.tokens or 0) + result.tokens
            attempt.progress(tokens=attempt.tokens)
        if result.failure is not None:
            failed = result.failure
            raise fault.Fault(
                failed.message, reason=failed.reason, attribution=failed.attribution, evidence=failed.evidence
            )
        return result

    async def _watch(self) -> None:
        """Look now and then at what has changed: progress that no worker can feign by talking."""
        git, tree = self._attempt.tools.workspaces.git, self._space.tree
        while True:
            await asyncio.sleep(self._attempt.tools.settings.progress_every_s)
            with suppress(fault.Fault):  # the worker may be in the middle of a git command of its own
                changed = await git.run("status", "--porcelain=v1", *NO_SUBMODULES, cwd=tree)
                commits = await git.run("rev-list", "--count", f"{self._space.place.start_sha}..HEAD", cwd=tree)
                self._attempt.progress(files_changed=len(changed.stdout.splitlines()), commits=int(commits.line or 0))

    async def _commit(self) -> str:
        """Bring all work into commits and see that they are a change of the base. Returns the tip."""
        attempt, space = self._attempt, self._space
        attempt.phase("commit")
        space.verify()
        await space.gather()
        unmerged = await space.unmerged_paths()
        if unmerged:
            raise fault.MergeConflict("a merge was left unfinished in the worktree", unmerged)
        await space.commit(change.commit_message(self._task, agent=attempt.tools.agent))
        await check_change(space)
        return await space.amend_trailers()

    async def _prove(self, head: str) -> tuple[str, Sequence[Receipt]]:
        """Checks on the committed tree, with bounded rounds of repair; returns the tip that holds and its receipts."""
        rounds = self._attempt.tools.settings.repair_round_count_max if self._executor.repairable else 0
        before = list(self._attempt.receipts)
        for round_ in range(rounds + 1):
            self._attempt.phase("checks")
            receipts = await self._check(head, "head")
            self._attempt.receipts = before + list(receipts)
            failed = red(receipts)
            if failed is None:
                return head, receipts
            if round_ == rounds:
                raise failed
            self._attempt.say(f"repair round {round_ + 1} of {rounds}: {failed.message}")
            await self._execute(round_ + 1, failed.failure)
            repaired = await self._commit()
            if repaired == head:
                raise failed  # the repair changed nothing: the same checks would say the same
            head = repaired
        raise AssertionError("the last round returns or raises")

    async def _check(self, sha: str, phase: assignment.Phase) -> Sequence[Receipt]:
        if not self._task.checks:
            return ()
        space = self._space
        name = f"{self._task.holding}.check"
        async with self._attempt.tools.workspaces.detached(space.cache, sha, name) as tree:
            subject = Subject(
                tree=tree,
                phase=phase,
                base_sha=self._base,
                head_sha=sha,
                tree_sha=await space.git.tree(sha, cwd=space.cache.path),
            )
            return await run_checks(self._attempt, self._task.checks, subject, variables=self._variables)

    async def _deliver(self, head: str, receipts: Sequence[Receipt], result: ExecutorResult) -> Done:
        attempt, space = self._attempt, self._space
        stat = await diff_stat(space, head)
        summary = result.summary or self._task.title
        text = change.body(self._task, base_sha=self._base, summary=summary, stat=stat, receipts=attempt.receipts)
        diff = await diff_artifact(space, head)
        attempt.phase("push")
        branch = await space.push(head)
        attempt.say(f"pushed {head} to {branch}")
        return Done(
            summary=summary,
            base_sha=self._base,
            head_sha=head,
            branch=branch,
            receipts=tuple(attempt.receipts),
            artifacts=(diff,),
            tokens=attempt.tokens,
            change_title=change.title(self._task),
            change_body=text,
            diff_stat=stat,
        )


async def check_change(space: Workspace) -> None:
    """See that what is committed is a change of its base, and one that can be told. Raises Fault."""
    git, base = space.git, space.place.base_sha
    if not await git.is_ancestor(base, "HEAD", cwd=space.tree):
        raise fault.Fault(f"the work does not build on its base {base[:12]}", reason="BASE_LOST", attribution="task")
    if await git.tree("HEAD", cwd=space.tree) == await git.tree(base, cwd=space.tree):
        raise fault.Fault("nothing was changed", reason="NO_CHANGE", attribution="task")
    await space.check_size()
    embedded = await space.embedded_repositories()
    if embedded:
        raise fault.Fault(
            f"the change holds repositories as links to nowhere: {', '.join(embedded)}",
            reason="EMBEDDED_REPOSITORY",
            attribution="task",
        )


async def diff_stat(space: Workspace, head: str) -> assignment.DiffStat:
    """The size of what `head` changes on the base."""
    said = await space.git.run("diff", "--shortstat", space.place.base_sha, head, cwd=space.cache.path)
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (file|insertion|deletion)", said.stdout)}
    return assignment.DiffStat(
        files=counts.get("file", 0), insertions=counts.get("insertion", 0), deletions=counts.get("deletion", 0)
    )


async def diff_artifact(space: Workspace, head: str) -> assignment.Artifact:
    """What `head` changes on the base, cut at a line's end."""
    said = await space.git.run(
        "diff", "--no-color", "--no-ext-diff", "--no-textconv", space.place.base_sha, head,
        cwd=space.cache.path, stdout_bytes_max=assignment.ARTIFACT_BYTES_MAX,
    )  # fmt: skip
    content, truncated = said.content, said.size_bytes > len(said.content)
    if truncated:
        content = content[: content.rfind(b"\n") + 1]
    return assignment.Artifact(
        id="diff", media_type="text/x-diff", content=content, size_bytes=said.size_bytes, truncated=truncated
    )
