"""The webhook: a notice as JSON, signed as https://www.standardwebhooks.com has it.

webhook-id         the id of the notice: the same at every try
webhook-timestamp  when this try was made, in seconds since the epoch
webhook-signature  "v1," and the base64 of HMAC-SHA256(key, "{id}.{timestamp}.{body}")
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from hub.core.notices.notice import Notice
from hub.notify import http
from kit import errors

KEY_PREFIX: Final = "whsec_"
KEY_BYTES_MIN: Final = 16


class Webhook:
    """One address that is told."""

    def __init__(
        self, poster: http.Poster, url: str, *, host: str, key: bytes | None, link: str, now: Callable[[], float]
    ) -> None:
        """`key` None: not signed. `link` is put before the path of a notice; empty: no links."""
        self._poster = poster
        self._url = url
        self._key = key
        self._link = link
        self._now = now
        #: For people.
        self.target = host

    async def send(self, notice: Notice) -> None:
        """Send it once. Raises Failed."""
        content = body(notice, self._link)
        stamp = str(int(self._now()))
        headers = {
            "content-type": "application/json",
            "user-agent": "AgentCom",
            "webhook-id": notice.id,
            "webhook-timestamp": stamp,
        }
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, notice.id, stamp, content)
        http.must_be_taken(self.target, await self._poster.post(self._url, headers, content))


def body(notice: Notice, link: str) -> bytes:
    """What is sent."""
    at = datetime.fromtimestamp(notice.at, UTC).isoformat(timespec="seconds")
    data = {
        "id": notice.id,
        "title": notice.title,
        "text": notice.text,
        "url": f"{link}{notice.path}" if link else "",
        "path": notice.path,
        "notices": notice.stands_for,
    }
    return msgspec.json.encode({"type": f"notice.{notice.kind.name.lower()}", "timestamp": at, "data": data})


def signature(key: bytes, id: str, stamp: str, content: bytes) -> str:
    """Proves that a notice comes from who has the key, and when."""
    digest = hmac.new(key, f"{id}.{stamp}.".encode() + content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def key_of(secret: str) -> bytes:
    """The key in the text of a secret. Raises Invalid."""
    if not secret.startswith(KEY_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(KEY_PREFIX), validate=True)
    except binascii.Error as error:
        raise errors.Invalid(
            "notify.webhook.secret_file: what follows whsec_ is not base64", reason="BAD_CONFIGURATION"
        ) from error
    if len(key) < KEY_BYTES_MIN:
        raise errors.Invalid(
            f"notify.webhook.secret_file: the key has fewer than {KEY_BYTES_MIN} bytes", reason="BAD_CONFIGURATION"
        )
    return key
