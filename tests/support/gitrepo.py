"""Builders of real git repositories: a bare origin and somebody else's clone that moves it on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.core.assignment import RepoAccess

_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.invalid",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.invalid",
}
GIT_TIMEOUT_S = 30


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own git configuration out of a test."""
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def git(*arguments: str, cwd: Path, check: bool = True) -> str:
    """Run git; returns what it printed, without the last newline."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        env={**os.environ, **_ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GIT_TIMEOUT_S,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"git {' '.join(arguments)}: {done.stderr}")
    return done.stdout.rstrip("\n")


class Origin:
    """A bare repository with a `main`, and a clone that plays everybody else."""

    def __init__(self, root: Path, files: Mapping[str, str] | None = None) -> None:
        self.path = root / "origin.git"
        self.clone = root / "elsewhere"
        root.mkdir(parents=True, exist_ok=True)
        git("init", "--quiet", "--bare", "--initial-branch=main", str(self.path), cwd=root)
        git("init", "--quiet", "--initial-branch=main", str(self.clone), cwd=root)
        git("remote", "add", "origin", str(self.path), cwd=self.clone)
        self.commit({"README.md": "hello\n", **(files or {})}, message="first")

    @property
    def repo(self) -> RepoAccess:
        """As an assignment carries it."""
        return RepoAccess(name="repos/demo", url=str(self.path), default_branch="main")

    def commit(self, files: Mapping[str, str | None], *, message: str = "change", branch: str = "main") -> str:
        """Commit and push files (None deletes); returns the commit. A new branch starts where the clone stands."""
        if git("branch", "--list", branch, cwd=self.clone):
            git("checkout", "--quiet", branch, cwd=self.clone)
        elif git("rev-parse", "--verify", "--quiet", "HEAD", cwd=self.clone, check=False):
            git("checkout", "--quiet", "-b", branch, cwd=self.clone)
        if git("ls-remote", "origin", f"refs/heads/{branch}", cwd=self.clone):
            git("pull", "--quiet", "--ff-only", "origin", branch, cwd=self.clone)
        for name, content in files.items():
            path = self.clone / name
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
        git("add", "--all", cwd=self.clone)
        git("commit", "--quiet", "--allow-empty", "-m", message, cwd=self.clone)
        git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}", cwd=self.clone)
        return git("rev-parse", "HEAD", cwd=self.clone)

    def sha(self, revision: str = "main") -> str:
        """A commit in the origin; empty when there is none."""
        return git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", cwd=self.path, check=False)

    def read(self, path: str, revision: str = "main") -> str:
        """A file in the origin."""
        return git("show", f"{revision}:{path}", cwd=self.path)

    def files(self, revision: str = "main") -> list[str]:
        """Every path of a commit."""
        return git("ls-tree", "-r", "--name-only", revision, cwd=self.path).splitlines()

    def refs(self, prefix: str = "refs/") -> dict[str, str]:
        """Refs of the origin with their commits."""
        lines = git("for-each-ref", "--format=%(refname) %(objectname)", prefix, cwd=self.path).splitlines()
        return {name: sha for name, _, sha in (line.partition(" ") for line in lines)}

    def refuse_pushes(self, why: str) -> None:
        """Refuse every push from now on, as a policy of the remote would."""
        hook = self.path / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\necho {why}; exit 1\n")
        hook.chmod(0o755)

    def message(self, revision: str) -> str:
        """A commit's message."""
        return git("log", "-1", "--format=%B", revision, cwd=self.path)
