"""Sequenced messages that survive a reconnect: the two halves of one direction of Attach.

The sender numbers messages 1, 2, 3... and holds each until it is acked; what is still held is sent again after a
resume. The receiver applies each number once: the next one is applied, an older one is a duplicate of something
applied before, a later one means that messages are missing and the session cannot go on. The receiver acks the
highest number it has *made durable*, which may trail the highest it has applied.

Both sides of the stream use both halves. Pure: no clock, no I/O.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from kit import errors

M = TypeVar("M")


class Verdict(enum.Enum):
    """What to do with a message that came in."""

    APPLY = "apply"
    DUPLICATE = "duplicate"


class Gap(errors.Conflict):
    """The other side's numbers do not fit ours: the session is over, a new one must be opened."""

    default_reason = "SESSION_GAP"


class Outbox(Generic[M]):
    """What was sent and is not acked yet, oldest first; at most `bound` messages."""

    def __init__(self, bound: int, *, sent: int = 0) -> None:
        assert bound > 0 and sent >= 0
        self._bound = bound
        self._last = sent
        self._held: deque[tuple[int, M]] = deque()

    @classmethod
    def restored(cls, bound: int, *, sent: int, held: Iterable[tuple[int, M]]) -> Outbox[M]:
        """An outbox as a journal remembers it: `sent` is the last number used, `held` what is not acked."""
        outbox: Outbox[M] = cls(bound, sent=sent)
        outbox._held.extend(sorted(held, key=lambda item: item[0]))
        return outbox

    def __len__(self) -> int:
        return len(self._held)

    @property
    def last(self) -> int:
        """The highest number given out so far; 0 before the first."""
        return self._last

    @property
    def acked(self) -> int:
        """The highest number the other side has acked."""
        return self._held[0][0] - 1 if self._held else self._last

    @property
    def full(self) -> bool:
        """Would the next `put` be refused?"""
        return len(self._held) >= self._bound

    def put(self, message: M) -> int:
        """Hold a message until it is acked and return its number. Raises Exhausted when the bound is reached."""
        if self.full:
            raise errors.Exhausted(
                f"{self._bound} messages wait for an ack, which is the bound",
                reason="OUTBOX_FULL",
                metadata={"bound": self._bound},
            )
        self._last += 1
        self._held.append((self._last, message))
        return self._last

    def ack(self, seq: int) -> list[M]:
        """Release everything up to `seq` and return it, oldest first; an old ack releases nothing.

        Raises Gap when `seq` was never sent: the other side speaks of another session.
        """
        if seq > self._last:
            raise Gap(f"ack {seq} is ahead of the last message sent, {self._last}", metadata={"sent": self._last})
        released = []
        while self._held and self._held[0][0] <= seq:
            released.append(self._held.popleft()[1])
        return released

    def pending(self) -> list[tuple[int, M]]:
        """What must be sent again after a resume, oldest first, under the numbers it had."""
        return list(self._held)


class Inbox:
    """Which numbers of the other side have been applied."""

    def __init__(self, applied: int = 0) -> None:
        assert applied >= 0
        self._applied = applied

    @property
    def applied(self) -> int:
        """The highest number applied: the ack to send once that is durable."""
        return self._applied

    def accept(self, seq: int) -> Verdict:
        """Judge a sequenced message (numbers from 1) and count it when it is to be applied. Raises Gap."""
        if seq < 1:
            raise Gap(f"sequence number {seq} is not a number of a sequenced message", metadata={"seq": seq})
        if seq <= self._applied:
            return Verdict.DUPLICATE
        if seq > self._applied + 1:
            raise Gap(
                f"message {seq} came after {self._applied}, something between is missing",
                metadata={"expected": self._applied + 1, "received": seq},
            )
        self._applied = seq
        return Verdict.APPLY
