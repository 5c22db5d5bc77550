"""The demo's repository: a bare origin made from plain files, and clones of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

GIT_S = 60.0
# The person who runs the demo may have no git identity, and their settings (signing, hooks) must not matter.
ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Demo",
    "GIT_AUTHOR_EMAIL": "demo@localhost",
    "GIT_COMMITTER_NAME": "Demo",
    "GIT_COMMITTER_EMAIL": "demo@localhost",
}


def create(folder: Path, files: Path) -> Path:
    """A bare repository with one commit on main that holds `files`."""
    seed, bare = folder / "seed", folder / "origin.git"
    shutil.copytree(files, seed, ignore=shutil.ignore_patterns("__pycache__"))
    git(seed, "init", "--quiet", "--initial-branch", "main")
    git(seed, "add", "--all")
    git(seed, "commit", "--quiet", "--message", "Begin the tally")
    git(folder, "clone", "--quiet", "--bare", str(seed), str(bare))
    shutil.rmtree(seed)
    return bare


def clone(url: Path, folder: Path) -> Path:
    """A fresh clone."""
    git(url.parent, "clone", "--quiet", str(url), str(folder))
    return folder


def head(folder: Path) -> str:
    """The commit that is checked out."""
    return git(folder, "rev-parse", "HEAD").strip()


def git(folder: Path, *words: str) -> str:
    """Run git; raises CalledProcessError with what it said."""
    run = subprocess.run(
        ["git", *words],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=GIT_S,
        check=False,
    )
    if run.returncode:
        raise subprocess.SubprocessError(f"git {' '.join(words)}: {run.stderr.strip()}")
    return run.stdout
