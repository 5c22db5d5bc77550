"""What a hub may answer to anything at all, and what it may not."""

from __future__ import annotations

from collections import Counter
from typing import Final

import grpc

from kit import errors, status

Code = grpc.StatusCode

NEVER: Final = frozenset(
    {
        Code.INTERNAL,  # a fault of ours
        Code.UNKNOWN,  # one that we did not even notice
        Code.UNIMPLEMENTED,  # the contract offers it
        Code.DEADLINE_EXCEEDED,  # it hangs
        Code.CANCELLED,
        Code.DATA_LOSS,  # what is stored does not check
        Code.UNAVAILABLE,  # nobody stops this hub
    }
)

CUT: Final = "Internal error from Core"
"""What the client's own library says when the other side has ended a stream that it was writing to. A crash of a hub's
handler has an incident; `World.ailment` hears of those that this hides."""


class Tally:
    """How often each answer was given, so that a run can show that it reached the handlers."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, error: grpc.RpcError | None) -> None:
        """Count an answer."""
        self.counts["OK" if error is None else status.from_rpc_error(error).reason] += 1

    def __str__(self) -> str:
        return ", ".join(f"{reason} {count}" for reason, count in self.counts.most_common())


def fault(error: grpc.RpcError | None) -> str:
    """What is wrong with an answer; empty: nothing."""
    if error is None:
        return ""
    code, text = error.code(), error.details()
    if code is Code.INTERNAL and text == CUT:
        return ""
    if code in NEVER:
        return f"{code.name}: {text}"
    problem = status.from_rpc_error(error)
    if problem.reason == code.name and code is not Code.RESOURCE_EXHAUSTED:
        # grpc itself says RESOURCE_EXHAUSTED to what is over a limit of the wire, in its own words.
        return f"{code.name} without a reason: {text}"
    if isinstance(problem, errors.Invalid) and problem.reason != "GARBLED":
        unnamed = [one for one in problem.violations if not one.field]
        if not problem.violations or unnamed:
            return f"{code.name} {problem.reason} does not name its fields: {text}"
    return ""
