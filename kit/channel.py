"""The client's side of a connection: where the hub is, how the wire is kept honest, and who we say we are."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

import grpc

from kit import errors, wire

# gRPC's own reconnects are quick; the sidecar's slower backoff (1 s to 8 s) is about sessions, not sockets.
RECONNECT_BASE_S = 0.2
RECONNECT_CAP_S = 5.0

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", int(wire.KEEPALIVE_S * 1000)),
    ("grpc.http2.ping_timeout_ms", int(wire.PING_TIMEOUT_S * 1000)),
    ("grpc.http2.max_pings_without_data", 0),  # without this an idle stream falls silent after three pings
    ("grpc.initial_reconnect_backoff_ms", int(RECONNECT_BASE_S * 1000)),
    # grpc.min_reconnect_backoff_ms stays unset: it also bounds each attempt to connect, and a hub that a thousand
    # sidecars come back to needs longer than 200 ms for some of them.
    ("grpc.max_reconnect_backoff_ms", int(RECONNECT_CAP_S * 1000)),
    ("grpc.max_receive_message_length", wire.MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", wire.MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", wire.METADATA_BYTES_MAX),
    ("grpc.use_local_subchannel_pool", 1),  # two sidecars in one process (tests) must not share a socket
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a hub listens."""

    host: str
    port: int
    tls: bool = False

    @property
    def target(self) -> str:
        """As gRPC wants it: `host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Does what is sent there stay on this machine?"""
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class Tls:
    """What a client needs for TLS, as PEM; a certificate and key of its own make it mutual. No `ca`: the system's."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


def parse_address(text: str, *, field: str = "address") -> Address:
    """Read `host:port`, `[::1]:port`, `grpc://host:port` or `grpcs://host:port` (TLS). Raises Invalid."""
    scheme, mark, rest = text.strip().rpartition("://")
    host, colon, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if (mark and scheme not in ("grpc", "grpcs")) or not colon or not host or "/" in host:
        raise errors.Invalid.of(field, f"{text!r} is not of the form host:port, grpc://host:port or grpcs://host:port")
    if not (port.isascii() and port.isdigit() and 0 <= int(port) <= 65_535):
        raise errors.Invalid.of(field, f"{text!r} has the port {port!r}, must be a number from 0 to 65535")
    return Address(host, int(port), tls=scheme == "grpcs")


def is_loopback(host: str) -> bool:
    """Is this a loopback address (or the name localhost)? No other name is asked for: what it means may change."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    # Python began to look into IPv4-mapped addresses with 3.13.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def open_channel(address: Address, tls: Tls | None = None) -> grpc.aio.Channel:
    """A channel to a hub. Keep one open for the life of the process, and close it at the end."""
    if not address.tls:
        return grpc.aio.insecure_channel(address.target, options=OPTIONS)
    tls = tls or Tls()
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    return grpc.aio.secure_channel(address.target, credentials, options=OPTIONS)


def token_metadata(token: str | None, address: Address, *, plaintext: bool = False) -> tuple[tuple[str, str], ...]:
    """The metadata that proves who we are; give it to every call: `stub.GetTask(request, metadata=...)`.

    The same on plain and TLS channels. Raises Invalid when the token would cross a network in the clear, unless
    `plaintext` says that somebody has decided so.
    """
    if not token:
        return ()
    keep_secret(address, "a token", plaintext=plaintext)
    return (("authorization", f"Bearer {token}"),)


def keep_secret(address: Address, what: str, *, plaintext: bool = False) -> None:
    """Raise Invalid when `what` would cross a network in the clear, unless `plaintext` says that it may."""
    if not (address.tls or address.is_loopback or plaintext):
        raise errors.Invalid.of(
            "address", f"{what} is not sent to {address.target} without TLS; use grpcs://", reason="PLAINTEXT_TOKEN"
        )


def bearer_token(metadata: grpc.aio.Metadata | tuple[tuple[str, str | bytes], ...] | None) -> str | None:
    """The token in a call's metadata; None when there is none. Raises Unauthenticated when it is malformed."""
    for key, value in metadata or ():
        if key == "authorization":
            scheme, _, token = (value.decode("ascii", "replace") if isinstance(value, bytes) else value).partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise errors.Unauthenticated("the authorization header is not of the form 'Bearer <token>'")
            return token
    return None
