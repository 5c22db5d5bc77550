"""What a working tree holds that our own git must not meet: repositories inside it, pipes, files without end.

git runs commands *in* a repository that it meets below the one it works in (a submodule), under that one's
configuration: filters, monitors. A task can write such a one in its tree. So each `.git` below the root gets another
name for as long as our commands stage the tree, and its own name back afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sidecar.core import fault

ASIDE = ".agentcom-aside-git"
# Files and folders of one tree that are looked through; more is no repository that anybody works in.
ENTRY_COUNT_MAX = 2_000_000
# Files that git reads into memory as a whole, wherever in the tree they are.
_READ_WHOLE = frozenset({".gitattributes", ".gitignore", ".gitmodules", ".mailmap"})
READ_WHOLE_BYTES_MAX = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Nested:
    """The folders, relative to the root, that are repositories of their own."""

    root: Path
    folders: tuple[Path, ...]


def put_aside(root: Path) -> Nested:
    """Give every repository below `root` another name. Blocks. Raises Fault, and then nothing is moved."""
    moved: list[Path] = []
    try:
        for folder in _find(root):
            try:
                os.rename(folder / ".git", folder / ASIDE)
            except OSError as error:
                raise fault.Fault(
                    f"the repository in {folder.relative_to(root)} cannot be put aside: {error.strerror}",
                    reason="EMBEDDED_REPOSITORY",
                    attribution="task",
                ) from error
            moved.append(folder.relative_to(root))
    except BaseException:
        put_back(Nested(root, tuple(moved)))
        raise
    return Nested(root, tuple(moved))


def put_back(nested: Nested) -> None:
    """Give them their names back. Blocks."""
    for folder in nested.folders:
        with contextlib.suppress(OSError):
            os.rename(nested.root / folder / ASIDE, nested.root / folder / ".git")


def clear(root: Path) -> None:
    """Remove what git would wait for, and refuse what would fill its memory. Blocks. Raises Fault.

    A pipe named `.gitattributes` is opened by every git command, and nobody ever writes to it. What is no file, folder
    or link cannot be part of a change.
    """
    for folder, entries in _walk(root):
        for entry in entries:
            path = folder / entry.name
            if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False) or entry.is_symlink()):
                with contextlib.suppress(OSError):
                    path.unlink()
            elif entry.name in _READ_WHOLE and entry.stat(follow_symlinks=False).st_size > READ_WHOLE_BYTES_MAX:
                raise fault.Fault(
                    f"{path.relative_to(root)} is larger than {READ_WHOLE_BYTES_MAX} bytes",
                    reason="FILE_TOO_LARGE",
                    attribution="task",
                )


def _find(root: Path) -> Iterator[Path]:
    """Folders with a `.git` in them, but not the root."""
    for folder, entries in _walk(root):
        if folder != root and any(entry.name == ".git" for entry in entries):
            yield folder


def _walk(root: Path) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Each folder with what is in it. Links are not followed, and what is too deep for a path is left out."""
    waiting, seen = [root], 0
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as opened:
                entries = list(itertools.islice(opened, ENTRY_COUNT_MAX))
                below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # too deep, or not to be read: git does not get there either
        seen += len(entries)
        if seen > ENTRY_COUNT_MAX:
            raise fault.Fault(
                f"the tree holds more than {ENTRY_COUNT_MAX} files", reason="TREE_TOO_LARGE", attribution="task"
            )
        waiting += map(Path, below)
        yield folder, entries
