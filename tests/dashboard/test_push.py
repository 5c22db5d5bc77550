"""Web push on the pages: what the page of alerts offers, and that only its own form subscribes a browser."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentcom.v1 import notify_service_pb2, notify_service_pb2_grpc
from tests.dashboard.conftest import Browser
from tests.support import hub as hubs
from tests.support import receiver

PUSH: dict[str, Any] = {"notify__webpush__enabled": True, "notify__webpush__contact": "mailto:ops@example.com"}
ENDPOINT = "https://push.example.com/canary"


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[hubs.Caller]:
    async with hubs.running(tmp_path, **PUSH) as made:
        yield made


async def subscribed(caller: hubs.Caller) -> list[Any]:
    stub = notify_service_pb2_grpc.NotifyServiceStub(caller.channel)
    reply = await stub.ListPushSubscriptions(notify_service_pb2.ListPushSubscriptionsRequest())
    return list(reply.push_subscriptions)


def form(endpoint: str = ENDPOINT) -> dict[str, str]:
    one = receiver.Browser(endpoint)
    keys = {"public_key": one.public_key, "auth": one.auth}
    shown = {name: base64.urlsafe_b64encode(key).rstrip(b"=").decode() for name, key in keys.items()}
    return {"endpoint": endpoint, "display_name": "Firefox on Linux", **shown}


async def test_the_page_of_alerts_tells_how_people_are_told(browser: Browser) -> None:
    page = (await browser.get("/alerts/")).text
    assert "How people are told" in page
    for sink in ("log", "webhook", "ntfy", "email", "webpush"):
        assert f'data-id="sinks/{sink}"' in page
    assert 'id="push"' in page and "push.js" in page
    assert "<script>" not in page and " onclick=" not in page


async def test_without_web_push_nothing_is_offered(tmp_path: Path) -> None:
    async with hubs.running(tmp_path) as made:
        one = Browser(made.hub.address)
        page = (await one.get("/alerts/")).text
        assert "How people are told" in page and 'id="push"' not in page
        reply = await one.post("/push/subscribe", form())
        assert reply.status_code == 409
        one.close()


async def test_the_worker_may_serve_the_whole_site_and_is_not_kept(browser: Browser) -> None:
    reply = await browser.get("/push-worker.js")
    assert reply.status_code == 200 and "javascript" in reply.content_type
    assert reply.headers["Service-Worker-Allowed"] == "/"
    assert "no-cache" in reply.headers["Cache-Control"]


async def test_a_browser_subscribes_is_listed_and_is_left_alone_again(browser: Browser, caller: hubs.Caller) -> None:
    reply = await browser.post("/push/subscribe", form())
    assert reply.status_code == 200, reply.text
    (one,) = await subscribed(caller)
    assert one.display_name == "Firefox on Linux"
    page = (await browser.get("/alerts/")).text
    assert "Firefox on Linux" in page and "push.example.com" in page and "canary" not in page
    for _ in range(2):
        assert (await browser.post("/push/unsubscribe", {"endpoint": ENDPOINT})).status_code == 200
    assert await subscribed(caller) == []


async def test_a_browser_of_the_list_is_removed(browser: Browser, caller: hubs.Caller) -> None:
    await browser.post("/push/subscribe", form())
    (one,) = await subscribed(caller)
    reply = await browser.post(f"/push/remove/{one.name.partition('/')[2]}")
    assert reply.status_code == 303
    assert await subscribed(caller) == []


async def test_a_form_of_another_site_subscribes_nobody(browser: Browser, caller: hubs.Caller) -> None:
    for path in ("/push/subscribe", "/push/unsubscribe", "/push/remove/x", "/push/test/webhook"):
        assert (await browser.post_bare(path, form())).status_code == 403
    assert await subscribed(caller) == []


@pytest.mark.parametrize(
    "wrong", [{"endpoint": "https://127.0.0.1/x"}, {"public_key": "!"}, {"auth": "AAAA"}, {"endpoint": ""}]
)
async def test_what_reaches_no_browser_is_refused(browser: Browser, caller: hubs.Caller, wrong: dict[str, str]) -> None:
    reply = await browser.post("/push/subscribe", {**form(), **wrong})
    assert reply.status_code == 400
    assert await subscribed(caller) == []


async def test_a_sink_is_tried_from_the_page(browser: Browser) -> None:
    assert (await browser.post("/push/test/email")).status_code == 409
    assert (await browser.post("/push/test/fax")).status_code == 404
