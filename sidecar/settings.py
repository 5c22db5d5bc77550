"""What the runner may be told; every bound has its reason beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sidecar.child.sandbox import SandboxSettings

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """The runner's part of the sidecar's configuration."""

    #: Holds repository caches, working trees and scratch folders. One sidecar per folder.
    work_dir: Path
    #: In the order in which they are asked whether they serve a tier.
    executors: tuple[str, ...] = ("shell",)
    #: Names of environment variables that children get besides the built-in list (environment.py).
    pass_environment: tuple[str, ...] = ()
    #: From TERM to KILL: long enough to flush a file, short enough that a stop is felt at once.
    kill_grace_s: float = 5.0
    #: Local git commands: minutes only on huge trees.
    git_timeout_s: float = 120.0
    #: Fetch and push over slow lines.
    git_network_timeout_s: float = 600.0
    #: Saving unfinished work when stopped; the process may be waiting to end.
    wip_timeout_s: float = 60.0
    #: Waiting for another process that uses the same cache.
    lock_timeout_s: float = 600.0
    #: Below this no work is begun: a full disk breaks every other thing on the machine too.
    disk_free_bytes_min: int = 512 * MIB
    #: Rounds in which an executor may repair a red check.
    repair_round_count_max: int = 2
    #: Tries of one merge when main moves under it; each one re-runs the checks.
    merge_try_count_max: int = 5
    #: Fetches until the fetched main and the remote's agree.
    fetch_try_count_max: int = 3
    #: How often the working tree is looked at for progress while an executor runs.
    progress_every_s: float = 15.0
    #: Whether and how commands are confined.
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    #: A larger file is not committed: most forges refuse it, and every clone pays for it for ever.
    file_bytes_max: int = 100 * MIB
    #: All files of a change together, and what its commits may weigh.
    change_bytes_max: int = 512 * MIB
    #: Files of one change: more is a build folder that was not ignored.
    change_file_count_max: int = 20_000
