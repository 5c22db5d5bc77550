"""The thread that pushes: what it gives up at its end is given up for good."""

from __future__ import annotations

import socket

from kit import otlp, tally

PATIENCE_S = 10.0


async def test_a_push_that_was_given_up_is_not_tried_again(monkeypatch):
    """A collector that is away is tried again for the whole timeout, by the library; nobody waits for that any more."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    pusher = otlp.Pusher(f"http://127.0.0.1:{port}", timeout_s=600.0, resource={})
    pusher.start()
    pusher.offer(tally.Snapshot(0.0, 1.0, ()))
    assert not await pusher.stop(0.2)
    pusher._thread.join(PATIENCE_S)
    assert not pusher._thread.is_alive()
