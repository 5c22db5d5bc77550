"""Live output of running attempts, passed on while somebody watches and kept nowhere.

The first watcher of a task makes its agent send output (`Desired.tail`), the last one that goes makes it stop. Each
watcher has a buffer of its own with a bound in bytes; a slow one loses the oldest output and is told how much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple

from hub.core import attach
from hub.core import task as core
from hub.core.holding import Holding
from hub.engine.live.context import Context
from hub.engine.live.fleet import Moves
from hub.engine.live.sessions import Sessions
from hub.engine.script import queue
from kit import errors

BUFFER_BYTES_MAX: Final = 256 * 1024
"""Output kept for one watcher: four of the largest pieces that a sidecar sends."""

WATCHERS_MAX: Final = 64
"""Watchers of one task: each of its pieces is copied to all of them."""


class Piece(NamedTuple):
    """A piece of output."""

    generation: int
    text: str = ""
    dropped_bytes: int = 0
    """Left out before this piece."""
    end: bool = False


class _Watcher:
    """The buffer of one reader."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self._bytes = 0
        self._dropped = 0
        self._closed = False
        self._wake = asyncio.Event()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def put(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._bytes += len(piece.text.encode())
        while self._bytes > BUFFER_BYTES_MAX and len(self._pieces) > 1:
            oldest = self._pieces.popleft()
            size = len(oldest.text.encode())
            self._bytes -= size
            self._dropped += size + oldest.dropped_bytes
        self._wake.set()

    async def get(self) -> Piece:
        while not self._pieces:
            if self._closed:
                raise errors.Unavailable("the hub goes away", reason="SHUTDOWN", retry_delay_s=1.0)
            self._wake.clear()
            await self._wake.wait()
        piece = self._pieces.popleft()
        self._bytes -= len(piece.text.encode())
        dropped, self._dropped = self._dropped, 0
        return piece._replace(dropped_bytes=piece.dropped_bytes + dropped)


class Tails:
    """Everybody who watches output."""

    def __init__(self, ctx: Context, sessions: Sessions) -> None:
        self._ctx = ctx
        self._sessions = sessions
        self._watchers: dict[str, set[_Watcher]] = {}
        sessions.fleet.follow(self._moved)

    async def follow(self, task_id: str) -> AsyncGenerator[Piece, None]:
        """The output of a task from now until its attempt ends; a task that waits is waited for.

        Raises NotFound, IllegalState for a task that has ended, Exhausted when too many watch it.
        """
        task = self._ctx.store.read(lambda reader: queue.found(reader, task_id))
        if task.state in core.FINAL or task.state is core.State.MERGING:
            raise errors.IllegalState(
                f"task tasks/{task_id} is {task.state.name.lower()}, there is no more output",
                state=task.state.name,
                reason="TASK_STATE",
                metadata={"task": f"tasks/{task_id}"},
            )
        watchers = self._watchers.setdefault(task_id, set())
        if len(watchers) >= WATCHERS_MAX:
            raise errors.Exhausted(f"{WATCHERS_MAX} watch tasks/{task_id} already", reason="WATCHERS_FULL")
        watcher = _Watcher()
        watchers.add(watcher)
        if task.state in core.HELD:
            self._ask(task.agent, Holding(task_id, task.generation))
        try:
            while True:
                piece = await watcher.get()
                yield piece
                if piece.end:
                    return
        finally:
            self._leave(task_id, watcher)

    def push(self, chunk: attach.LogChunk) -> None:
        """Output has come; without a watcher it is dropped."""
        piece = Piece(chunk.holding.generation, chunk.text, chunk.dropped_bytes)
        for watcher in self._watchers.get(chunk.holding.task, ()):
            watcher.put(piece)

    def close(self) -> None:
        """End every watch, once it was told what there is: the hub goes away."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.close()

    def _leave(self, task_id: str, watcher: _Watcher) -> None:
        watchers = self._watchers[task_id]
        watchers.discard(watcher)
        if watchers:
            return
        del self._watchers[task_id]
        seat = self._sessions.fleet.holder(task_id)
        for holding in [one for one in self._sessions.watched if one.task == task_id]:
            self._sessions.watched.discard(holding)
        if seat is not None:
            self._sessions.nudge(seat.agent)

    def _ask(self, agent: str, holding: Holding) -> None:
        if holding not in self._sessions.watched:
            self._sessions.watched.add(holding)
            self._sessions.nudge(agent)

    def _moved(self, moves: Moves) -> None:
        if not self._watchers:
            return
        for ended in moves.ended:
            self._sessions.watched.discard(ended.holding)
            for watcher in self._watchers.get(ended.holding.task, ()):
                watcher.put(Piece(ended.holding.generation, end=True))
        for placed in moves.placed:
            if placed.holding.task in self._watchers:
                self._ask(placed.agent, placed.holding)
