"""ntfy: a notice is published as JSON. Its id is the id of a sequence, under which a phone shows a message once."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hub.core.notices.notice import Kind, Notice
from hub.notify import http

MESSAGE_BYTES_MAX: Final = 4_000
"""A longer message becomes an attachment; the server's bound is 4,096."""

_PRIORITIES: Final = {Kind.URGENT: 4, Kind.SUMMARY: 4, Kind.DIGEST: 2, Kind.TEST: 3}
_TAGS: Final = {Kind.URGENT: "warning", Kind.SUMMARY: "warning", Kind.DIGEST: "clipboard", Kind.TEST: "test_tube"}


class Ntfy:
    """One topic that is told."""

    def __init__(self, poster: http.Poster, url: str, *, host: str, token: str | None, link: str) -> None:
        """`url` ends with the topic. `token` None: the topic is open."""
        self._poster = poster
        base, _, self._topic = url.rpartition("/")
        self._url = f"{base}/"
        self._token = token
        self._link = link
        #: For people; a topic is a secret.
        self.target = host

    async def send(self, notice: Notice) -> None:
        """Send it once. Raises Failed."""
        made: dict[str, Any] = {
            "topic": self._topic,
            "title": notice.title,
            "message": cut(notice.text, MESSAGE_BYTES_MAX),
            "priority": _PRIORITIES[notice.kind],
            "tags": [_TAGS[notice.kind]],
            "sequence_id": notice.id,
        }
        if self._link:
            made["click"] = f"{self._link}{notice.path}"
        headers = {"content-type": "application/json", "user-agent": "AgentCom", "x-sequence-id": notice.id}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        reply = await self._poster.post(self._url, headers, msgspec.json.encode(made))
        http.must_be_taken(self.target, reply)


def cut(text: str, bytes_max: int) -> str:
    """As much of a text as has room, no character cut in two."""
    data = text.encode()
    return text if len(data) <= bytes_max else f"{data[: bytes_max - 3].decode(errors='ignore')}…"
