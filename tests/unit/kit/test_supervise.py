"""Loops run when due or woken, survive their failures, and end when told."""

from __future__ import annotations

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from kit import clock, supervise
from kit.supervise import Loop, Supervisor

LONG_S = 3600.0


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch):
    monkeypatch.setattr(supervise, "RESTART_BASE_S", 0.0)
    monkeypatch.setattr(supervise, "RESTART_CAP_S", 0.0)


def supervisor(*loops, time=None):
    return Supervisor(loops, time=time or clock.ManualClock(), rng=random.Random(1))


class Duty:
    """A duty that counts its runs, does what the script says, and tells when it has run n times."""

    def __init__(self, *script):
        self.script = list(script)
        self.runs = []
        self._changed = asyncio.Event()

    async def __call__(self, now):
        self.runs.append(now)
        self._changed.set()
        step = self.script.pop(0) if self.script else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            await step()

    async def ran(self, count):
        async with asyncio.timeout(5):
            while len(self.runs) < count:
                self._changed.clear()
                await self._changed.wait()


async def test_a_loop_runs_at_once_and_then_when_woken():
    duty, wake = Duty(), asyncio.Event()
    time = clock.ManualClock(100.0)
    it = supervisor(Loop("sweep", duty, LONG_S, wake), time=time)
    async with asyncio.TaskGroup() as group:
        group.create_task(it.run())
        await duty.ran(1)
        time.advance(5)
        wake.set()
        await duty.ran(2)
        it.wake("sweep")
        await duty.ran(3)
        it.stop()
    assert duty.runs == [100.0, 105.0, 105.0]


async def test_a_loop_runs_again_when_its_period_is_over():
    duty = Duty()
    it = supervisor(Loop("sweep", duty, 0.0))
    async with asyncio.TaskGroup() as group:
        group.create_task(it.run())
        await duty.ran(3)
        it.stop()


async def test_a_wake_up_during_a_run_is_not_lost():
    wake = asyncio.Event()

    async def woken_meanwhile():
        wake.set()

    duty = Duty(woken_meanwhile)
    it = supervisor(Loop("sweep", duty, LONG_S, wake))
    async with asyncio.TaskGroup() as group:
        group.create_task(it.run())
        await duty.ran(2)
        it.stop()


async def test_a_failure_is_logged_and_tried_again_without_touching_the_others():
    bad, good = Duty(ValueError("one"), ValueError("two")), Duty()
    it = supervisor(Loop("bad", bad, LONG_S), Loop("good", good, LONG_S))
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as group:
            group.create_task(it.run())
            await bad.ran(3)
            it.stop()
    health = it.health()["bad"]
    assert (health.failure_count, health.streak, health.last_error) == (2, 0, "ValueError: two")
    assert [(line["event"], line["loop"], line["streak"]) for line in lines] == [
        ("loop.failed", "bad", 1),
        ("loop.failed", "bad", 2),
    ]
    assert len(good.runs) == 1
    assert it.health()["good"].failure_count == 0


async def test_a_cancellation_that_nobody_asked_for_does_not_end_the_loop():
    duty = Duty(asyncio.CancelledError())
    it = supervisor(Loop("sweep", duty, LONG_S))
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as group:
            group.create_task(it.run())
            await duty.ran(2)
            it.stop()
    assert [line["event"] for line in lines] == ["loop.failed"]


async def test_a_run_beyond_its_limit_is_cut_and_tried_again():
    async def hang():
        await asyncio.get_running_loop().create_future()

    duty = Duty(hang)
    it = supervisor(Loop("sweep", duty, LONG_S, limit_s=0.001))
    with capture_logs():
        async with asyncio.TaskGroup() as group:
            group.create_task(it.run())
            await duty.ran(2)
            it.stop()
    assert it.health()["sweep"].last_error.startswith("TimeoutError")


async def test_a_busy_signal_does_not_turn_a_failing_loop_into_a_spin(monkeypatch):
    monkeypatch.setattr(supervise, "RESTART_BASE_S", LONG_S)
    monkeypatch.setattr(supervise, "RESTART_CAP_S", LONG_S)
    duty, wake = Duty(ValueError("always")), asyncio.Event()
    it = supervisor(Loop("sweep", duty, LONG_S, wake))
    with capture_logs():
        async with asyncio.TaskGroup() as group:
            group.create_task(it.run())
            await duty.ran(1)
            for _ in range(100):
                wake.set()
                await asyncio.sleep(0)
            it.stop()
    assert len(duty.runs) == 1


async def test_a_stop_lets_the_run_at_hand_finish():
    release, finished = asyncio.Event(), []

    async def work():
        await release.wait()
        finished.append(True)

    duty = Duty(work)
    it = supervisor(Loop("sweep", duty, LONG_S))
    async with asyncio.TaskGroup() as group:
        group.create_task(it.run())
        await duty.ran(1)
        it.stop()
        release.set()
    assert finished == [True]
    assert len(duty.runs) == 1


async def test_a_cancel_ends_the_run_at_hand():
    async def hang():
        await asyncio.get_running_loop().create_future()

    duty = Duty(hang)
    it = supervisor(Loop("sweep", duty, LONG_S))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(it.run())
        await duty.ran(1)
        task.cancel()
    assert task.cancelled()


async def test_the_watchdog_reads_which_loops_are_late():
    time = clock.ManualClock(100.0)
    duty = Duty()
    it = supervisor(Loop("sweep", duty, 30.0), time=time)
    assert it.late(0.0, grace_s=0) == []
    async with asyncio.TaskGroup() as group:
        group.create_task(it.run())
        await duty.ran(1)
        it.stop()
    assert it.health()["sweep"].succeeded_at == 100.0
    time.jump(3600.0)  # a date that is set makes nobody late
    assert it.late(35.0, grace_s=10) == []
    assert it.late(41.0, grace_s=10) == ["sweep"]


async def test_a_loop_that_never_succeeded_is_late_too():
    duty = Duty(ValueError("never"))
    it = supervisor(Loop("sweep", duty, 30.0), time=clock.ManualClock(100.0))
    with capture_logs():
        async with asyncio.TaskGroup() as group:
            group.create_task(it.run())
            await duty.ran(1)
            it.stop()
    assert it.late(41.0, grace_s=10) == ["sweep"]


def test_two_loops_of_one_name_are_an_error_of_the_programmer():
    with pytest.raises(AssertionError):
        supervisor(Loop("a", Duty(), 1.0), Loop("a", Duty(), 1.0))
