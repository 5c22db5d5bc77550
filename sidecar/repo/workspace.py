"""The place where one attempt works: a git worktree of its own, from the fetched default branch.

    fetch -> base (agreed with the remote) -> worktree on agentcom/<agent>/<task> -> wip of the attempt before on top

Nothing is thrown away. A worktree is removed when what it holds is pushed, to its branch or to
refs/agentcom/wip/<task>/<generation>; when that push fails the folder stays and is tried again at the task's next
attempt on this machine. What an agent did to the worktree's own git folder is not trusted: see `verify`.
"""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kit import logs
from sidecar.core import assignment, change, contract, fault
from sidecar.repo import box, git, hook, nested, oversize, staging
from sidecar.repo.cache import Cache
from sidecar.repo.confine import Confinement
from sidecar.settings import RunnerSettings

log = logs.get(__name__)

CONTRACT_FOLDER = ".agentcom"
CONTRACT_FILE = "task.md"
# Old folders of a task that are looked at when its next attempt begins; the rest waits for the attempt after.
LEFTOVER_COUNT_MAX = 4


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an attempt works; written beside the worktree, so that a sidecar that starts again finds it."""

    task: assignment.Assignment
    tree: str
    #: The worktree's own git folder, inside the cache.
    git_dir: str
    branch: str
    base_sha: str
    #: Where the work started: base_sha, or the merge of base and the wip of the attempt before.
    start_sha: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """What every workspace of one sidecar shares."""

    git: git.Git
    settings: RunnerSettings
    confinement: Confinement


class Workspace:
    """One worktree, for as long as its attempt lasts."""

    def __init__(self, keeper: Keeper, cache: Cache, place: Place) -> None:
        self.git = keeper.git
        self.cache = cache
        self.place = place
        self._keeper = keeper
        self._work_dir = keeper.settings.work_dir
        self._unmerged: tuple[str, ...] = ()

    @property
    def tree(self) -> Path:
        """Root of the worktree."""
        return Path(self.place.tree)

    def verify(self) -> None:
        """Make sure that git commands here act on our worktree and obey our configuration.

        An agent may have replaced `.git`, or written into the configuration. Raises Fault when the worktree is not ours
        any more: committing or cleaning at a wrong root has destroyed other people's work elsewhere.
        """
        pointer = self.tree / ".git"
        if pointer.is_symlink() or not pointer.is_file() or pointer.read_text() != f"gitdir: {self.place.git_dir}\n":
            raise fault.Fault(
                f"{self.tree.name}/.git no longer points to this worktree", reason="WORKTREE_BROKEN", attribution="task"
            )
        self.cache.secure()
        hook.write(self._work_dir, self.place.task.holding, self.place.branch, Path(self.place.git_dir))
        for name in ("index.lock", "HEAD.lock"):  # of a git command that was killed; its processes are dead
            (Path(self.place.git_dir) / name).unlink(missing_ok=True)

    async def gather(self) -> None:
        """Make the tree fit for our git, then take over what confined commands committed and staged. Raises Fault."""
        await asyncio.to_thread(nested.clear, self.tree)
        await self._take_over()

    async def _take_over(self) -> None:
        settings, tip = self._keeper.settings, await self.git.sha("HEAD", cwd=self.tree)
        bounds = box.Bounds(start_sha=tip, change_bytes_max=settings.change_bytes_max, timeout_s=settings.git_timeout_s)
        taken = await self._keeper.confinement.take(self.tree, bounds)
        if taken is None:
            return
        self._unmerged = taken.unmerged
        await self._import(taken)
        if taken.head and taken.head != tip:
            await self.git.run("reset", "--quiet", "--mixed", taken.head, cwd=self.tree, action="take over the commits")
        if taken.index:
            await self.git.run("read-tree", taken.index, cwd=self.tree, action="take over what is staged")
        # The next command starts from what is ours by then.
        await self._keeper.confinement.forget(self.tree)

    async def commit(self, message: str, *, lenient: bool = False) -> str:
        """Commit everything that is changed or new; returns the tip, new or not. Raises Fault.

        Lenient: what a change may not hold is left out (files too large) or kept as plain files (repositories).
        """
        self.verify()
        top = (await self.git.run("rev-parse", "--show-toplevel", cwd=self.tree)).line
        if not _is_same(Path(top), self.tree):
            raise fault.Fault(
                f"the worktree's root is {top}, not its own folder", reason="WORKTREE_BROKEN", attribution="task"
            )
        await staging.stage(self.git, self.tree, self._keeper.settings, lenient=lenient)
        staged = await self.git.run("diff", "--cached", "--quiet", cwd=self.tree, accept=(0, 1))
        if staged.exit_code or await self._is_merging():
            await self.git.run(
                "commit", "--quiet", "--no-verify", "--cleanup=whitespace", "-m", message,
                cwd=self.tree, action="commit the changes",
            )  # fmt: skip
        return await self.git.sha("HEAD", cwd=self.tree)

    async def unmerged_paths(self) -> tuple[str, ...]:
        """Paths that a merge left in conflict."""
        said = await self.git.run("diff", "-z", "--name-only", "--diff-filter=U", *git.NO_SUBMODULES, cwd=self.tree)
        return self._unmerged + tuple(path for path in said.stdout.split("\0") if path)

    async def embedded_repositories(self) -> tuple[str, ...]:
        """Repositories inside the working tree that the change would record as links to nowhere."""
        said = await self.git.run("diff", "-z", "--raw", "--no-renames", self.place.base_sha, "HEAD", cwd=self.tree)
        # Two entries for each path: ":modes shas status", then the path itself, whatever is in its name.
        entries = said.stdout.split("\0")
        return tuple(path for told, path in zip(entries[::2], entries[1::2], strict=False) if _is_new_link(told))

    async def check_size(self) -> None:
        """See that no commit of the change brings a file that is too large. Raises Fault."""
        await oversize.check_commits(
            self.git, self.tree, span=f"{self.place.base_sha}..HEAD", bytes_max=self._keeper.settings.file_bytes_max
        )

    async def _import(self, taken: box.Taken) -> None:
        """Take the objects in, each hashed and checked; then nothing that they speak of may be missing."""
        bytes_max = self._keeper.settings.change_bytes_max + box.PACK_OVERHEAD_BYTES
        try:
            await self.git.run(
                "index-pack", "--stdin", "--strict", f"--max-input-size={bytes_max}",
                cwd=self.cache.path, stdin=taken.pack, action="take over the commits",
            )  # fmt: skip
            for tip in filter(None, (taken.head, taken.index)):
                await self.git.run(
                    "rev-list", "--objects", "--quiet", tip, "--not", self.place.base_sha,
                    cwd=self.cache.path, action="look through the commits",
                )  # fmt: skip
        except (fault.Fault, OSError) as error:
            evidence = error.evidence if isinstance(error, fault.Fault) else str(error)
            if "maximum allowed size" in evidence:
                raise box.too_large(self._keeper.settings.change_bytes_max) from error
            raise fault.Fault(
                f"the commits of the task are refused: {error}", reason="COMMITS_REFUSED", attribution="task",
                evidence=evidence,
            ) from error  # fmt: skip

    async def amend_trailers(self) -> str:
        """See that the tip carries the task's trailers; returns the tip."""
        wanted = change.trailers(self.place.task)
        message = (await self.git.run("log", "-1", "--format=%B", cwd=self.tree)).stdout
        if change.has_trailers(message, wanted) and not message.startswith(change.WIP_PREFIX):
            return await self.git.sha("HEAD", cwd=self.tree)
        self.verify()
        tip = await self.git.sha("HEAD", cwd=self.tree)
        pushed = await self.cache.remote_sha(f"refs/heads/{self.place.branch}")
        # A tip that the agent has pushed already is not rewritten: that push could not be followed without force.
        how = ("--allow-empty",) if pushed == tip else ("--amend", "--allow-empty")
        await self.git.run(
            "commit", "--quiet", "--no-verify", "--cleanup=whitespace", *how,
            "-m", change.with_trailers(message, wanted),
            cwd=self.tree, action="add the trailers",
        )  # fmt: skip
        return await self.git.sha("HEAD", cwd=self.tree)

    async def push(self, sha: str) -> str:
        """Push the finished change; returns the branch it is on.

        The branch is agentcom/<agent>/<task>. When the remote has one of that name that this commit does not build on
        (an earlier attempt, which was given up), the name gets the generation as a suffix instead: nothing is forced.
        """
        branch = self.place.branch
        fallback = f"{branch}-g{self.place.task.holding.generation}"
        remote = await self.cache.remote_sha(f"refs/heads/{branch}")
        if remote == sha:
            return branch
        if not remote or await self.git.is_ancestor(remote, sha, cwd=self.cache.path):
            try:
                await self.cache.push(sha, f"refs/heads/{branch}")
            except fault.PushRejected:
                log.warning("branch.taken", branch=branch, task=self.place.task.holding.task)
            else:
                return branch
        await self.cache.push(sha, f"refs/heads/{fallback}")
        return fallback

    async def save(self, *, agent: str, timeout_s: float) -> str:
        """Commit and push unfinished work to its wip ref; returns the ref, empty when there is nothing to save.

        Raises Fault when it could not be pushed; then it is recorded in the cache under the same ref.
        """
        self._restore()
        await asyncio.to_thread(nested.clear, self.tree)
        try:
            await self._take_over()
        except fault.Fault as error:
            # Its commits are lost then; the files as they lie in the tree are not.
            log.warning("commits.lost", task=self.place.task.holding.task, reason=error.reason, message=error.message)
        message = change.commit_message(self.place.task, agent=agent, unfinished=True)
        tip = await self.commit(message, lenient=True)
        base = self.place.base_sha
        if await self.git.tree(tip, cwd=self.tree) == await self.git.tree(base, cwd=self.tree):
            return ""
        ref = wip_ref(self.place.task.holding)
        await self.git.run("update-ref", ref, tip, cwd=self.cache.path)
        await self.cache.push(tip, ref, timeout_s=timeout_s)
        return ref

    async def remove(self) -> None:
        """Remove worktree, local branch and hook. Only for what is pushed, or empty."""
        place = self.place
        async with self.cache.locked():
            await self.cache.remove_tree(self.tree)
            await self.git.run("branch", "--quiet", "-D", place.branch, cwd=self.cache.path, accept=(0, 1))
        hook.remove(self._work_dir, place.task.holding)
        shutil.rmtree(contract_folder(self._work_dir, place.task.holding), ignore_errors=True)
        place_file(self._work_dir, place.task.holding).unlink(missing_ok=True)

    def write_contract(self) -> Path:
        """Write the task's contract into the tree, outside git; returns its path."""
        place = self.place
        folder = self.tree / CONTRACT_FOLDER
        taken = folder.is_symlink() or (folder.exists() and not folder.is_dir())
        if taken or is_plain_folder(folder / CONTRACT_FILE):
            # The repository has a link or a file of that name: writing through it could hit anything on the machine.
            folder = contract_folder(self._work_dir, place.task.holding)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / CONTRACT_FILE
        path.unlink(missing_ok=True)
        path.write_text(contract.text(place.task, base_sha=place.base_sha, branch=place.branch))
        return path

    def _restore(self) -> None:
        """Point the worktree at its git folder again, when an agent has made a repository of its own there."""
        pointer = self.tree / ".git"
        if pointer.is_dir() and not pointer.is_symlink():
            folder = self.tree / CONTRACT_FOLDER
            target = folder / "foreign.git"
            if folder.is_symlink() or target.exists():
                return
            folder.mkdir(exist_ok=True)
            pointer.rename(target)
        else:
            pointer.unlink(missing_ok=True)
        pointer.write_text(f"gitdir: {self.place.git_dir}\n")

    async def _is_merging(self) -> bool:
        return (Path(self.place.git_dir) / "MERGE_HEAD").exists()


def _is_new_link(told: str) -> bool:
    return told.startswith(":000000 160000 ")


def wip_ref(holding: assignment.Holding) -> str:
    """Where unfinished work of an attempt goes."""
    return f"refs/agentcom/wip/{holding.task}/{holding.generation}"


def branch_name(agent: str, task: str) -> str:
    """The branch of a task: the same for every attempt of one agent, so that a second push is seen."""
    return f"agentcom/{agent}/{task}"


def contract_folder(work_dir: Path, holding: assignment.Holding) -> Path:
    """Where the contract is written when the repository leaves no place for it."""
    return work_dir / box.CONTRACTS / str(holding)


def place_file(work_dir: Path, holding: assignment.Holding) -> Path:
    """Where a holding's Place is recorded."""
    return work_dir / "holdings" / f"{holding}.json"


def tree_path(work_dir: Path, holding: assignment.Holding) -> Path:
    """Where a holding's worktree is."""
    return work_dir / "trees" / str(holding)


def read_place(path: Path) -> Place | None:
    """A recorded Place; None when there is none or it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Place)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        log.error("place.unreadable", path=str(path), error=str(error))
        return None


def write_place(work_dir: Path, place: Place) -> None:
    """Record a Place, all of it or nothing."""
    path = place_file(work_dir, place.task.holding)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(place))
    fresh.replace(path)


def environment(task: assignment.Assignment, contract_path: Path | None, *, agent: str) -> Mapping[str, str]:
    """What a child may know of its attempt."""
    return {
        "AGENTCOM_TASK": task.holding.task,
        "AGENTCOM_GENERATION": str(task.holding.generation),
        "AGENTCOM_ATTEMPT": str(task.attempt),
        "AGENTCOM_GOAL": task.goal,
        "AGENTCOM_AGENT": agent,
        **({"AGENTCOM_CONTRACT": str(contract_path)} if contract_path else {}),
    }


def check_disk(work_dir: Path, bytes_min: int) -> None:
    """Refuse work on a disk that is nearly full. Raises Fault."""
    work_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(work_dir).free
    if free < bytes_min:
        raise fault.Fault(
            f"{free} bytes are free under the work folder, {bytes_min} are needed",
            reason="DISK_LOW",
            attribution="agent",
        )


def _is_same(left: Path, right: Path) -> bool:
    return left.resolve() == right.resolve()


def is_plain_folder(path: Path) -> bool:
    """Is it a folder and not a link to one?"""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False
