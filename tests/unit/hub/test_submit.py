"""Submission: filed and assigned in one commit, and a reserved slot is given back whatever becomes of it."""

from __future__ import annotations

import asyncio
import random

import pytest

from hub.core.agent import Agent, Offer
from hub.core.repo import Repo
from hub.core.task import Kind, Requirement, State, TaskSpec, Tier
from hub.engine.desk.submit import Submitter
from hub.engine.live.context import Context
from hub.engine.live.dispatch import Dispatcher
from hub.engine.script import requests
from hub.store.memory import MemoryStore
from kit import clock as clocks
from kit import errors

SPEC = TaskSpec(title="t", command="true")
OFFER = Offer(tiers=frozenset(Tier), kinds=frozenset(Kind), slots=2)


@pytest.fixture
async def fleet():
    """A submitter, its dispatcher, and one agent with two free slots."""
    ctx = Context.make(MemoryStore.open(), clocks.ManualClock(), random.Random(1))
    agent = Agent(id="anna")
    await ctx.store.write(lambda txn: txn.agents.put(agent))
    dispatcher = Dispatcher(ctx)
    seat = dispatcher.fleet.attach(agent, OFFER)
    seat.blocked = False
    dispatcher.fleet.touch(seat)
    return ctx, dispatcher, seat, Submitter(ctx, dispatcher)


def request(id="", fingerprint=b""):
    return requests.Request("test", "CreateTask", id, fingerprint)


async def test_a_task_that_finds_a_slot_is_filed_and_assigned_in_one_commit(fleet):
    ctx, _, seat, submitter = fleet
    before = ctx.store.facts().commits
    filed = await submitter.create(SPEC, request())
    assert (filed.task.state, filed.task.agent, filed.task.generation) == (State.ASSIGNED, "anna", 1)
    assert ctx.store.facts().commits == before + 1
    assert (seat.used, seat.reserved) == (1, 0)


async def test_a_batch_takes_the_slots_that_there_are_and_waits_with_the_rest(fleet):
    ctx, _, seat, submitter = fleet
    ids = await submitter.create_many([SPEC] * 5, request())
    states = [ctx.store.read(lambda reader, id=id: reader.task(id)).state for id in ids]
    assert states == [State.ASSIGNED] * 2 + [State.QUEUED] * 3
    assert (seat.used, seat.reserved) == (2, 0)


@pytest.mark.parametrize("many", [False, True])
async def test_a_slot_is_given_back_when_the_transaction_fails(fleet, many):
    _, dispatcher, seat, submitter = fleet
    spec = TaskSpec(title="t", command="true", requirement=Requirement(repo="none"))
    with pytest.raises(errors.NotFound):
        await (submitter.create_many([spec, spec], request()) if many else submitter.create(spec, request()))
    assert (seat.used, seat.reserved) == (0, 0)
    assert dispatcher.reserve(SPEC.requirement) == "anna"


async def test_a_repeated_request_takes_no_slot(fleet):
    _, _, seat, submitter = fleet
    first = await submitter.create(SPEC, request("12345678", b"f"))
    again = await submitter.create(SPEC, request("12345678", b"f"))
    assert again.task.id == first.task.id
    assert (seat.used, seat.reserved) == (1, 0)


async def test_a_task_that_cannot_start_yet_takes_no_slot(fleet):
    ctx, _, seat, submitter = fleet
    later = TaskSpec(title="t", command="true", start_at=ctx.clock.now() + 60)
    assert (await submitter.create(later, request())).task.state is State.SCHEDULED
    assert seat.used == 0


async def test_a_slot_stays_reserved_until_the_transaction_of_a_caller_that_left_has_ended(fleet, monkeypatch):
    ctx, _, seat, submitter = fleet
    written, gate, under_way = ctx.store.write, asyncio.Event(), asyncio.Event()
    order = asyncio.Lock()

    async def slow(fn, *, essential=False):
        """A writer that works in order and goes on when a caller has left."""

        async def work():
            async with order:
                under_way.set()
                await gate.wait()
                return await written(fn, essential=essential)

        task = asyncio.ensure_future(work())
        running.add(task)
        return await asyncio.shield(task)

    running: set[asyncio.Task] = set()
    monkeypatch.setattr(ctx.store, "write", slow)
    call = asyncio.create_task(submitter.create(SPEC, request()))
    await under_way.wait()
    call.cancel()
    for _ in range(5):  # give the cancellation every chance to run through
        await asyncio.sleep(0)
    assert seat.reserved == 1
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (seat.used, seat.reserved) == (1, 0)  # it was filed and assigned: nobody took the acknowledgement


async def test_the_repo_of_a_task_must_be_there(fleet):
    ctx, _, _, submitter = fleet
    spec = TaskSpec(title="t", command="true", requirement=Requirement(repo="r"))
    with pytest.raises(errors.NotFound, match="repos/r"):
        submitter.check(spec)
    await ctx.store.write(lambda txn: txn.repos.put(Repo(id="r", url="https://example.org/r.git")))
    submitter.check(spec)
    assert (await submitter.create(spec, request())).task.repo == "r"
