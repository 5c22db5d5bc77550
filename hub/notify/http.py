"""One POST to one address: within a time, no redirect followed, nothing of the answer kept but its status.

The address of a webhook is the operator's own. That of a push subscription comes from a browser: its connections go
only to public addresses, judged by what the name resolves to at that moment (`PublicBackend`), so that nobody can make
the hub talk to the machines around it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpcore2

from hub.core.notices import notice, subscription
from kit import errors

ADDRESSES_MAX: Final = 4
"""Of one name: how many are tried."""
REFUSALS: Final = frozenset({400, 405, 411, 413, 414, 415, 422, 431})
"""The other side dislikes this very request; anything else may be mended by whoever runs it."""


class Reply(NamedTuple):
    """What is used of an answer."""

    status: int
    retry_after_s: float | None


class Poster:
    """Sends requests. A connection serves one of them: notices are rare."""

    def __init__(self, *, timeout_s: float, ca_file: Path | None = None, public: bool = False) -> None:
        """Raises Invalid when `ca_file` cannot be read."""
        self._timeout_s = timeout_s
        self._context = tls_context(ca_file)
        self._public = public

    async def post(self, url: str, headers: Mapping[str, str], content: bytes) -> Reply:
        """Send it; the answer, whatever its status. Raises Failed when there is none in time."""
        backend = PublicBackend() if self._public else httpcore2.AnyIOBackend()
        host = httpcore2.URL(url).host.decode("ascii", "replace")
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                httpcore2.AsyncConnectionPool(ssl_context=self._context, network_backend=backend) as pool,
                pool.stream(
                    "POST", url, headers=[*headers.items()], content=content, extensions={"timeout": limits}
                ) as response,
            ):
                return Reply(response.status, _retry_after(response.headers))
        except (TimeoutError, httpcore2.TimeoutException) as error:
            raise notice.Failed(f"{host} did not answer within {self._timeout_s:g} s") from error
        except httpcore2.ConnectError as error:
            raise notice.Failed(f"{host} cannot be reached: {error}") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError, ssl.SSLError) as error:
            # The text of these may quote what was sent, with its secrets.
            raise notice.Failed(f"{host}: {type(error).__name__}") from error


class PublicBackend(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses only."""

    def __init__(self) -> None:
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """To the first address of the name that answers. Raises ConnectError."""
        last: Exception = httpcore2.ConnectError("it has no public address")
        for address in await public_addresses(host, port):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        raise last


async def public_addresses(host: str, port: int) -> Sequence[str]:
    """The public addresses that a name has now. Raises ConnectError when it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore2.ConnectError("its name does not resolve") from error
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    good = [address for address in addresses if subscription.is_public(address)]
    if not good:
        raise httpcore2.ConnectError("it has no public address")
    return good[:ADDRESSES_MAX]


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Checks certificates with the authorities of the system and this one. Raises Invalid."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise errors.Invalid(
                f"notify.ca_file {ca_file}: {error.strerror or 'no certificates in it'}", reason="BAD_CONFIGURATION"
            ) from error
    return context


def must_be_taken(host: str, reply: Reply) -> None:
    """Raise Failed or Refused unless the answer says that the notice was taken."""
    status = reply.status
    if 200 <= status < 300:
        return
    hint = " (a redirect is not followed)" if 300 <= status < 400 else ""
    kind = notice.Refused if status in REFUSALS else notice.Failed
    raise kind(f"{host} answered {status}{hint}", retry_delay_s=reply.retry_after_s)


def _retry_after(headers: Sequence[tuple[bytes, bytes]]) -> float | None:
    """Seconds; a date is left out, for it needs the other side's clock."""
    value = next((value for name, value in headers if name.lower() == b"retry-after"), b"")
    return float(value) if value.isdigit() and len(value) < 8 else None
