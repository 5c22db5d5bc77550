"""Who calls: the bearer token of a call becomes a principal, the table of scopes decides what it may call, and its
conduct decides whether it may call now.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from typing import Any, Final

from hub.core import limit, scope
from hub.core.limit import Action
from hub.engine.desk import conduct
from hub.engine.desk.verifier import Verifier
from hub.rpc import caller as callers
from kit import channel, errors, interceptors, principal, version

LOCAL = principal.Principal(conduct.LOCAL, "admin")
"""Whoever calls without a token where none is required: the person at this machine."""

FORWARDED: Final = frozenset({"forwarded", "x-forwarded-for", "x-real-ip", "via"})
"""What proxies add. A call with one of these came from elsewhere, although it came over the loopback."""

NETWORK_BITS: Final = 64
"""Of an IPv6 address: one machine may call from all addresses of such a network."""


HUB: Final = version.Node("hub", version.VERSION)

ANY_VERSION: Final = frozenset(
    scope.PACKAGE + name for name in ("HubService/GetHub", "HubService/GetCaller", "AgentService/Attach")
)
"""Open to clients of any version: what tells them what this hub is, and the stream, whose hello is judged with a note
on its agent."""


class Door:
    """Lets callers in. `required` false: without a token everything is open, which is for the loopback only."""

    def __init__(self, verifier: Verifier, behaviour: conduct.Conduct, *, required: bool) -> None:
        self._verifier = verifier
        self._conduct = behaviour
        self._required = required

    def authenticate(self, context: interceptors.Context, method: str) -> principal.Principal:
        """The principal of a call. Raises Unauthenticated, Forbidden, Exhausted, or IllegalState (its version)."""
        caller = ""
        try:
            metadata = context.invocation_metadata()
            secret = channel.bearer_token(metadata)
            if secret is None:
                who = self._without_token(context, metadata, method)
                caller = who.name
                _admit_version(metadata, method)
                self._conduct.admit(caller, limit.ACTIONS.get(method, Action.WRITE))
                return who
            token = self._verifier.verify(secret)
            caller = f"tokens/{token.id}"
            scope.admit(method, token.scope)
            _admit_version(metadata, method)
            self._conduct.admit(caller, limit.ACTIONS.get(method, Action.WRITE))
            return principal.Principal(caller, token.scope.name.lower(), token.agent or None, token.expires_at)
        except errors.Problem as problem:
            raise self._conduct.blame(caller or peer_of(context), method, problem) from problem.__cause__

    def observe(
        self, _context: interceptors.Context, method: str, who: principal.Principal, problem: errors.Problem
    ) -> errors.Problem:
        """A caller that was let in was refused later on."""
        return self._conduct.blame(who.name, method, problem)

    def charge(self, who: principal.Principal, count: int) -> None:
        """A request to submit names so many tasks, of which one is paid for. Raises Exhausted."""
        if count > 1:
            self._conduct.admit(who.name, Action.SUBMIT, count - 1)

    def _without_token(self, context: interceptors.Context, metadata: Any, method: str) -> principal.Principal:
        if not self._required and not any(key in FORWARDED for key, _ in metadata or ()):
            return LOCAL
        if method in scope.OPEN:
            return principal.Principal(peer_of(context), callers.NOBODY)
        raise errors.Unauthenticated("a token is required: authorization: Bearer <token>", reason="TOKEN_REQUIRED")


def _admit_version(metadata: Any, method: str) -> None:
    node = version.told(metadata)
    if node is not None and method not in ANY_VERSION:
        version.admit(HUB, node)


def charges(door: Door) -> dict[str, interceptors.Charge]:
    """What the methods cost that submit more than one task."""
    return {
        f"{scope.PACKAGE}TaskService/BatchCreateTasks": lambda who, ask: door.charge(who, len(ask.specs)),
        f"{scope.PACKAGE}GoalService/CreateGoal": lambda who, ask: door.charge(who, len(ask.goal.plan.tasks)),
    }


def peer_of(context: interceptors.Context) -> str:
    """The name of a caller without a token: `peer:{address}`. Only while the call lives: gRPC crashes on it later."""
    return conduct.PEER + address_of(context.peer())


def address_of(peer: str) -> str:
    """The address in gRPC's name of a peer (`ipv4:127.0.0.1:5`, `ipv6:%5B::1%5D:5`); a network for IPv6."""
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return kind or "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.ip_network((address, NETWORK_BITS), strict=False))
    return str(address)
