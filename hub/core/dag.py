"""The order of a plan: sorts steps so that each comes after those it waits for, or names the circle that forbids it.

Steps are numbers (positions in the plan), edges are given as the numbers that a step waits for. Iterative, so that the
depth of a plan is bounded by the plan's own rule and not by the interpreter's stack.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

Edges = Sequence[Sequence[int]]
"""For each step the steps that it waits for."""


def order(waits_for: Edges) -> list[int]:
    """All steps, each after those that it waits for, otherwise by position.

    Shorter than the input when there is a circle: what is left out is in one or behind one.
    """
    open_count = [len(set(before)) for before in waits_for]
    behind: list[list[int]] = [[] for _ in waits_for]
    for step, before in enumerate(waits_for):
        for other in set(before):
            behind[other].append(step)
    ready = [step for step, count in enumerate(open_count) if count == 0]
    done: list[int] = []
    while ready:
        step = heapq.heappop(ready)
        done.append(step)
        for other in behind[step]:
            open_count[other] -= 1
            if open_count[other] == 0:
                heapq.heappush(ready, other)
    return done


def circle(waits_for: Edges) -> list[int]:
    """One circle, each step followed by one that it waits for, beginning with its smallest; empty: there is none."""
    left = set(range(len(waits_for))) - set(order(waits_for))
    if not left:
        return []
    path: list[int] = []
    seen: dict[int, int] = {}
    step = min(left)
    while step not in seen:
        seen[step] = len(path)
        path.append(step)
        # Whatever is left waits for something that is left, or it would have been ordered.
        step = next(other for other in waits_for[step] if other in left)
    found = path[seen[step] :]
    start = found.index(min(found))
    return found[start:] + found[:start]


def depth(waits_for: Edges) -> int:
    """Number of steps in the longest chain, of the part without circles."""
    longest = [0] * len(waits_for)
    for step in order(waits_for):
        longest[step] = 1 + max((longest[other] for other in waits_for[step]), default=0)
    return max(longest, default=0)
