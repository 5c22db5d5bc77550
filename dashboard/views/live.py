"""The stream that tells a page that something has changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import flask

from agentcom.v1 import hub_service_pb2
from dashboard import live, pages

blueprint = flask.Blueprint("live", __name__)


@blueprint.get("/live")
def stream() -> flask.typing.ResponseReturnValue:
    """Server-sent events; 503 when all seats are taken: the page then asks every few seconds."""
    config, _, seats = pages.parts()
    caller = pages.caller()
    position = _position() or caller.read(caller.hub.GetHub, hub_service_pb2.GetHubRequest()).hub.event_position
    if not seats.take():
        return "all live seats are taken\n", 503, {"Retry-After": "30"}

    def pace() -> float:
        return seats.pace_s(config.live.pace_s)

    def body() -> Iterator[str]:
        try:
            with contextlib.closing(live.stream(caller, pace, position)) as told:
                yield from told
        finally:
            seats.leave()

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return flask.Response(body(), mimetype="text/event-stream", headers=headers)


def _position() -> int:
    """Where a stream that was lost goes on; 0: it begins."""
    text = flask.request.headers.get("Last-Event-ID", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
