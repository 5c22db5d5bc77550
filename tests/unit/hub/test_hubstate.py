"""The hub's own state: what is in memory follows what was committed, in its order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hub.core.task import State
from hub.engine.desk.hubstate import HubState
from tests.support.stage import Stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


async def test_a_pause_right_behind_a_resume_holds(stage: Stage) -> None:
    """The resume's caller goes on when the pause is committed already; it must not undo it in memory."""
    state = HubState(stage.ctx, version="1", wake=stage.dispatcher.wake.set)
    await state.pause("me", "")
    async with asyncio.TaskGroup() as group:
        group.create_task(state.resume("me"))
        group.create_task(state.pause("me", ""))
    assert stage.see(lambda reader: reader.meta("paused")) == b"1"
    assert stage.ctx.gate.paused
    await stage.online("a1")
    task = await stage.submit()
    assert stage.state(task) is State.QUEUED


async def test_resume_opens_the_gate(stage: Stage) -> None:
    state = HubState(stage.ctx, version="1", wake=stage.dispatcher.wake.set)
    await state.pause("me", "")
    assert not stage.ctx.gate.open
    await state.drain("me", "")
    await state.resume("me")
    assert stage.ctx.gate.open


async def test_a_pause_whose_caller_goes_away_just_then_holds(stage: Stage) -> None:
    state = HubState(stage.ctx, version="1", wake=stage.dispatcher.wake.set)
    pausing = asyncio.create_task(state.pause("me", ""))
    await asyncio.sleep(0)  # it is committed, and its caller has not heard of it
    pausing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pausing
    assert stage.see(lambda reader: reader.meta("paused")) == b"1"
    assert stage.ctx.gate.paused


async def test_who_paused_it_and_why_is_told_as_long_as_it_is_paused(stage: Stage) -> None:
    state = HubState(stage.ctx, version="1", wake=stage.dispatcher.wake.set)
    assert state.facts().reason == ""
    await state.pause("tokens/7", "the disk is changed")
    assert state.facts().reason == "paused by tokens/7: the disk is changed"
    again = HubState(stage.ctx, version="1", wake=stage.dispatcher.wake.set)
    assert again.facts().reason == "paused by tokens/7: the disk is changed", "also after a restart"
    await state.pause("local", "")
    assert state.facts().reason == "paused by local"
    await state.drain("me", "upgrade")
    assert state.facts().reason == "drained by me: upgrade", "what refuses more goes first"
    await state.resume("me")
    assert state.facts().reason == ""


async def test_a_pause_of_an_older_hub_has_no_reason(stage: Stage) -> None:
    await stage.ctx.store.write(lambda txn: txn.set_meta("paused", b"1"))
    stage.ctx.gate.paused = True
    state = HubState(stage.ctx, version="1", wake=stage.dispatcher.wake.set)
    assert (state.state.name, state.facts().reason) == ("PAUSED", "")
