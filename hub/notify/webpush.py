"""Web push (RFC 8030): a sealed message to the push service of one browser, signed with the hub's key."""

from __future__ import annotations

from typing import Final

import msgspec

from hub.core.notices import notice as notices
from hub.core.notices import subscription as subscriptions
from hub.core.notices.notice import Kind, Notice
from hub.core.notices.subscription import Subscription
from hub.notify import http, ntfy, sealing, vapid

KEPT_S: Final = 86_400
"""How long the push service keeps a message for a browser that is not there."""
BODY_CHARS_MAX: Final = 1_000
"""What a notification shows of a text; the page shows the rest."""
GONE: Final = frozenset({404, 410})


class Webpush:
    """All browsers that asked."""

    def __init__(self, poster: http.Poster, signer: vapid.Vapid, *, private: bool) -> None:
        self._poster = poster
        self._signer = signer
        self._private = private
        #: What browsers subscribe under.
        self.public_key = signer.public_key

    def check(self, endpoint: str, public_key: bytes) -> None:
        """Raise Invalid for what no browser is reached by."""
        subscriptions.check(endpoint, private=self._private)
        sealing.read_point(public_key)

    async def send(self, notice: Notice, to: Subscription) -> None:
        """Send it once to one browser. Raises Failed; Gone when it will never be reached again."""
        if to.made_for != self.public_key:
            raise notices.Gone("it subscribed under another key of the hub")
        headers = {
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "authorization": self._signer.authorization(f"https://{_authority(to.endpoint)}"),
            "ttl": str(KEPT_S),
            "urgency": "normal" if notice.kind is Kind.DIGEST else "high",
            # A message that still waits there is replaced by its repetition.
            "topic": notice.id,
        }
        content = sealing.seal(payload(notice), to.public_key, to.auth)
        reply = await self._poster.post(to.endpoint, headers, content)
        if reply.status in GONE:
            raise notices.Gone(f"{to.host} answered {reply.status}: the browser is not subscribed any more")
        http.must_be_taken(to.host, reply)


def payload(notice: Notice) -> bytes:
    """What the service worker of the dashboard reads. The path is of its own site: no address comes from outside."""
    text = notice.text if len(notice.text) <= BODY_CHARS_MAX else f"{notice.text[: BODY_CHARS_MAX - 1]}…"
    made = {"id": notice.id, "kind": notice.kind.name.lower(), "title": notice.title, "path": notice.path}
    room = sealing.TEXT_BYTES_MAX - len(msgspec.json.encode({**made, "text": ""}))
    # Text may need more bytes in JSON than by itself: quotes and line breaks are escaped.
    while len(msgspec.json.encode(text)) - 2 > room:
        text = ntfy.cut(text, len(text.encode()) * 3 // 4)
    return msgspec.json.encode({**made, "text": text})


def _authority(endpoint: str) -> str:
    return endpoint.removeprefix("https://").partition("/")[0]
