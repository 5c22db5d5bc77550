"""The push subscription: a browser that asked to be told, and which addresses a browser may name.

Its address comes from outside, and the hub will send requests to it: so it may only lead to a public host, on the port
of https, and what the name of the host resolves to is held to the same at every connection.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from kit import errors

COUNT_MAX: Final = 100
"""Browsers of all people of one hub."""
OF_ONE_MAX: Final = 10
"""Of one person: a phone, a tablet, a few machines with a few browsers each."""

_ENDPOINT: Final = re.compile(
    r"https://(?P<host>[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!-~]*)?",
    re.IGNORECASE,
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAMES: Final = ("localhost", ".localhost", ".local", ".internal", ".home.arpa")


class Subscription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A browser that is told."""

    id: str
    principal: str
    endpoint: str
    """Whoever knows it can reach the browser's push service in its name: never shown, never logged."""
    public_key: bytes
    auth: bytes
    made_for: bytes
    """Our own public key at that time: with another one the push service refuses us."""
    display_name: str = ""
    created_at: float = 0.0

    @property
    def sink(self) -> str:
        """Name of its lane."""
        return f"webpush/{self.id}"

    @property
    def host(self) -> str:
        """Of its push service."""
        return host_of(self.endpoint)


def check(endpoint: str, *, private: bool) -> None:
    """Raise Invalid for an address that no public push service has; `private` lets other hosts and ports in."""
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None:
        raise errors.Invalid.of("endpoint", "must be https://host/path, without a user name", reason="BAD_ENDPOINT")
    if private:
        return
    if found["port"] not in (None, "443"):
        raise errors.Invalid.of("endpoint", f"has port {found['port']}, must have 443", reason="BAD_ENDPOINT")
    host = found["host"].lower().strip("[]")
    address = _address(host)
    if address is None and (host.endswith(_LOCAL_NAMES) or "." not in host or host.rpartition(".")[2].isdigit()):
        raise errors.Invalid.of("endpoint", f"{host} is not the name of a public host", reason="BAD_ENDPOINT")
    if address is not None and not is_public(host):
        raise errors.Invalid.of("endpoint", f"{host} is not a public address", reason="BAD_ENDPOINT")


def host_of(endpoint: str) -> str:
    """Its host, for people; empty when it has none."""
    found = _ENDPOINT.fullmatch(endpoint)
    return found["host"].lower() if found is not None else ""


def is_public(text: str) -> bool:
    """Does this address lead out to the internet, by whatever way it is spelled?"""
    address = _address(text)
    if address is None:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if address.sixtofour is not None or address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def room(known: list[Subscription], principal: str) -> None:
    """Raise Exhausted when there is no room for one more of this person."""
    own = sum(one.principal == principal for one in known)
    if own >= OF_ONE_MAX:
        raise errors.Exhausted(
            f"{principal} has {own} browsers, at most {OF_ONE_MAX} are told: remove one", reason="SUBSCRIPTIONS_FULL"
        )
    if len(known) >= COUNT_MAX:
        raise errors.Exhausted(
            f"the hub tells {len(known)} browsers, at most {COUNT_MAX}: remove one", reason="SUBSCRIPTIONS_FULL"
        )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
