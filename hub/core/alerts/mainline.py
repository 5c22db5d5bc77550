"""Whether the default branch of a repo fails its own checks, as far as the work on it has shown.

The hub runs no git and no check. What it knows of a default branch it knows from the tasks that ran on it:

- a WORK attempt found red, on the base that it had just fetched, a check that must hold there (BASE_RED). It counts
  when that is a check of the repo, or the repo has none of its own: else the plan may simply be wrong about the base;
- a VERIFY task found a check of the repo red on the merged default branch;
- several changes in a row, of different tasks, came back from their merge because of a check: each was checked on top
  of the default branch, and that all of them are at fault is less likely than that it is.

It is well again when a change has been merged (all checks of the repo hold on the merged tree, or it is not pushed),
when the red check was seen to hold on it, when the repo is edited, and when nobody has seen it red for a day.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

RETURNS_MIN: Final = 3
"""Changes in a row: two bad ones happen by chance on a good day."""

EVIDENCE_S: Final = 86_400.0
"""How long what was seen counts: somebody has mended it by hand, or nobody works on that repo."""

REPOS_MAX: Final = 1_000
"""Repos of which something is known; beyond it the one that was red for longest is forgotten."""


class Evidence(NamedTuple):
    """That a default branch is red."""

    at: float
    why: str
    """A sentence; empty: it was found before the hub started."""
    commands: frozenset[str]
    """Hashes of the commands that failed; empty: it is not known which."""


class Mainline:
    """What the work has shown of all default branches."""

    def __init__(self) -> None:
        self._red: dict[str, Evidence] = {}
        #: Tasks whose changes came back in a row because of a check, by repo.
        self._returned: dict[str, list[str]] = {}

    def failed(self, repo: str, at: float, why: str, commands: Iterable[str] = ()) -> None:
        """It was seen red."""
        before = self._red.pop(repo, None)
        known = before.commands if before is not None else frozenset[str]()
        self._red[repo] = Evidence(at, why, known | frozenset(commands))
        if len(self._red) > REPOS_MAX:
            del self._red[min(self._red, key=lambda one: self._red[one].at)]

    def held(self, repo: str, commands: Iterable[str]) -> None:
        """These commands were seen to hold on it: it is well when nothing else is known to be red."""
        evidence = self._red.get(repo)
        if evidence is None or not evidence.commands:
            return
        left = evidence.commands - frozenset(commands)
        if left:
            self._red[repo] = evidence._replace(commands=left)
        else:
            del self._red[repo]

    def returned(self, repo: str, task: str, at: float, check: str) -> None:
        """A change of this task was refused by a check, on top of the default branch."""
        row = self._returned.setdefault(repo, [])
        if task not in row:
            row.append(task)
            del row[:-RETURNS_MIN]
        if len(row) >= RETURNS_MIN and repo not in self._red:
            named = ", ".join(f"tasks/{one}" for one in row)
            why = f"the last {RETURNS_MIN} changes came back red from their merge ({named}; last: {check})"
            self.failed(repo, at, why)

    def well(self, repo: str) -> None:
        """A change was merged, or the repo was edited or forgotten: what was known is of another time."""
        self._red.pop(repo, None)
        self._returned.pop(repo, None)

    def red(self, now: float) -> list[tuple[str, str]]:
        """Repos whose default branch is red, and why."""
        for repo in [one for one, evidence in self._red.items() if now - evidence.at >= EVIDENCE_S]:
            del self._red[repo]
        return [(repo, evidence.why) for repo, evidence in self._red.items()]

    def __contains__(self, repo: object) -> bool:
        return repo in self._red

    def __bool__(self) -> bool:
        """Is any default branch known to be red?"""
        return bool(self._red)
