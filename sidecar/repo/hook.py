"""The pre-push hook of a task's worktree: only the task's branch, never by force, never a deletion.

It is set for the worktree alone (config.worktree), where `core.hooksPath` in the shared configuration, as some package
managers write it, does not win. It guards against mistakes: whoever passes --no-verify is not held by a hook. What the
hub accepts is decided by generation and checks, not here.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from sidecar.core.assignment import Holding

_HOOK = """#!/bin/sh
# Written by the sidecar. Refuses every branch but the one of this task.
allowed={ref}
status=0
refuse() {{ echo "agentcom: push of $1 refused: $2" >&2; status=1; }}
while read -r local_ref local_sha remote_ref remote_sha; do
  case $local_sha in *[!0]*) ;; *) refuse "$remote_ref" "a branch is not deleted from here"; continue ;; esac
  if [ "$remote_ref" != "$allowed" ]; then
    refuse "$remote_ref" "only $allowed may be pushed from this worktree"
    continue
  fi
  case $remote_sha in
    *[!0]*) git merge-base --is-ancestor "$remote_sha" "$local_sha" 2>/dev/null ||
      refuse "$remote_ref" "it does not build on what is there, and nothing is pushed by force" ;;
  esac
done
exit $status
"""


def folder(work_dir: Path, holding: Holding) -> Path:
    """The hooks of one holding's worktree."""
    return work_dir / "hooks" / str(holding)


def write(work_dir: Path, holding: Holding, branch: str, git_dir: Path) -> None:
    """Write the hook and make the worktree use it; also restores one that was changed."""
    place = folder(work_dir, holding)
    place.mkdir(parents=True, exist_ok=True)
    path = place / "pre-push"
    path.unlink(missing_ok=True)
    path.write_text(_HOOK.format(ref=shlex.quote(f"refs/heads/{branch}")))
    path.chmod(0o755)
    quoted = str(place).replace("\\", "\\\\").replace('"', '\\"')
    config = git_dir / "config.worktree"
    config.unlink(missing_ok=True)
    config.write_text(f'[core]\n\thooksPath = "{quoted}"\n')


def is_set(work_dir: Path, holding: Holding, git_dir: Path) -> bool:
    """Would a push from the worktree meet the hook?"""
    place = folder(work_dir, holding)
    try:
        executable = (place / "pre-push").stat().st_mode & 0o100 != 0
        return executable and str(place) in (git_dir / "config.worktree").read_text()
    except OSError:
        return False


def remove(work_dir: Path, holding: Holding) -> None:
    """Remove the hook of a worktree that is gone."""
    shutil.rmtree(folder(work_dir, holding), ignore_errors=True)
