"""One repository's bare clone on this machine, shared by all working trees of this sidecar.

Working trees are worktrees of the cache, so an agent that runs in one can write into the cache's configuration. That
configuration is therefore ours: it is written anew before every use (`secure`), and nothing in it is read as news.

The lock is held over awaits on purpose: a fetch, an added worktree and a moved branch of one cache must not interleave
(git's own lock files make the second one fail instead of wait). It is an asyncio lock within the process and a file
lock between processes (`sidecar git start-task` beside a running sidecar).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from sidecar.child import process
from sidecar.core import fault, git_fault
from sidecar.core.assignment import RepoAccess
from sidecar.repo import box, discard, git

# How often a file lock held by another process is tried again.
LOCK_RETRY_S = 0.1
# Never part of a change, whatever the repository's own ignore file says.
EXCLUDED = (
    "/.agentcom/",
    "__pycache__/",
    "*.py[co]",
    ".pytest_cache/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".hypothesis/",
    "node_modules/",
    ".venv/",
    ".DS_Store",
)


class Cache:
    """The bare clone of one repository."""

    def __init__(self, git_: git.Git, work_dir: Path, repo: RepoAccess, *, lock_timeout_s: float) -> None:
        if git_fault.carries_secret(repo.url):
            raise fault.Fault(
                f"the address of {repo.name} carries a secret; use a credential helper or an ssh key",
                reason="SECRET_IN_ADDRESS",
                attribution="environment",
            )
        slug = re.sub(r"[^a-z0-9-]+", "-", repo.name.removeprefix("repos/").lower()).strip("-")[:40]
        digest = hashlib.sha256(repo.url.encode()).hexdigest()[:8]
        self.repo = repo
        self.path = work_dir / "repos" / f"{slug}-{digest}.git"
        self.base_ref = f"refs/remotes/origin/{repo.default_branch}"
        self._git = git_
        self._lock = asyncio.Lock()
        self._lock_timeout_s = lock_timeout_s

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Alone on this cache; its configuration is ours again."""
        try:
            async with asyncio.timeout(self._lock_timeout_s):
                await self._lock.acquire()
        except TimeoutError:
            raise self._busy() from None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                await self._lock_file(descriptor)
                await self._ensure()
                yield
            finally:
                os.close(descriptor)  # gives the file lock back
        finally:
            self._lock.release()

    def share_lock(self, other: Cache) -> None:
        """Use the lock of another view of the same cache (its default branch was changed, say)."""
        assert other.path == self.path
        self._lock = other._lock

    def secure(self) -> None:
        """Write the cache's own configuration, whatever it holds now."""
        _write(self.path / "config", _config(self.repo.url))
        _write(self.path / "config.worktree", "[core]\n\tbare = true\n")
        _write(self.path / "info" / "exclude", "\n".join(EXCLUDED) + "\n")

    async def fetch_base(self, *, try_count_max: int, stop: process.StopOrder | None = None) -> str:
        """Fetch the default branch until the remote agrees; returns its commit. Call with the cache locked."""
        branch = f"refs/heads/{self.repo.default_branch}"
        fetched = ""
        for _ in range(try_count_max):
            fetched = await self.fetch(branch, self.base_ref, stop=stop)
            if fetched == await self.remote_sha(branch, stop=stop):
                break
        # Still moving after the last try: what was fetched a moment ago is the base; the merge checks again anyway.
        return fetched

    async def fetch(self, remote_ref: str, local_ref: str, *, stop: process.StopOrder | None = None) -> str:
        """Fetch one ref and return its commit. Raises Fault. Call with the cache locked."""
        await self._git.run(
            "fetch", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--quiet", "origin",
            f"+{remote_ref}:{local_ref}",
            cwd=self.path, network=True, stop=stop, action=f"fetch {remote_ref} of {self.repo.name}",
        )  # fmt: skip
        return await self._git.sha(local_ref, cwd=self.path)

    async def fetch_commit(self, branch: str, sha: str) -> bool:
        """See that a commit of a pushed branch is here; false when it is nowhere. Call with the cache locked."""
        if not await self._git.sha(sha, cwd=self.path) and await self.remote_sha(f"refs/heads/{branch}"):
            await self.fetch(f"refs/heads/{branch}", f"refs/remotes/origin/{branch}")
        return bool(await self._git.sha(sha, cwd=self.path))

    async def remote_sha(self, ref: str, *, stop: process.StopOrder | None = None) -> str:
        """Where the remote's `ref` points now; empty when there is none."""
        said = await self._git.run(
            "ls-remote", "--quiet", "origin", ref,
            cwd=self.path, network=True, stop=stop, action=f"look at {ref} of {self.repo.name}",
        )  # fmt: skip
        for line in said.stdout.splitlines():
            sha, _, name = line.partition("\t")
            if name == ref:
                return sha
        return ""

    async def push(self, sha: str, ref: str, *, timeout_s: float | None = None) -> None:
        """Push a commit to a ref, never by force. Raises PushRejected when the ref holds something else."""
        await self._git.run(
            "push", "--quiet", "--no-verify", "origin", f"{sha}:{ref}",
            cwd=self.path, network=True, timeout_s=timeout_s, action=f"push {ref} of {self.repo.name}",
        )  # fmt: skip

    async def delete(self, ref: str, *, expected_sha: str) -> None:
        """Delete a ref of the remote, only while it points to `expected_sha`."""
        await self._git.run(
            "push", "--quiet", "--no-verify", f"--force-with-lease={ref}:{expected_sha}", "origin",
            f":{ref}",
            cwd=self.path, network=True, action=f"push the deletion of {ref} of {self.repo.name}",
        )  # fmt: skip

    async def add_tree(self, path: Path, *, at: str, branch: str = "") -> None:
        """A working tree of commit `at`, on a new local branch or detached. Call with the cache locked."""
        path.parent.mkdir(parents=True, exist_ok=True)
        head = ("--no-track", "-b", branch) if branch else ("--detach",)
        await self._git.run(
            "worktree", "add", "--quiet", *head, str(path), at,
            cwd=self.path, action=f"add the working tree {path.name}",
        )  # fmt: skip

    async def remove_tree(self, path: Path) -> None:
        """Remove a working tree with everything in it: only what is pushed or recorded. Call with the cache locked."""
        await discard.discard(self._git.launcher, path)
        await self._git.run("worktree", "prune", "--expire=now", cwd=self.path)
        for left in sorted((self.path.parent.parent / box.FOLDER / self.path.stem).glob("*")):
            if not (self.path / "worktrees" / left.name).exists():
                await discard.discard(self._git.launcher, left)

    async def _ensure(self) -> None:
        if not (self.path / "HEAD").exists():
            await self._git.run("init", "--quiet", "--bare", "--template=", str(self.path), cwd=self.path.parent)
        self.secure()

    async def _lock_file(self, descriptor: int) -> None:
        deadline = asyncio.get_running_loop().time() + self._lock_timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if asyncio.get_running_loop().time() >= deadline:
                    raise self._busy() from None
                # Another process, which gives no signal; it holds the lock for the length of a fetch at most.
                await asyncio.sleep(LOCK_RETRY_S)
            else:
                return

    def _busy(self) -> fault.Fault:
        return fault.Fault(
            f"the cache of {self.repo.name} is in use for more than {self._lock_timeout_s:g} s",
            reason="CACHE_BUSY",
            attribution="agent",
        )


def _config(url: str) -> str:
    quoted = url.replace("\\", "\\\\").replace('"', '\\"')
    assert "\n" not in quoted, "an address is one line"
    macos = "\tignoreCase = true\n\tprecomposeUnicode = true\n" if sys.platform == "darwin" else ""
    return (
        f"[core]\n\trepositoryFormatVersion = 1\n\tfileMode = true\n{macos}"
        "[extensions]\n\tworktreeConfig = true\n"
        f'[remote "origin"]\n\turl = "{quoted}"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n'
        "[remote]\n\tpushDefault = origin\n"
        # A person's or an agent's plain `git push` pushes the branch it is on, and nothing else.
        "[push]\n\tdefault = current\n"
        "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"
    )


def _write(path: Path, text: str) -> None:
    """Replace the file unless it holds just that; never through a link."""
    if path.is_symlink() or not path.is_file() or path.read_text(errors="replace") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.write_text(text)
        os.replace(fresh, path)
