"""Request ids: the same id from the same caller is answered with what it made the first time, for a window.

Looked up and written inside the transaction that does the work, so that two copies of one request make one thing
however they race, and a crash between the work and its answer is not possible.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from hub.store.base import Answer, Reader, Txn
from kit import errors


class Request(NamedTuple):
    """What tells one request from another."""

    principal: str
    method: str
    id: str
    """Empty: the caller asked for no protection."""
    fingerprint: bytes
    """Hash of the request without its id."""


def fingerprint(*parts: bytes) -> bytes:
    """The hash of a request, given its serialized parts."""
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).digest()


def answered(reader: Reader, request: Request, now: float) -> str | None:
    """The name(s) that this request was answered with; None when it is new.

    Raises AlreadyExists when its id was used for another request within the window.
    """
    if not request.id:
        return None
    answer = reader.answer(request.principal, request.method, request.id)
    if answer is None or answer.expires_at <= now:
        return None
    if answer.fingerprint != request.fingerprint:
        raise errors.AlreadyExists(
            f"request id {request.id} was used for another request, which made {answer.name[:100]}",
            reason="REQUEST_ID_REUSED",
            metadata={"request_id": request.id},
        )
    return answer.name


def remember(txn: Txn, request: Request, name: str, expires_at: float) -> None:
    """Remember what a request made."""
    if request.id:
        txn.put_answer(request.principal, request.method, request.id, Answer(request.fingerprint, name, expires_at))
