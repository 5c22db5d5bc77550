"""What a command ends with: the one table from a problem to an exit code, and how a problem is told.

| code | meaning |
| --- | --- |
| 0 | done; for a goal or task that is waited for: it succeeded |
| 1 | refused for another reason, or the goal or task that was waited for did not succeed |
| 2 | wrong usage, or an argument or file that the hub calls invalid (each field is named) |
| 3 | nothing has that name |
| 4 | the thing is in a state that refuses it, has changed meanwhile, or exists already |
| 5 | the hub cannot be reached, is busy or draining, or did not answer in time; trying again later is right |
| 6 | no token, a void one, or one that may not do this |
| 130 | ended with Ctrl-C |
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import TextIO

from cli import words
from kit import errors


class Code(IntEnum):
    """The exit codes."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    FORBIDDEN = 6
    INTERRUPTED = 130


CODES: dict[type[errors.Problem], Code] = {
    errors.Invalid: Code.USAGE,
    errors.NotFound: Code.NOT_FOUND,
    errors.AlreadyExists: Code.CONFLICT,
    errors.IllegalState: Code.CONFLICT,
    errors.Conflict: Code.CONFLICT,
    errors.Exhausted: Code.UNAVAILABLE,
    errors.Unavailable: Code.UNAVAILABLE,
    errors.Unauthenticated: Code.FORBIDDEN,
    errors.Forbidden: Code.FORBIDDEN,
}


def code_of(problem: errors.Problem) -> Code:
    """The exit code of a problem."""
    return next((CODES[kind] for kind in type(problem).__mro__ if kind in CODES), Code.REFUSED)


def tell(problem: errors.Problem, stream: TextIO | None = None) -> None:
    """Say what went wrong in a line for each field; control characters in it cannot move the cursor."""
    out = stream or sys.stderr
    violations = problem.violations if isinstance(problem, errors.Invalid) else ()
    for violation in violations:
        print(words.plain(f"error: {violation.field or 'request'}: {violation.description}"), file=out)
    if not violations:
        print(words.plain(f"error: {problem.message}"), file=out)
    if problem.retry_delay_s is not None:
        print(f"hint: try again in {problem.retry_delay_s:.1f} s", file=out)
    elif isinstance(problem, errors.Unauthenticated):
        print("hint: give a token with --token-file or AGENTCOM_TOKEN_FILE", file=out)
