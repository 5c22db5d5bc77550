"""Bounds on what a change may weigh, looked at before it is stored and again in what is committed."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from sidecar.core import fault
from sidecar.repo import box, git
from sidecar.settings import RunnerSettings

# Lists of paths or objects: a hundred thousand of them; more is a change that nobody could look at.
LIST_BYTES_MAX = 16 * 1024 * 1024
# Named in one failure.
NAMED_COUNT_MAX = 5
# Too large and left out of unfinished work by name; a task that makes more of them makes them without end.
HEAVY_COUNT_MAX = 100


async def heavy_files(git_: git.Git, tree: Path, settings: RunnerSettings) -> tuple[str, ...]:
    """Files that are about to be staged and too large for it. Raises Fault when it is too much as a whole."""
    said = await git_.run(
        "ls-files", "-z", "--modified", "--others", "--exclude-standard", "--deduplicate",
        cwd=tree, stdout_bytes_max=LIST_BYTES_MAX,
    )  # fmt: skip
    names = [name for name in said.content.split(b"\0") if name]
    if said.size_bytes > len(said.content) or len(names) > settings.change_file_count_max:
        raise fault.Fault(
            f"the change has more than {settings.change_file_count_max} files: is a build folder not ignored?",
            reason="CHANGE_TOO_LARGE",
            attribution="task",
        )
    sizes = await asyncio.to_thread(_sizes, tree, names)
    light = [size for _, size in sizes if size <= settings.file_bytes_max]
    if sum(light) > settings.change_bytes_max:
        raise box.too_large(settings.change_bytes_max)
    heavy = tuple(os.fsdecode(name) for name, size in sizes if size > settings.file_bytes_max)
    if len(heavy) > HEAVY_COUNT_MAX:
        raise box.too_large(settings.change_bytes_max)
    return heavy


def file_too_large(bytes_max: int, names: tuple[str, ...]) -> fault.Fault:
    """The fault of files that are too large."""
    named = ", ".join(name.encode(errors="replace").decode() for name in names[:NAMED_COUNT_MAX])
    return _file_too_large(f"larger than {bytes_max} bytes: {named}")


async def check_commits(git_: git.Git, tree: Path, *, span: str, bytes_max: int) -> None:
    """See that no commit of `span` brings a file that is too large, not even one that a later one removes."""
    said = await git_.run(
        "rev-list", "--objects", "--no-object-names", f"--filter=blob:limit={bytes_max + 1}", "--filter-print-omitted",
        span, cwd=tree, stdout_bytes_max=LIST_BYTES_MAX,
    )  # fmt: skip
    if said.size_bytes > len(said.content):
        raise fault.Fault("the change has too many commits and files", reason="CHANGE_TOO_LARGE", attribution="task")
    omitted = [line for line in said.stdout.splitlines() if line.startswith("~")]
    if omitted:
        raise _file_too_large(f"a commit holds a file larger than {bytes_max} bytes: object {omitted[0][1:13]}")


def _sizes(tree: Path, names: list[bytes]) -> list[tuple[bytes, int]]:
    """Sizes of the plain files among these; a link weighs nothing, wherever it points."""
    found = []
    for name in names:
        try:
            status = os.lstat(os.path.join(os.fsencode(tree), name))
        except OSError:
            continue  # deleted
        if stat.S_ISREG(status.st_mode):
            found.append((name, status.st_size))
    return found


def _file_too_large(message: str) -> fault.Fault:
    return fault.Fault(message, reason="FILE_TOO_LARGE", attribution="task")
