"""What is kept of a child's output: its beginning and its end, a hash of all of it, and whole characters for watchers.

A child may print without end; what is kept is bounded and what is dropped is counted. The hash covers every byte, so a
receipt speaks for output that nobody stored.
"""

from __future__ import annotations

import codecs
import hashlib
from collections import deque


class Capture:
    """Takes bytes as they come; gives text."""

    def __init__(self, *, head_bytes_max: int, tail_bytes_max: int) -> None:
        self._head = bytearray()
        self._head_bytes_max = head_bytes_max
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._tail_bytes_max = tail_bytes_max
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._hash = hashlib.sha256()
        #: All bytes that came.
        self.size_bytes = 0

    def feed(self, data: bytes) -> str:
        """Take the next bytes; returns them as text, holding back a character that is not whole yet."""
        self.size_bytes += len(data)
        self._hash.update(data)
        self._keep(data)
        return self._decoder.decode(data)

    def finish(self) -> str:
        """No more comes: returns what was held back."""
        return self._decoder.decode(b"", final=True)

    @property
    def dropped_bytes(self) -> int:
        """How much is not kept, from the middle."""
        return self.size_bytes - len(self._head) - self._tail_size

    @property
    def sha256(self) -> str:
        """Of everything that came, in hex."""
        return self._hash.hexdigest()

    @property
    def content(self) -> bytes:
        """The head and the tail, as they came; with a line between them where something was dropped."""
        between = f"\n[... {self.dropped_bytes} bytes left out ...]\n".encode() if self.dropped_bytes else b""
        return bytes(self._head) + between + b"".join(self._tail)

    @property
    def text(self) -> str:
        """What is kept, as text."""
        return self.content.decode(errors="replace")

    def _keep(self, data: bytes) -> None:
        room = self._head_bytes_max - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data or not self._tail_bytes_max:
            return
        self._tail.append(data[-self._tail_bytes_max :])
        self._tail_size += len(self._tail[-1])
        while self._tail_size > self._tail_bytes_max:
            excess = self._tail_size - self._tail_bytes_max
            first = self._tail.popleft()
            self._tail_size -= len(first)
            if len(first) > excess:
                self._tail.appendleft(first[excess:])
                self._tail_size += len(first) - excess
