"""A cancel that comes together with the end of the stream: found by the simulator (seed 106)."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from agentcom.v1 import agent_pb2
from kit import clock
from sidecar.core.lease import Lease
from sidecar.core.offer import Offer
from sidecar.core.slots import Slots
from sidecar.core.tail import Tail
from sidecar.wire.availability import Availability
from sidecar.wire.conversation import Conversation, Desk
from sidecar.wire.ledger import Ledger


class Call:
    """A stream that ends when it is told to, and on which nothing is said."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.waited_for = asyncio.Event()

    async def __aiter__(self) -> Any:
        self.waited_for.set()
        await self.over.wait()
        never: list[Any] = []
        for one in never:
            yield one

    async def write(self, _message: object) -> None:
        pass

    def cancel(self) -> None:
        pass


async def test_a_cancel_that_meets_the_end_of_the_stream_is_not_lost():
    time = clock.SystemClock()

    async def self_test() -> Any:
        raise AssertionError

    desk = Desk(
        agent="agents/a", offer=Offer(slots=1), version="", host="", holdings=SimpleNamespace(slots=Slots(1)),
        ledger=Ledger(), tail=Tail(), lease=Lease(), availability=Availability(self_test, time),
        load=lambda _count: agent_pb2.Load(), closing=lambda: False, time=time, rng=random.Random(1),
    )  # fmt: skip
    call = Call()
    talk = Conversation(desk, lambda: None, lambda: None, welcome_timeout_s=60.0)
    stub: Any = SimpleNamespace(Attach=lambda metadata: call)
    task = asyncio.create_task(talk.run(stub, ()))
    await call.waited_for.wait()
    call.over.set()
    for _ in range(2):  # the reader has raised Ended, and its group knows
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
