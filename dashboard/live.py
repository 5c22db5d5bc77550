"""Pages that follow what happens: server-sent events, one thread a page, with a cap.

A page is told only that something has changed (and of what kinds), and asks for itself again; so nothing is shown here
that the page's own reads would not show. Beyond the cap a page is sent away with 503 and asks every few seconds
instead. The hub says something at least every 15 s, which also finds out that a page has gone.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Final

import grpc

from agentcom.v1 import hub_service_pb2
from dashboard.hub import Caller

RETRY_MS: Final = 3_000
"""When a browser opens a lost stream again."""
ALIVE_S: Final = 12.0
"""A comment is sent this often: it finds out that the page has gone, and no proxy in between falls asleep."""
TOGETHER: Final = 8
"""So many live pages are told at the full pace; with more of them each is told less often, so that what they ask for
again together stays the same, a third of a core at most."""
KINDS_MAX: Final = 32
"""Kinds of subjects named in one message."""


class Seats:
    """How many pages are told at once, and how often: the more there are, the slower each of them."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._taken = 0
        self._lock = threading.Lock()

    def take(self) -> bool:
        """True when there was room; give it back with `leave`."""
        with self._lock:
            if self._taken >= self._count_max:
                return False
            self._taken += 1
            return True

    def leave(self) -> None:
        """Make room."""
        with self._lock:
            self._taken -= 1

    def pace_s(self, alone_s: float) -> float:
        """How long a page rests after it was told, when one alone rests for `alone_s`."""
        with self._lock:
            return alone_s * max(1.0, self._taken / TOGETHER)


class Heard:
    """What has changed and was not told yet: folded, so a slow page costs nothing."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._kinds: set[str] = set()
        self._position = 0
        self._lost = False

    def event(self, kind: str, position: int) -> None:
        """Something happened."""
        with self._changed:
            if len(self._kinds) < KINDS_MAX:
                self._kinds.add(kind)
            self._position = position
            self._changed.notify()

    def lose(self) -> None:
        """The hub is away."""
        with self._changed:
            self._lost = True
            self._changed.notify()

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is something to tell; False: nothing came."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._kinds) or self._lost, timeout_s)

    def take(self) -> tuple[list[str], int, bool]:
        """Kinds, position of the last event, and whether the hub is lost; forgotten with that."""
        with self._changed:
            kinds, self._kinds = sorted(self._kinds), set()
            return kinds, self._position, self._lost


def stream(caller: Caller, pace: Callable[[], float], position: int) -> Generator[str, None, None]:
    """The body of an event stream: `change` with the kinds of what changed, `away` when the hub is lost."""
    heard = Heard()
    call = caller.watch(caller.hub.WatchEvents, hub_service_pb2.WatchEventsRequest(position=position))
    threading.Thread(target=_read, args=(call, heard), name="live-reader", daemon=True).start()
    try:
        yield f"retry: {RETRY_MS}\n\n"
        while True:
            if heard.wait(ALIVE_S):
                time.sleep(pace())  # what follows soon joins it
            kinds, last, lost = heard.take()
            if kinds:
                yield f"id: {last}\nevent: change\ndata: {json.dumps({'kinds': kinds})}\n\n"
            elif lost:
                yield "event: away\ndata: {}\n\n"
                return
            else:
                yield ": alive\n\n"
    finally:
        call.cancel()


def _read(call: Any, heard: Heard) -> None:
    try:
        for message in call:
            if message.HasField("event"):
                heard.event(message.event.type.partition(".")[0], message.position)
    except grpc.RpcError:
        pass  # the page is told that the hub is lost, and asks why by itself
    finally:
        heard.lose()
