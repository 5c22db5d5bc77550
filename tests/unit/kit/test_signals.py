"""One signal stops, the second cancels, and so does the deadline."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from structlog.testing import capture_logs

from kit import signals

LONG_S = 3600.0


async def test_a_process_that_ends_by_itself_ends_well():
    async def main(_stopping):
        return None

    assert await signals.run(main, deadline_s=LONG_S) == 0


@pytest.mark.parametrize("number", signals.SIGNALS)
async def test_the_first_signal_stops_and_what_is_held_is_finished(number):
    finished = []

    async def main(stopping):
        os.kill(os.getpid(), number)
        await stopping.wait()
        finished.append(True)

    with capture_logs() as lines:
        assert await signals.run(main, deadline_s=LONG_S) == 0
    assert finished == [True]
    assert [line["event"] for line in lines] == ["process.stopping"]


async def test_the_second_signal_cancels():
    async def main(stopping):
        os.kill(os.getpid(), signal.SIGTERM)
        await stopping.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.get_running_loop().create_future()

    with capture_logs():
        assert await signals.run(main, deadline_s=LONG_S) == 128 + signal.SIGTERM


async def test_the_deadline_cancels():
    async def main(_stopping):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.get_running_loop().create_future()

    with capture_logs() as lines:
        assert await signals.run(main, deadline_s=0.001) == 128 + signal.SIGINT
    assert lines[-1]["cause"] == "deadline"


async def test_an_error_passes_through_and_the_handlers_are_gone():
    async def main(_stopping):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await signals.run(main, deadline_s=LONG_S)
    assert not asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_a_cancel_from_outside_is_not_taken_for_a_signal():
    entered = asyncio.Event()

    async def main(_stopping):
        entered.set()
        await asyncio.get_running_loop().create_future()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(signals.run(main, deadline_s=LONG_S))
        await entered.wait()
        task.cancel()
    assert task.cancelled()
