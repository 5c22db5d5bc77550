"""What opens the hub, read again for each connection: the token's file and the files of TLS.

So a token or a certificate is replaced while the sidecar works: the next connection shows the new one. When a file
cannot be read just then, what was read last is used, and the log says so.
"""

from __future__ import annotations

import grpc

from kit import channel, errors, logs, version
from sidecar.config import Settings

log = logs.get(__name__)

Metadata = tuple[tuple[str, str], ...]


class Keys:
    """The keys of one sidecar."""

    def __init__(self, settings: Settings, address: channel.Address) -> None:
        """Read them. Raises Invalid when a file cannot be read."""
        self._settings = settings
        self._address = address
        self._tls = settings.tls()
        self._token = settings.token()

    def dial(self) -> grpc.aio.Channel:
        """A fresh connection."""
        try:
            self._tls = self._settings.tls()
        except errors.Invalid as problem:
            log.error("tls.unreadable", problem=problem.message)
        return channel.open_channel(self._address, self._tls)

    def metadata(self, enrolled: str) -> Metadata:
        """Our version, and what proves who we are: the configured token, or the one of the enrolment. Raises Invalid
        when it must not be sent in the clear.
        """
        try:
            self._token = self._settings.token()
        except errors.Invalid as problem:
            log.error("token.unreadable", problem=problem.message)
        plaintext = self._settings.hub.plaintext
        proof = channel.token_metadata(self._token or enrolled, self._address, plaintext=plaintext)
        return (*version.metadata("sidecar"), *proof)
