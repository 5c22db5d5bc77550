"""The repo: a git repository that the fleet works on."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from hub.core.task import Check


class MergeStyle(IntEnum):
    """How a checked change is brought in; the numbers are those of the proto."""

    MERGE_COMMIT = 1
    FAST_FORWARD = 2


class Repo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A git repository that the fleet works on."""

    id: str
    url: str
    display_name: str = ""
    default_branch: str = "main"
    checks: tuple[Check, ...] = ()
    merge_style: MergeStyle = MergeStyle.MERGE_COMMIT
    paused: bool = False
    created_at: float = 0.0
    updated_at: float = 0.0
    revision: int = 1
