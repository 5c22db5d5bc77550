"""Which tasks may touch the same paths, judged by their globs alone.

Whether two globs have a path in common is decided by what stands before their first wildcard: two globs are disjoint
when neither of these beginnings is a beginning of the other. That never misses an overlap (`src/*/a.py` and
`src/*/b.py` are taken to overlap although they do not: the price is that two tasks run one after the other), and it
costs a sort instead of a comparison of each glob with each, which a plan of 200 tasks with 64 globs could abuse.
A path without a wildcard stands for itself and everything below it, because it may be a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

_WILDCARD = re.compile(r"[*?\[\\{]")
_SLASHES = re.compile(r"/+")


def conflicts(touches: Sequence[Iterable[str]]) -> list[int]:
    """For each task a bit mask of the others that may touch a path that it touches; none for one without globs."""
    owners: dict[str, int] = {}
    for task, globs in enumerate(touches):
        for glob in globs:
            start = beginning(glob)
            owners[start] = owners.get(start, 0) | 1 << task
    found = [0] * len(touches)
    stack: list[tuple[str, int]] = []
    # In sorted order everything that begins with `start` follows it at once: the stack holds its beginnings.
    for start in sorted(owners):
        while stack and not start.startswith(stack[-1][0]):
            stack.pop()
        shared = owners[start] | (stack[-1][1] if stack else 0)
        stack.append((start, shared))
        for task in bits(owners[start]):
            found[task] |= shared
    for task, mask in enumerate(list(found)):
        for other in bits(mask):
            found[other] |= 1 << task
    return [mask & ~(1 << task) for task, mask in enumerate(found)]


def overlap(one: str, other: str) -> bool:
    """May the two globs have a path in common?"""
    return conflicts([[one], [other]])[0] != 0


def beginning(glob: str) -> str:
    """What every path of the glob begins with, when each path is written with a slash at its end."""
    path = _SLASHES.sub("/", glob.strip())
    while path.startswith(("./", "/")):
        path = path.partition("/")[2]
    if path == ".":
        return ""
    wildcard = _WILDCARD.search(path)
    if wildcard is not None:
        return path[: wildcard.start()]
    return f"{path.rstrip('/')}/" if path else ""


def bits(mask: int) -> Iterator[int]:
    """The positions of the bits that are set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
