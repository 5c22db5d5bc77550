"""A call that is ended from outside ends with the problem, wherever it is, and is never cancelled in silence."""

from __future__ import annotations

import asyncio

import pytest

from kit import errors
from kit.leash import Leash

PROBLEM = errors.Unauthenticated("the token is revoked or used up", reason="TOKEN_REVOKED")


async def test_a_step_that_is_not_disturbed_gives_what_it_gives():
    async def step():
        await asyncio.sleep(0)
        return 7

    assert await Leash().run(step()) == 7


async def test_a_step_that_waits_is_cancelled_and_the_problem_comes_out():
    leash, steps = Leash(), []

    async def step():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            steps.append("cancelled")
            raise

    asyncio.get_running_loop().call_soon(leash.pull, PROBLEM)
    with pytest.raises(errors.Unauthenticated) as ended:
        await leash.run(step())
    assert (ended.value, steps) == (PROBLEM, ["cancelled"])
    assert asyncio.current_task().cancelling() == 0


async def test_a_leash_that_was_pulled_between_two_steps_ends_the_next_one():
    leash = Leash()
    await leash.run(asyncio.sleep(0))
    leash.pull(PROBLEM)
    with pytest.raises(errors.Unauthenticated):
        await leash.run(asyncio.get_running_loop().create_future())


async def test_the_first_problem_counts():
    leash = Leash()
    leash.pull(PROBLEM)
    leash.pull(errors.Unauthenticated("later"))
    with pytest.raises(errors.Unauthenticated, match="revoked"):
        await leash.run(asyncio.get_running_loop().create_future())


async def test_a_timeout_of_the_step_itself_stays_what_it_is():
    async def step():
        async with asyncio.timeout(0):
            await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        await Leash().run(step())


async def test_a_cancellation_from_elsewhere_stays_a_cancellation():
    leash = Leash()
    task = asyncio.ensure_future(leash.run(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_step_that_ends_in_the_moment_of_the_pull_leaves_no_cancellation_behind():
    leash = Leash()

    async def step():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "done all the same"

    asyncio.get_running_loop().call_soon(leash.pull, PROBLEM)
    assert await leash.run(step()) == "done all the same"
    assert asyncio.current_task().cancelling() == 0
    with pytest.raises(errors.Unauthenticated):
        await leash.run(asyncio.sleep(0))


async def test_who_pulls_and_cancels_is_obeyed_as_one_who_cancels():
    leash = Leash()
    task = asyncio.ensure_future(leash.run(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    leash.pull(PROBLEM)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_group_inside_of_a_step_ends_all_of_its_tasks():
    leash, ended = Leash(), []

    async def child():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("child")

    async def step():
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(child())

    asyncio.get_running_loop().call_later(0.01, leash.pull, PROBLEM)
    with pytest.raises(errors.Unauthenticated):
        await leash.run(step())
    assert ended == ["child", "child"]
    assert asyncio.current_task().cancelling() == 0
