"""The version of this program, and which versions work together.

The rule. A node works with every other node of the same minor and of the minor next to it, in both directions: hub 0.2
with sidecars, command lines and dashboards of 0.1, 0.2 and 0.3. What is one minor apart works and is told, because
the next step would be one too far; what is further apart is refused, with a sentence that names both and says
which of them to upgrade. Patches never matter. A first number that differs is further apart than any minor.

Who does not say a version that can be read (grpcurl, a program built from a checkout of 0.1) is taken as it comes: a
version is no credential.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

from kit import errors

VERSION: Final = "0.2.0"
"""Of this tree. pyproject.toml reads it from here, so that it is the same however the program was put in place."""

METADATA_KEY: Final = "agentcom-version"
"""Metadata of every call of our own clients: `cli/0.2.0`, `dashboard/0.2.0`, `sidecar/0.2.0`."""

REASON: Final = "VERSION_SKEW"
"""Of the refusal, in its ErrorInfo."""

RETRY_S: Final = 30.0
"""A node that is refused asks again after this: whoever upgrades the other one need not touch it."""

MINORS_APART_MAX: Final = 1

_TEXT_MAX: Final = 64
_FORM: Final = re.compile(r"(0|[1-9]\d{0,4})\.(0|[1-9]\d{0,4})\.(0|[1-9]\d{0,4})(?![.\d])")


class Number(NamedTuple):
    """A version that can be compared."""

    major: int
    minor: int
    patch: int


class Skew(Enum):
    """How two versions stand to each other."""

    #: The same minor, or one of them is not known.
    NONE = "none"
    #: One minor apart: they work together, and one of them should be upgraded.
    NEAR = "near"
    #: Too far apart.
    FAR = "far"


class Node(NamedTuple):
    """Somebody with a version: `hub`, `sidecar`, `dashboard`, `cli`."""

    role: str
    version: str

    def __str__(self) -> str:
        return f"{NAMES.get(self.role, self.role)} {self.version}"


NAMES: Final = {"hub": "hub", "sidecar": "sidecar", "dashboard": "dashboard", "cli": "agentcom"}
"""What people call them in a sentence; others are not believed (`read`)."""


@functools.lru_cache(maxsize=256)
def parse(text: str) -> Number | None:
    """The number at the beginning of a version (`0.2.0`, `0.2.0rc1`, `0.2.0+local`); None when there is none.

    0.0.x is what a program says that does not know its own version.
    """
    found = _FORM.match(text[:_TEXT_MAX])
    if found is None:
        return None
    number = Number(*map(int, found.groups()))
    return number if number[:2] != (0, 0) else None


def skew(ours: str, theirs: str) -> Skew:
    """How far apart two versions are."""
    one, other = parse(ours), parse(theirs)
    if one is None or other is None or one[:2] == other[:2]:
        return Skew.NONE
    near = one.major == other.major and abs(one.minor - other.minor) <= MINORS_APART_MAX
    return Skew.NEAR if near else Skew.FAR


def older(one: Node, other: Node) -> Node:
    """The one of the two that should be upgraded. Both versions can be read."""
    first, second = parse(one.version), parse(other.version)
    assert first is not None and second is not None
    return one if first < second else other


def warning(hub: Node, peer: Node) -> str:
    """One sentence about two nodes that do not have the same minor; empty: there is nothing to say."""
    how = skew(hub.version, peer.version)
    if how is Skew.NONE:
        return ""
    if how is Skew.FAR:
        return refusal(hub, peer).message
    return f"{peer} is one minor apart from {hub}; upgrade the {_thing(older(hub, peer))} before the next minor"


def admit(hub: Node, peer: Node) -> None:
    """Raise IllegalState when two nodes are too far apart to work together."""
    if skew(hub.version, peer.version) is Skew.FAR:
        raise refusal(hub, peer)


def refusal(hub: Node, peer: Node) -> errors.IllegalState:
    """What a node is told that is too far away. Both versions can be read."""
    thing = _thing(older(hub, peer))
    problem = errors.IllegalState(
        f"{peer} does not work with {hub}: they are more than one minor apart; upgrade the {thing}",
        state=f"version {hub.version}",
        reason="VERSION_SKEW",
        metadata={"hub_version": hub.version, "peer": peer.role, "peer_version": peer.version},
    )
    problem.retry_delay_s = RETRY_S
    return problem


def unknown_method(hub: str, method: str, own: Node) -> str:
    """One sentence for somebody whose hub does not know a method. `hub` is its version; empty: it did not say."""
    name = Node("hub", hub) if hub else "hub"
    number, ours = parse(hub), parse(own.version)
    if number is not None and ours is not None and number > ours:
        return f"this {name} does not know {method} any more, which {own} asks for; upgrade the {_thing(own)}"
    return f"this {name} does not know {method}, which {own} asks for; upgrade the hub"


def metadata(role: str) -> tuple[tuple[str, str], ...]:
    """What one of our clients says with every call."""
    return ((METADATA_KEY, f"{role}/{VERSION}"),)


def told(pairs: Iterable[tuple[str, str | bytes]] | None) -> Node | None:
    """Who calls, by the metadata of the call; None when it does not say, or not in our words."""
    for key, value in pairs or ():
        if key == METADATA_KEY and isinstance(value, str):
            return _read(value[:_TEXT_MAX])
    return None


@functools.lru_cache(maxsize=256)
def _read(text: str) -> Node | None:
    role, mark, version = text.partition("/")
    if not mark or role not in NAMES or role == "hub" or parse(version) is None:
        return None
    # Only what was understood is said again: the rest of the text is the caller's.
    return Node(role, ".".join(map(str, parse(version) or ())))


def _thing(node: Node) -> str:
    return "command line" if node.role == "cli" else node.role
