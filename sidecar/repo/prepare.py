"""Opens workspaces: fetch, base, worktree, the work of the attempt before; and finds again what a crash left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from kit import logs
from sidecar.child import process
from sidecar.core import assignment, fault
from sidecar.core.assignment import RepoAccess
from sidecar.repo import discard, git, hook, workspace
from sidecar.repo.cache import Cache
from sidecar.repo.confine import Confinement
from sidecar.repo.workspace import Keeper, Place, Workspace
from sidecar.settings import RunnerSettings

log = logs.get(__name__)


class Workspaces:
    """All working trees of one sidecar."""

    def __init__(self, git_: git.Git, settings: RunnerSettings, agent: str) -> None:
        self.git = git_
        self.confinement = Confinement(git_, settings)
        self.keeper = Keeper(git=git_, settings=settings, confinement=self.confinement)
        self._settings = settings
        self._work_dir = settings.work_dir
        self._agent = agent
        # One a repository, for the lock in it. Bounded by the repositories that the hub knows.
        self._caches: dict[Path, Cache] = {}

    def cache(self, repo: RepoAccess) -> Cache:
        """The cache of a repository. Raises Fault when its address carries a secret."""
        cache = Cache(self.git, self._work_dir, repo, lock_timeout_s=self._settings.lock_timeout_s)
        known = self._caches.get(cache.path)
        if known is None or known.repo != repo:
            if known is not None:
                cache.share_lock(known)
            self._caches[cache.path] = known = cache
        return known

    async def open(
        self, task: assignment.Assignment, *, path: Path | None = None, stop: process.StopOrder | None = None
    ) -> Workspace:
        """A fresh worktree for an attempt; at `path` where a person wants it. Raises Fault."""
        assert task.repo is not None
        workspace.check_disk(self._work_dir, self._settings.disk_free_bytes_min)
        cache = self.cache(task.repo)
        await self._salvage(task)
        async with cache.locked():
            base = await cache.fetch_base(try_count_max=self._settings.fetch_try_count_max, stop=stop)
            if not base:
                raise fault.Fault(
                    f"{task.repo.name} has no branch {task.repo.default_branch}",
                    reason="FETCH_FAILED",
                    attribution="environment",
                )
            before = await self._fetch_wip(cache, task, stop)
            opened = await self._add(cache, task, path or workspace.tree_path(self._work_dir, task.holding), base)
        if before:
            opened = await self._build_on(opened, before)
        log.info("workspace.opened", task=task.holding.task, generation=task.holding.generation, base=base, wip=before)
        return opened

    def reopen(self, holding: assignment.Holding) -> Workspace | None:
        """The workspace of a holding that a process before this one opened; None when there is none."""
        place = workspace.read_place(workspace.place_file(self._work_dir, holding))
        if place is None or place.task.repo is None or not workspace.is_plain_folder(Path(place.tree)):
            return None
        return Workspace(self.keeper, self.cache(place.task.repo), place)

    @asynccontextmanager
    async def detached(self, cache: Cache, sha: str, name: str) -> AsyncIterator[Path]:
        """A clean tree of one commit, for as long as the block lasts: what was left lying about cannot help a check."""
        path = self._work_dir / "trees" / name
        async with cache.locked():
            if workspace.is_plain_folder(path):
                await cache.remove_tree(path)
            await cache.add_tree(path, at=sha)
        try:
            yield path
        finally:
            async with cache.locked():
                await cache.remove_tree(path)

    async def remove_stale_locks(self) -> None:
        """At the start, when no git of ours runs: remove lock files of git commands that were killed."""
        for folder in sorted((self._work_dir / "repos").glob("*.git")):
            count = 0
            for stale in [*folder.glob("*.lock"), *folder.glob("refs/**/*.lock"), *folder.glob("worktrees/*/*.lock")]:
                stale.unlink(missing_ok=True)
                count += 1
            if count:
                log.warning("cache.unlocked", cache=folder.name, count=count)

    async def scratch(self, holding: assignment.Holding) -> Path:
        """An empty folder for a task without a repository. Raises Fault on a full disk."""
        workspace.check_disk(self._work_dir, self._settings.disk_free_bytes_min)
        path = self._work_dir / "scratch" / str(holding)
        await discard.discard(self.git.launcher, path)
        path.mkdir(parents=True)
        return path

    async def remove_scratch(self, holding: assignment.Holding) -> None:
        """Remove what `scratch` made."""
        await discard.discard(self.git.launcher, self._work_dir / "scratch" / str(holding))

    async def _add(self, cache: Cache, task: assignment.Assignment, path: Path, base: str) -> Workspace:
        branch = workspace.branch_name(self._agent, task.holding.task)
        if workspace.is_plain_folder(path) and path.is_relative_to(self._work_dir):
            # Made a moment before a crash: a tree that was worked in has its Place written and was salvaged before.
            await cache.remove_tree(path)
        taken = await self.git.sha(f"refs/heads/{branch}", cwd=cache.path)
        if taken:
            await self.git.run("branch", "-M", branch, f"{branch}-kept-{taken[:12]}", cwd=cache.path)
        await cache.add_tree(path, at=base, branch=branch)
        git_dir = (path / ".git").read_text().removeprefix("gitdir:").strip()
        place = Place(task=task, tree=str(path), git_dir=git_dir, branch=branch, base_sha=base, start_sha=base)
        workspace.write_place(self._work_dir, place)
        hook.write(self._work_dir, task.holding, branch, Path(git_dir))
        return Workspace(self.keeper, cache, place)

    async def _fetch_wip(self, cache: Cache, task: assignment.Assignment, stop: process.StopOrder | None) -> str:
        """The commit with the unfinished work of the attempt before; empty when there is none to be had."""
        if not task.wip_ref:
            return ""
        if await cache.remote_sha(task.wip_ref, stop=stop):
            return await cache.fetch(task.wip_ref, task.wip_ref, stop=stop)
        # Not at the remote: perhaps it was made here, and its push failed.
        sha = await self.git.sha(task.wip_ref, cwd=cache.path)
        if not sha:
            log.warning("wip.missing", task=task.holding.task, ref=task.wip_ref)
        return sha

    async def _build_on(self, opened: Workspace, before: str) -> Workspace:
        """Bring the unfinished work onto the base; where main contradicts it, start from main: its ref stays."""
        place = opened.place
        merged = await self.git.run(
            "merge", "--quiet", "--no-verify", "--no-edit", "-m", f"wip: {place.task.title}", before,
            cwd=opened.tree, action="merge the unfinished work", accept=(0, 1, 128),
        )  # fmt: skip
        if merged.exit_code:
            await self.git.run("merge", "--abort", cwd=opened.tree, accept=(0, 1, 128))
            await self.git.run("reset", "--quiet", "--hard", place.base_sha, cwd=opened.tree)
            log.warning("wip.conflicted", task=place.task.holding.task, ref=place.task.wip_ref)
            return opened
        start = await self.git.sha("HEAD", cwd=opened.tree)
        place = msgspec.structs.replace(place, start_sha=start)
        workspace.write_place(self._work_dir, place)
        return Workspace(self.keeper, opened.cache, place)

    async def _salvage(self, task: assignment.Assignment) -> None:
        """Save what earlier attempts at this task left here, so that this one can have the branch's name."""
        pattern = f"{task.holding.task}.*.json"
        files = sorted((self._work_dir / "holdings").glob(pattern))[: workspace.LEFTOVER_COUNT_MAX]
        for file in files:
            place = workspace.read_place(file)
            if place is None or place.task.repo is None:
                continue
            left = self.reopen(place.task.holding)
            if left is None:
                file.unlink(missing_ok=True)
                continue
            if not left.tree.is_relative_to(self._work_dir / "trees"):
                await self._set_aside(left)  # a person's folder: never removed from here
                continue
            try:
                await left.save(agent=self._agent, timeout_s=self._settings.wip_timeout_s)
            except fault.Fault as error:
                log.warning("leftover.kept", task=task.holding.task, tree=place.tree, reason=error.reason)
                await self._set_aside(left)
            else:
                await left.remove()

    async def _set_aside(self, left: Workspace) -> None:
        """Keep a worktree that could not be saved, under another branch name."""
        place = left.place
        aside = f"{workspace.branch_name(self._agent, place.task.holding.task)}-kept-g{place.task.holding.generation}"
        if place.branch == aside:
            return
        async with left.cache.locked():
            await self.git.run("branch", "-M", place.branch, aside, cwd=left.cache.path, accept=(0, 1, 128))
        workspace.write_place(self._work_dir, msgspec.structs.replace(place, branch=aside))
