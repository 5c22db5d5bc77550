"""The private repository that confined commands see in place of their working tree's own git folder.

    <cache>/objects            read-only: the history, through `objects/info/alternates`
    <cache>/worktrees/<name>   mounted over with the box: HEAD, refs, index, config and new objects of its own
    <tree>/.git                read-only: the pointer to it, at its usual path

So `git status`, `log`, `diff`, `commit`, `checkout -b` work as ever, and nothing that a command does to "its"
repository (configuration, hooks, refs, alternates) is met by any git command of ours: those use the worktree's own
folder, which is not to be seen inside. What comes back is taken over in one place, `take`: inside a sandbox git packs
the commits, and what we read of it is two object names and a pack whose every object is hashed and checked again.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar.child import process
from sidecar.child.sandbox import Mount
from sidecar.core import fault
from sidecar.core.assignment import RepoAccess

FOLDER = "boxes"
# Contracts of trees whose repository leaves no place for them.
CONTRACTS = "contracts"
# Beside the repository, where nothing inside can see it.
MADE = "made"
# What a pointer and an answer of the packing script hold, with room for a long path.
SMALL_BYTES_MAX = 64 * 1024
# A pack of the largest change allowed may be a little larger than its files.
PACK_OVERHEAD_BYTES = 16 * 1024 * 1024

_SHA = re.compile(r"[0-9a-f]{40}")

# Runs inside, in a repository that a command has had its hands on: whatever its configuration starts is confined too.
_PACK = """
set -e
out=$1 start=$2 blocks=$3
ulimit -f "$blocks"
rm -rf -- "$out"; mkdir -- "$out"
git ls-files --unmerged -z > "$out/unmerged"
head=$(git rev-parse --verify --quiet 'HEAD^{commit}') || head=
tree=
[ -s "$out/unmerged" ] || tree=$(git write-tree)
printf '%s\\n' "$head" "$tree" > "$out/tips"
{ [ -z "$head" ] || echo "$head"; [ -z "$tree" ] || echo "$tree"; echo "^$start"; echo "^$start^{tree}"; } |
  git pack-objects --revs --quiet --stdout > "$out/pack"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a box holds that is not ours yet."""

    #: The commit that HEAD points to; empty: none.
    head: str
    #: The tree of the index; empty: a merge was left unfinished.
    index: str
    #: Paths that a merge left in conflict.
    unmerged: tuple[str, ...]
    #: With all new objects.
    pack: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """For taking over what a box holds."""

    #: What need not be packed: everything up to it is ours.
    start_sha: str
    change_bytes_max: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Box:
    """The box of one working tree."""

    folder: Path
    tree: Path
    #: The worktree's own git folder, inside the cache.
    git_dir: Path

    @property
    def repository(self) -> Path:
        """What is seen in place of `git_dir`."""
        return self.folder / "git"

    @property
    def cache(self) -> Path:
        """The bare clone."""
        return self.git_dir.parent.parent

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What the sandbox needs besides the tree."""
        pointer, objects = self.tree / ".git", self.cache / "objects"
        return (
            Mount(source=pointer, target=pointer),
            Mount(source=objects, target=objects),
            Mount(source=self.repository, target=self.git_dir, writable=True),
        )

    def exists(self) -> bool:
        """Was it made? Whatever commands have done to it since."""
        return (self.folder / MADE).exists()

    def make(self, repo: RepoAccess, who: tuple[str, str]) -> None:
        """A repository that stands where the worktree stands. Plain files: no process has to be started for it."""
        own = self.repository
        for name in ("objects/info", "objects/pack", "refs/heads", "refs/remotes/origin", "info", "hooks"):
            (own / name).mkdir(parents=True)
        head = (self.git_dir / "HEAD").read_text()
        (own / "HEAD").write_text(head)
        ref = head.removeprefix("ref:").strip()
        remote = f"refs/remotes/origin/{repo.default_branch}"
        for name in (remote, *((ref,) if head.startswith("ref:") else ())):
            sha = _resolve(self.cache, name)
            if sha:
                (own / name).parent.mkdir(parents=True, exist_ok=True)
                (own / name).write_text(f"{sha}\n")
        (own / "objects" / "info" / "alternates").write_text(f"{self.cache / 'objects'}\n")
        exclude = self.cache / "info" / "exclude"
        (own / "info" / "exclude").write_text(exclude.read_text())
        index = self.git_dir / "index"
        if index.exists():
            (own / "index").write_bytes(index.read_bytes())
        (own / "config").write_text(_config(repo, who))
        (self.folder / MADE).touch()  # last: it says that the box is whole

    async def take(self, run: Callable[[process.Order], Awaitable[process.Ended]], bounds: Bounds) -> Taken:
        """Have the commits packed; `run` runs an order confined. Raises Fault when the repository cannot be read."""
        blocks = (bounds.change_bytes_max + PACK_OVERHEAD_BYTES) // 512
        ended = await run(
            process.Order(
                argv=("sh", "-c", _PACK, "sh", str(self.git_dir / "agentcom-out"), bounds.start_sha, str(blocks)),
                cwd=self.tree,
                environment={},
                timeout_s=bounds.timeout_s,
            )
        )
        out = self.repository / "agentcom-out"
        if not ended.succeeded:
            said = ended.output.text
            if "File size limit" in said or ended.exit_code in (128 + 25, 128 + 31):
                raise too_large(bounds.change_bytes_max)
            raise fault.Fault(
                "the repository as the task left it cannot be read", reason="WORKTREE_BROKEN", attribution="task",
                evidence=said,
            )  # fmt: skip
        return await asyncio.to_thread(_read, out)


def of(work_dir: Path, tree: Path) -> Box | None:
    """The box of a working tree that is a worktree of one of our caches; None for any other folder.

    The pointer in the tree is believed only where the worktree's own folder points back: a command that starts in an
    empty folder could write one there, and have another task's box opened to it.
    """
    try:
        git_dir = Path(_small(tree / ".git").removeprefix("gitdir:").strip())
        work_dir = work_dir.resolve()
        if not git_dir.is_relative_to(work_dir / "repos") or git_dir.parent.name != "worktrees":
            return None
        if ".." in git_dir.parts or Path(_small(git_dir / "gitdir").strip()) != tree.resolve() / ".git":
            return None
    except OSError:
        return None
    return Box(folder=work_dir / FOLDER / git_dir.parent.parent.stem / git_dir.name, tree=tree, git_dir=git_dir)


def too_large(bytes_max: int) -> fault.Fault:
    """The fault of a change that is too large as a whole."""
    return fault.Fault(f"the change is larger than {bytes_max} bytes", reason="CHANGE_TOO_LARGE", attribution="task")


def _read(out: Path) -> Taken:
    try:
        head, tree = (_small(out / "tips") + "\n\n").split("\n")[:2]
        unmerged = _small(out / "unmerged")
    except OSError as error:
        raise _broken() from error
    if any(sha and not _SHA.fullmatch(sha) for sha in (head, tree)):
        raise _broken()
    # "mode sha stage\tpath", three for each path; a list that was cut names fewer of them.
    paths = dict.fromkeys(entry.partition("\t")[2] for entry in unmerged.split("\0") if "\t" in entry)
    return Taken(head=head, index=tree, unmerged=tuple(paths), pack=out / "pack")


def _broken() -> fault.Fault:
    return fault.Fault(
        "what was packed from the task's repository cannot be read", reason="WORKTREE_BROKEN", attribution="task"
    )


def _small(path: Path) -> str:
    """The beginning of a plain file, never through a link. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no plain file")
        return file.read(SMALL_BYTES_MAX).decode(errors="replace")


def _resolve(cache: Path, ref: str) -> str:
    """Where a ref of the cache points; empty: nowhere. The cache is ours, and its refs are plain."""
    loose = cache / ref
    if loose.is_file():
        return loose.read_text().strip()
    packed = cache / "packed-refs"
    lines = packed.read_text(errors="replace").splitlines() if packed.is_file() else []
    return next((line[:40] for line in lines if line[41:] == ref), "")


def _config(repo: RepoAccess, who: tuple[str, str]) -> str:
    name, email, url = (_quoted(text) for text in (*who, repo.url))
    return (
        "[core]\n\trepositoryFormatVersion = 0\n\tfileMode = true\n\tlogAllRefUpdates = true\n"
        f"[user]\n\tname = {name}\n\temail = {email}\n"
        # The sidecar pushes, and nobody from in here: a mistake gets a plain answer.
        f'[remote "origin"]\n\turl = {url}\n\tpushUrl = "/dev/null"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n'
        "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[advice]\n\tdetachedHead = false\n"
    )


def _quoted(text: str) -> str:
    one_line = " ".join(text.split())
    return '"' + one_line.replace("\\", "\\\\").replace('"', '\\"') + '"'
