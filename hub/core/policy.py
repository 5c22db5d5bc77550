"""What the commands of a task may reach on the machine that runs them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

import msgspec


class Isolation(IntEnum):
    """Whether a task's commands run in a sandbox; the numbers are those of the proto."""

    PREFERRED = 1
    REQUIRED = 2


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the commands of a task may reach."""

    isolation: Isolation = Isolation.PREFERRED
    network: bool = False
    """They may use the machine's network from inside the sandbox."""


def strictest(policies: Iterable[Policy]) -> Policy:
    """For what runs the code of several tasks: a sandbox where one demanded it, the network only where all had it."""
    found = tuple(policies)
    return Policy(
        isolation=max((one.isolation for one in found), default=Isolation.PREFERRED),
        network=bool(found) and all(one.network for one in found),
    )
