"""Keeps a reply below what the wire carries: a list ends early and says where it goes on, a long history is thinned.

What callers file is bounded one by one; a thousand of the largest in one page are not. A reply that is too large for
the wire would not be sent at all, and whoever may file large things could keep everybody from listing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from agentcom.v1 import task_pb2
from kit import wire

T = TypeVar("T")

BYTES_MAX: Final = wire.MESSAGE_BYTES_MAX // 2
"""A reply that has reached this is full. The largest single record (a task, some 500 KB) still fits behind it."""


def fill(
    into: Any, found: Sequence[T], write: Callable[[T, Any], None], *, key: Callable[[T], object], cursor: str
) -> str:
    """Write records into a repeated field until the reply is full; the cursor of the next page, empty at the end.

    `key` gives the cursor that goes on behind a record, `cursor` is where it goes on when all of them fit.
    """
    size = 0
    for number, record in enumerate(found, start=1):
        made = into.add()
        write(record, made)
        size += made.ByteSize()
        if size >= BYTES_MAX and number < len(found):
            return str(key(record))
    return cursor


def thin(task: task_pb2.Task) -> None:
    """Take from a task's attempts what is too much for one reply: outputs first, then proofs, then whole attempts,
    always the oldest first.
    """
    size = task.ByteSize()
    for take in (_outputs, _proofs):
        for attempt in task.attempts:
            if size < BYTES_MAX:
                return
            before = attempt.ByteSize()
            take(attempt)
            size += attempt.ByteSize() - before
    while task.attempts and task.ByteSize() >= BYTES_MAX:
        del task.attempts[: max(1, len(task.attempts) // 10)]


def _outputs(attempt: task_pb2.Attempt) -> None:
    for receipt in attempt.result.receipts:
        receipt.ClearField("output_tail")


def _proofs(attempt: task_pb2.Attempt) -> None:
    attempt.result.ClearField("receipts")
    attempt.failure.ClearField("evidence")
