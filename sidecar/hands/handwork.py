"""The same enforced workflow by hand: a person or an agent works in a worktree, this checks and pushes.

    prepare(assignment, path) -> work, commit -> submit(path) -> Outcome

Only the local half: claiming the task and reporting the outcome is the caller's. What is held is kept in the worktree,
in .agentcom/holding.json, outside git. The folder is never removed from here: it belongs to whoever works in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from kit import errors
from kit.clock import Clock
from sidecar.child import process
from sidecar.child.control import Control
from sidecar.core import assignment, change, contract, fault
from sidecar.core.assignment import Assignment, Done, NotDone, Outcome, Receipt
from sidecar.executors.base import Registry
from sidecar.hands import work
from sidecar.hands.attempt import Attempt, Tools
from sidecar.hands.verify import Subject, red, run_checks
from sidecar.repo import hook, workspace
from sidecar.repo.git import Git
from sidecar.repo.prepare import Workspaces
from sidecar.repo.workspace import Place, Workspace
from sidecar.settings import RunnerSettings

HOLDING_FILE = "holding.json"
RECEIPTS_FILE = "receipts.json"
# Beside a running sidecar's own caches and trees: neither may clean up what is the other's.
WORK_FOLDER = "hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a worktree that is worked in by hand stands."""

    holding: assignment.Holding
    title: str
    tree: Path
    branch: str
    base_sha: str
    head_sha: str
    #: Commits of its own, and commits that the default branch has gained since.
    ahead: int
    behind: int
    #: There is something that is not committed.
    dirty: bool
    #: Would a push of another branch from here be refused?
    hook_is_set: bool
    #: Of the last submit, with whether they speak of the present commit.
    receipts: tuple[Receipt, ...]
    receipts_are_current: bool


class Handwork:
    """Worktrees that somebody else works in."""

    def __init__(self, settings: RunnerSettings, clock: Clock, rng: random.Random, agent_id: str) -> None:
        self._settings = replace(settings, work_dir=settings.work_dir / WORK_FOLDER)
        self._settings.work_dir.mkdir(parents=True, exist_ok=True)
        self._launcher = process.Launcher(clock, f"hand-{rng.getrandbits(64):016x}")
        git = Git(
            self._launcher,
            agent=agent_id,
            timeout_s=settings.git_timeout_s,
            network_timeout_s=settings.git_network_timeout_s,
            work_dir=self._settings.work_dir,
        )
        self._tools = Tools(
            settings=self._settings,
            clock=clock,
            launcher=self._launcher,
            workspaces=Workspaces(git, self._settings, agent_id),
            executors=Registry(()),
            agent=agent_id,
        )

    async def prepare(self, task: Assignment, path: Path) -> Status:
        """A worktree at `path` for a claimed task, with branch, contract and hook. Raises Fault."""
        if task.repo is None or task.kind != "work":
            raise fault.Fault(
                "only a task that works in a repo can be done by hand", reason="NOT_BY_HAND", attribution="task"
            )
        space = await self._tools.workspaces.open(task, path=_absolute(path))
        space.write_contract()
        _keep(space.tree, HOLDING_FILE, space.place)
        return await self.status(space.tree)

    async def submit(self, path: Path) -> Outcome:
        """Check the committed tree and push it. NotDone means that nothing was pushed and nothing need be reported."""
        await self._tools.workspaces.confinement.start()
        space = self._open(path)
        attempt = Attempt(self._tools, space.place.task, Control())
        try:
            return await self._submit(attempt, space)
        except fault.Fault as error:
            return NotDone(
                failure=error.failure,
                receipts=tuple(attempt.receipts),
                artifacts=(attempt.log_artifact(),),
            )

    async def status(self, path: Path) -> Status:
        """How the worktree at `path` stands. Raises NotFound when it is none of ours, Fault when it cannot be read."""
        space = self._open(path)
        place, git = space.place, space.git
        async with space.cache.locked():
            main = await space.cache.fetch_base(try_count_max=1)
        head = await git.sha("HEAD", cwd=space.tree)
        receipts = _receipts(space.tree)
        return Status(
            holding=place.task.holding,
            title=place.task.title,
            tree=space.tree,
            branch=place.branch,
            base_sha=place.base_sha,
            head_sha=head,
            ahead=await self._count(space, f"{place.base_sha}..{head}"),
            behind=await self._count(space, f"{head}..{main}"),
            dirty=await git.is_dirty(cwd=space.tree),
            hook_is_set=hook.is_set(self._settings.work_dir, place.task.holding, Path(place.git_dir)),
            receipts=receipts,
            receipts_are_current=bool(receipts) and all(r.head_sha == head for r in receipts),
        )

    def load(self, path: Path) -> Place:
        """What is held at `path`. Raises NotFound when it is no worktree that `prepare` made."""
        file = _absolute(path) / workspace.CONTRACT_FOLDER / HOLDING_FILE
        place = workspace.read_place(file)
        if place is None:
            raise errors.NotFound(f"{path} is no worktree of a task: there is no {file.name} in it")
        return place

    async def _submit(self, attempt: Attempt, space: Workspace) -> Done:
        task, place = attempt.task, space.place
        space.verify()
        if await space.git.is_dirty(cwd=space.tree):
            raise fault.Fault(
                "there are changes that are not committed: commit them or take them back",
                reason="TREE_DIRTY",
                attribution="task",
            )
        await work.check_change(space)
        head = await space.amend_trailers()
        attempt.receipts = list(await self._check(attempt, space, head))
        _keep(space.tree, RECEIPTS_FILE, attempt.receipts)
        failed = red(attempt.receipts)
        if failed is not None:
            raise failed
        stat, diff = await work.diff_stat(space, head), await work.diff_artifact(space, head)
        branch = await space.push(head) if task.delivery != "none" else ""
        return Done(
            summary=task.title,
            base_sha=place.base_sha,
            head_sha=head,
            branch=branch,
            receipts=tuple(attempt.receipts),
            artifacts=(diff, attempt.log_artifact()),
            change_title=change.title(task),
            change_body=change.body(
                task, base_sha=place.base_sha, summary=task.title, stat=stat, receipts=attempt.receipts
            ),
            diff_stat=stat,
        )

    async def _check(self, attempt: Attempt, space: Workspace, head: str) -> tuple[Receipt, ...]:
        task = attempt.task
        if not task.checks:
            return ()
        async with self._tools.workspaces.detached(space.cache, head, f"{task.holding}.check") as tree:
            subject = Subject(
                tree=tree,
                phase="head",
                base_sha=space.place.base_sha,
                head_sha=head,
                tree_sha=await space.git.tree(head, cwd=space.cache.path),
            )
            variables = workspace.environment(task, None, agent=self._tools.agent)
            return await run_checks(attempt, task.checks, subject, variables=variables)

    def _open(self, path: Path) -> Workspace:
        place = self.load(path)
        repo = place.task.repo
        assert repo is not None, "prepare refuses a task without one"
        # The file could have been copied with its folder: the tree is where we are, and `verify` compares its pointer.
        place = msgspec.structs.replace(place, tree=str(_absolute(path)))
        cache = self._tools.workspaces.cache(repo)
        return Workspace(self._tools.workspaces.keeper, cache, place)

    async def _count(self, space: Workspace, span: str) -> int:
        return int((await space.git.run("rev-list", "--count", span, cwd=space.cache.path)).line)


def contract_text(place: Place) -> str:
    """The contract of what is held, for a person to read."""
    return contract.text(place.task, base_sha=place.base_sha, branch=place.branch)


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


def _keep(tree: Path, name: str, value: object) -> None:
    folder = tree / workspace.CONTRACT_FOLDER
    if not workspace.is_plain_folder(folder):
        raise fault.Fault(
            f"{workspace.CONTRACT_FOLDER} in the repository is no folder: this repo cannot be worked on by hand",
            reason="TREE_UNSAFE",
            attribution="task",
        )
    fresh = folder / f"{name}.new"
    fresh.unlink(missing_ok=True)
    fresh.write_bytes(msgspec.json.encode(value))
    fresh.replace(folder / name)


def _receipts(tree: Path) -> tuple[Receipt, ...]:
    try:
        data = (tree / workspace.CONTRACT_FOLDER / RECEIPTS_FILE).read_bytes()
        return msgspec.json.decode(data, type=tuple[Receipt, ...])
    except (OSError, msgspec.MsgspecError):
        return ()
