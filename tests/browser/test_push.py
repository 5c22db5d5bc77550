"""Web push in a real browser: it subscribes, it shows what is pushed, and it is left alone again.

The push service itself is beyond the internet: the browser is given a subscription of the test's, and what a push
service would hand it is handed to its service worker by the browser's own debugging protocol.
"""

from __future__ import annotations

import asyncio
import json

from agentcom.v1 import notify_service_pb2, notify_service_pb2_grpc
from tests.support.processes import PATIENCE_S

# A public key that is a point of the curve, and a secret: of the example of RFC 8291.
SUBSCRIPTION = """
const plain = (text) => atob(text.replaceAll("-", "+").replaceAll("_", "/"));
const bytes = (text) => Uint8Array.from(plain(text), (c) => c.charCodeAt(0)).buffer;
let current = null;
PushManager.prototype.subscribe = async function (options) {
  window.asked = options;
  current = {
    endpoint: "https://push.example.com/1",
    options: { applicationServerKey: options.applicationServerKey.buffer },
    getKey: (name) => bytes(name === "auth" ? "BTBZMqHH6r4Tts7J_aSIgg" :
      "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"),
    unsubscribe: async () => { current = null; window.left = true; return true; },
  };
  return current;
};
PushManager.prototype.getSubscription = async () => current;
"""


async def browsers(fleet):
    stub = notify_service_pb2_grpc.NotifyServiceStub(fleet.channel)
    reply = await stub.ListPushSubscriptions(notify_service_pb2.ListPushSubscriptionsRequest())
    return list(reply.push_subscriptions)


async def test_a_browser_is_told_shows_it_and_is_left_alone_again(fleet, page):
    await fleet.kill_hub()
    await fleet.restart_hub(notify_webpush_enabled="true", notify_webpush_contact="mailto:ops@example.com")
    await page.context.grant_permissions(["notifications"])
    await page.add_init_script(SUBSCRIPTION)
    await page.goto("/alerts/")
    await page.get_by_text("This browser is told nothing.").wait_for()
    await page.get_by_role("button", name="Tell me in this browser").click()
    await page.get_by_text("This browser is told what needs a person.").wait_for()
    (one,) = await browsers(fleet)
    assert "Chrome" in one.display_name and one.host == "push.example.com"
    assert await page.evaluate("asked.userVisibleOnly && asked.applicationServerKey.length") == 65

    notice = {"id": "n1", "kind": "urgent", "title": "Goal failed: <b>x</b>", "text": "why", "path": "/dead/"}
    for _ in range(2):  # what is pushed twice is shown once
        await push(page, json.dumps(notice))
    shown = await page.evaluate(
        """async () => {
            const ready = await navigator.serviceWorker.ready;
            for (;;) {
                const all = await ready.getNotifications();
                if (all.length) return all.map((one) => [one.title, one.body, one.tag, one.data.path]);
                await new Promise((resolve) => setTimeout(resolve, 20));
            }
        }"""
    )
    assert shown == [["Goal failed: <b>x</b>", "why", "n1", "/dead/"]]

    await page.get_by_role("button", name="Tell me nothing here").click()
    await page.get_by_text("This browser is told nothing.").wait_for()
    assert await browsers(fleet) == []
    assert await page.evaluate("left") is True


async def push(page, data):
    """Hand a message to the service worker, as the push service's side of the browser does."""
    client = await page.context.new_cdp_session(page)
    found = asyncio.get_running_loop().create_future()

    def registered(event):
        for one in event["registrations"]:
            if not one["isDeleted"] and not found.done():
                found.set_result(one["registrationId"])

    client.on("ServiceWorker.workerRegistrationUpdated", registered)
    await client.send("ServiceWorker.enable")
    async with asyncio.timeout(PATIENCE_S):
        registration = await found
    origin = await page.evaluate("location.origin")
    message = {"origin": origin, "registrationId": registration, "data": data}
    await client.send("ServiceWorker.deliverPushMessage", message)
    await client.detach()
