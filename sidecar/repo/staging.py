"""Staging what a task left in its tree: within the bounds, and with no git at work in any repository below."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sidecar.core import fault
from sidecar.repo import git, nested, oversize
from sidecar.settings import RunnerSettings


async def stage(git_: git.Git, tree: Path, settings: RunnerSettings, *, lenient: bool) -> None:
    """Stage everything that is changed or new. Raises Fault.

    Lenient: files that are too large are left out, and repositories are kept as plain files.
    """
    found = await asyncio.to_thread(nested.put_aside, tree)
    try:
        heavy = await oversize.heavy_files(git_, tree, settings)
        if heavy and not lenient:
            raise oversize.file_too_large(settings.file_bytes_max, heavy)
        folders = {str(folder) for folder in found.folders}
        # A submodule that the repository declares stays as it is recorded, whatever the task has put there.
        declared = folders & await _links(git_, tree) if folders else set[str]()
        skipped = [f":(exclude,top,literal){path}" for path in (*heavy, *sorted(declared))]
        await _add(git_, tree, *(("--", ":/", *skipped) if skipped else ()))
        embedded = sorted((folders - declared) & await _staged_folders(git_, tree)) if folders - declared else []
        if embedded and not lenient:
            raise fault.Fault(
                f"there is a repository inside the tree, which a change cannot hold: {embedded[0]}",
                reason="EMBEDDED_REPOSITORY",
                attribution="task",
            )
    finally:
        await asyncio.to_thread(nested.put_back, found)


async def _add(git_: git.Git, tree: Path, *paths: str) -> None:
    try:
        await git_.run("add", "--all", *paths, cwd=tree, action="stage the changes")
    except fault.Fault as error:
        if error.reason != "GIT_FAILED":
            raise
        # What git cannot stage is what the task left: a file without rights, an encoding that is a lie.
        raise fault.Fault(error.message, reason="TREE_UNSAFE", attribution="task", evidence=error.evidence) from error


async def _links(git_: git.Git, tree: Path) -> set[str]:
    """Submodules that the repository declares: their paths in the index."""
    said = await git_.run("ls-files", "-z", "--stage", cwd=tree, stdout_bytes_max=oversize.LIST_BYTES_MAX)
    entries = (entry.partition(b"\t") for entry in said.content.split(b"\0"))
    return {os.fsdecode(path) for told, _, path in entries if told.startswith(b"160000 ")}


async def _staged_folders(git_: git.Git, tree: Path) -> set[str]:
    """Every folder that holds something staged."""
    said = await git_.run(
        "diff", "--cached", "--name-only", "--no-renames", "-z", cwd=tree, stdout_bytes_max=oversize.LIST_BYTES_MAX
    )
    paths = (Path(os.fsdecode(path)) for path in said.content.split(b"\0") if path)
    return {str(parent) for path in paths for parent in path.parents}
