"""A hub that is away: the pages say so, with the age of what they show; and the pages that follow what happens."""

from __future__ import annotations

import asyncio
import contextlib

from dashboard import live
from tests.dashboard.conftest import Browser
from tests.support import hub as hubs


async def test_a_page_that_was_seen_is_shown_again_with_its_age_and_another_one_says_that_the_hub_is_away(tmp_path):
    async with hubs.running(tmp_path) as caller:
        browser = Browser(caller.hub.address, hub__timeout_s=2.0)
        task = await caller.task("seen before")
        assert "seen before" in (await browser.get("/tasks/")).text
    try:
        page = await browser.get("/tasks/")
        assert page.status_code == 200
        assert "The hub is away." in page.text
        assert "seen before" in page.text
        other = await browser.get("/agents/")
        assert other.status_code == 503
        assert "The hub is away" in other.text
        assert (await browser.post(f"/{task.name}/cancel")).status_code == 503
    finally:
        browser.close()


async def test_what_one_person_saw_is_not_shown_to_another(tmp_path):
    async with hubs.running(tmp_path) as caller:
        browser = Browser(caller.hub.address, hub__timeout_s=2.0)
        await caller.task("seen before")
        await browser.get("/tasks/")
    stranger = Browser(caller.hub.address, hub__timeout_s=2.0)
    stranger.app.extensions["agentcom"] = browser.app.extensions["agentcom"]
    try:
        stranger.show("act_" + "B" * 43)
        page = await stranger.get("/tasks/")
        assert "seen before" not in page.text
    finally:
        stranger.close()
        browser.close()


async def test_a_live_page_is_told_of_changes_and_gives_its_seat_back(caller):
    browser = Browser(caller.hub.address, live__pages_max=1, live__pace_s=0.1)
    try:
        reply = await browser.get("/live")
        assert reply.mimetype == "text/event-stream"
        chunks = iter(reply.response)
        assert "retry:" in _text(await asyncio.to_thread(next, chunks))
        full = await browser.get("/live")
        assert full.status_code == 503
        assert full.headers["Retry-After"]
        await caller.task("something happens")
        told = ""
        while "event: change" not in told:
            told += _text(await asyncio.to_thread(next, chunks))
        assert '"task"' in told
        assert "id: " in told
        await asyncio.to_thread(reply.close)
        again = await browser.get("/live")
        assert again.status_code == 200
        await asyncio.to_thread(again.close)
    finally:
        browser.close()


async def test_a_live_page_is_told_that_the_hub_is_lost(tmp_path):
    stack = contextlib.AsyncExitStack()
    caller = await stack.enter_async_context(hubs.running(tmp_path))
    browser = Browser(caller.hub.address, live__pace_s=0.1)
    try:
        reply = await browser.get("/live")
        chunks = iter(reply.response)
        await asyncio.to_thread(next, chunks)
        await stack.aclose()
        told = ""
        while "event: away" not in told:
            told += _text(await asyncio.to_thread(next, chunks))
        await asyncio.to_thread(reply.close)
    finally:
        browser.close()


def _text(chunk: bytes | str) -> str:
    return chunk.decode() if isinstance(chunk, bytes) else chunk


def test_many_live_pages_are_told_less_often_and_load_the_hub_no_more():
    seats = live.Seats(32)
    for _ in range(8):
        assert seats.take()
    assert seats.pace_s(1.0) == 1.0
    for _ in range(24):
        assert seats.take()
    assert not seats.take()
    assert seats.pace_s(1.0) == 4.0
    seats.leave()
    assert seats.take()
