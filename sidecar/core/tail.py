"""The live log of what somebody watches: bounded buffers that drop the oldest and count what they dropped.

Pure. Output of a holding that nobody watches is not kept at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from sidecar.core.assignment import Holding

#: Waiting output of one holding. A reader that is slower than this many bytes loses the oldest, never the newest.
BUFFER_BYTES_MAX = 256 * 1024
#: One chunk on the wire: small enough that a report behind it waits for a moment only.
CHUNK_BYTES_MAX = 32 * 1024


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece for the hub."""

    holding: Holding
    text: str
    #: Left out before this piece.
    dropped_bytes: int
    end: bool


@dataclass(slots=True)
class _Buffer:
    pieces: deque[bytes] = field(default_factory=deque)
    size: int = 0
    dropped_bytes: int = 0
    ended: bool = False


class Tail:
    """The buffers of all watched holdings."""

    def __init__(self, buffer_bytes_max: int = BUFFER_BYTES_MAX, chunk_bytes_max: int = CHUNK_BYTES_MAX) -> None:
        assert chunk_bytes_max >= 4, "one character may take four bytes"
        self._buffer_bytes_max = buffer_bytes_max
        self._chunk_bytes_max = chunk_bytes_max
        self._buffers: dict[Holding, _Buffer] = {}

    def watch(self, holdings: Iterable[Holding]) -> None:
        """Exactly these are watched from now on; the buffers of others are thrown away."""
        wanted = set(holdings)
        self._buffers = {h: self._buffers.get(h) or _Buffer() for h in wanted}

    def write(self, holding: Holding, text: str) -> bool:
        """Keep a piece of output if the holding is watched; True when there is something to send now."""
        buffer = self._buffers.get(holding)
        if buffer is None or buffer.ended or not text:
            return False
        for piece in _pieces(text.encode("utf-8", "replace"), self._chunk_bytes_max):
            buffer.pieces.append(piece)
            buffer.size += len(piece)
        while buffer.size > self._buffer_bytes_max:
            size = len(buffer.pieces.popleft())
            buffer.size -= size
            buffer.dropped_bytes += size
        return True

    def end(self, holding: Holding) -> bool:
        """The attempt has ended; True when there is somebody to be told."""
        buffer = self._buffers.get(holding)
        if buffer is None or buffer.ended:
            return False
        buffer.ended = True
        return True

    def take(self) -> Chunk | None:
        """The next chunk to send; None when there is none. The holdings take turns."""
        for holding, buffer in self._buffers.items():
            if not buffer.pieces and not buffer.ended:
                continue
            taken: list[bytes] = []
            size = 0
            while buffer.pieces and size + len(buffer.pieces[0]) <= self._chunk_bytes_max:
                taken.append(buffer.pieces.popleft())
                size += len(taken[-1])
            buffer.size -= size
            dropped, buffer.dropped_bytes = buffer.dropped_bytes, 0
            del self._buffers[holding]
            end = buffer.ended and not buffer.pieces
            if not end:
                self._buffers[holding] = buffer  # to the end of the row
            return Chunk(holding, b"".join(taken).decode(), dropped, end)
        return None


def _pieces(data: bytes, size_max: int) -> Iterable[bytes]:
    """Cut between characters."""
    start = 0
    while start < len(data):
        end = min(start + size_max, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[start:end]
        start = end
