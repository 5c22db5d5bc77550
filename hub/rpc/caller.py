"""Who calls, as the services need it: the identity of a request, and whom a caller may speak for."""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf import field_mask_pb2
from google.protobuf import message as protobuf

from hub.core import scope
from hub.engine.script import requests
from kit import errors, principal

NOBODY = "none"
"""Scope of a caller without a token, where one is required."""


def request(method: str, id: str, *parts: protobuf.Message | bytes) -> requests.Request:
    """What tells this request from another; the hash is made only where there is an id to protect."""
    made = b""
    if id:
        made = requests.fingerprint(
            *(part if isinstance(part, bytes) else part.SerializeToString(deterministic=True) for part in parts)
        )
    return requests.Request(principal.current().name, method, id, made)


def speaks_for(agent: str) -> str:
    """The agent, when the caller may speak for it: an agent's own token speaks only for itself. Raises Forbidden."""
    own = principal.current().agent
    if own is not None and own != agent:
        raise errors.Forbidden(
            f"the token belongs to agents/{own} and does not speak for agents/{agent}",
            reason="OTHER_AGENT",
            metadata={"agent": f"agents/{agent}"},
        )
    return agent


def must_operate(what: str) -> None:
    """Raise Unauthenticated or Forbidden unless the caller is an operator: for what a table of methods cannot tell."""
    caller = principal.current()
    if caller.scope == NOBODY:
        raise errors.Unauthenticated(f"{what} needs a token", reason="TOKEN_REQUIRED")
    if caller.scope not in scope.OPERATORS:
        raise errors.Forbidden(
            f"{what} is not open to the scope {caller.scope}", reason="SCOPE", metadata={"scope": caller.scope}
        )


def check_mask(mask: field_mask_pb2.FieldMask, may_change: Collection[str]) -> frozenset[str]:
    """The fields to change; `*` is all that may change. Raises Invalid for others, and for none."""
    known = ", ".join(sorted(may_change))
    if not mask.paths:
        raise errors.Invalid.of("update_mask", f"must name at least one of {known}")
    wrong = [path for path in mask.paths if path != "*" and path not in may_change]
    if wrong:
        raise errors.Invalid(
            violations=[
                errors.Violation("update_mask", f"{path!r} cannot be changed; may be {known}") for path in wrong
            ]
        )
    return frozenset(may_change) if "*" in mask.paths else frozenset(mask.paths)
