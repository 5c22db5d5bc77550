"""Web push: a browser asks to be told, and asks to be left alone; and how the hub's other ways to tell people do.

The page's script (`static/push.js`) talks to the browser and posts here; here only the form is checked and handed on.
The worker that shows what comes is served from the root, for a worker sees only the paths below its own.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import flask

from agentcom.v1 import notify_pb2, notify_service_pb2
from dashboard import pages
from kit import errors

blueprint = flask.Blueprint("push", __name__)

WEBPUSH: Final = "sinks/webpush"


class Telling(NamedTuple):
    """How people are told, for the page of alerts."""

    sinks: Sequence[notify_pb2.Sink]
    next_digest_time: Any
    browsers: Sequence[notify_pb2.PushSubscription]
    key: str
    """Under which this browser subscribes, as base64url; empty: web push is off."""


@blueprint.app_template_global("telling")
def telling() -> Telling | None:
    """What `_push.html` shows; None when the hub is too old to say, or the caller may not ask."""
    caller = pages.caller()
    found = caller.read_if_open(caller.notify.ListSinks, notify_service_pb2.ListSinksRequest())
    if found is None:
        return None
    browsers: Sequence[notify_pb2.PushSubscription] = ()
    key = ""
    if any(one.name == WEBPUSH and one.enabled for one in found.sinks):
        browsers = caller.read(
            caller.notify.ListPushSubscriptions, notify_service_pb2.ListPushSubscriptionsRequest()
        ).push_subscriptions
        reply = caller.read(caller.notify.GetPushKey, notify_service_pb2.GetPushKeyRequest())
        key = base64.urlsafe_b64encode(reply.public_key).rstrip(b"=").decode()
    return Telling(found.sinks, found.next_digest_time, browsers, key)


@blueprint.get("/push-worker.js")
def worker() -> flask.typing.ResponseReturnValue:
    """The service worker."""
    response = flask.current_app.send_static_file("push-worker.js")
    response.headers["Service-Worker-Allowed"] = "/"
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.post("/push/subscribe")
def subscribe() -> flask.typing.ResponseReturnValue:
    """Let this browser be told."""
    form, caller = flask.request.form, pages.caller()
    request = notify_service_pb2.CreatePushSubscriptionRequest(
        endpoint=form.get("endpoint", ""),
        public_key=_bytes("public_key"),
        auth=_bytes("auth"),
        display_name=form.get("display_name", "")[:100],
    )
    made = caller.act(caller.notify.CreatePushSubscription, request).push_subscription
    return {"name": made.name}


@blueprint.post("/push/unsubscribe")
def unsubscribe() -> flask.typing.ResponseReturnValue:
    """Tell this browser nothing more; it knows itself by its address."""
    caller = pages.caller()
    request = notify_service_pb2.DeletePushSubscriptionRequest(endpoint=flask.request.form.get("endpoint", ""))
    with contextlib.suppress(errors.NotFound):  # it was forgotten before: that is what was asked for
        caller.act(caller.notify.DeletePushSubscription, request)
    return {}


@blueprint.post("/push/remove/<id>")
def remove(id: str) -> flask.typing.ResponseReturnValue:
    """Tell a browser of the list nothing more."""
    caller = pages.caller()
    request = notify_service_pb2.DeletePushSubscriptionRequest(name=f"pushSubscriptions/{id}")
    caller.act(caller.notify.DeletePushSubscription, request)
    return pages.done("the browser is told nothing more", endpoint="alerts.page")


@blueprint.post("/push/test/<sink>")
def test(sink: str) -> flask.typing.ResponseReturnValue:
    """Send a test now."""
    caller = pages.caller()
    caller.act(caller.notify.TestSink, notify_service_pb2.TestSinkRequest(name=f"sinks/{sink}"))
    return pages.done(f"{sink} took a test", endpoint="alerts.page")


def _bytes(field: str) -> bytes:
    text = flask.request.form.get(field, "")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise errors.Invalid.of(field, "is not base64url") from error
