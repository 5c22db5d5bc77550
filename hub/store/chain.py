"""The hash chain of the event log: how an event is chained when it is appended, and how the chain is checked.

Theory. `hash = blake2b-128(hash before it + encoded event without its hash)`. An event is encoded as an array whose
last element is its hash, so the bytes before that element are what is hashed, and checking needs no second encoding:
it cuts the hash off the stored bytes. Whoever changes, drops or reorders an event breaks every hash behind it;
cutting off the end is found because the newest position and hash are also in the commit record.

The oldest events are forgotten in time (retention). An anchor record then says which one went last, and its hash: the
oldest that is kept follows from that, so what is left proves itself as before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from hub.core.event import Event
from hub.store import codec, keys
from kit import errors

if TYPE_CHECKING:
    from hub.store.reader import OrderedReader

HASH_BYTES: Final = 16
_EMPTY_HASH: Final = b"\xc4\x00"  # msgpack: binary of 0 bytes
_HASH_HEAD: Final = b"\xc4\x10"  # msgpack: binary of 16 bytes
_TAIL_BYTES: Final = len(_HASH_HEAD) + HASH_BYTES

CHUNK: Final = 1_000
"""Events checked in one snapshot: a long one would hold back the reuse of pages, and reads of others."""


def link(event: Event, previous: bytes) -> tuple[Event, bytes]:
    """The event with its hash, and the record to store. `event.hash` is empty."""
    open_body = codec.encode_body(event)[: -len(_EMPTY_HASH)]
    digest = blake2b(previous + open_body, digest_size=HASH_BYTES).digest()
    linked = Event(
        position=event.position,
        at=event.at,
        type=event.type,
        subject=event.subject,
        goal=event.goal,
        actor=event.actor,
        fields=event.fields,
        hash=digest,
    )
    return linked, codec.seal(codec.EVENT.tag, open_body + _HASH_HEAD + digest)


def verify(read: Callable[[Callable[[OrderedReader], int]], int], after: int, limit: int) -> int:
    """Check up to `limit` events behind `after`, or behind what is not kept any more; the last good position.

    Raises DataLoss where the chain is broken.
    """
    position, left = after, limit
    while left > 0:
        count = min(CHUNK, left)
        good = read(partial(_verify_chunk, after=position, limit=count))
        # Retention may have moved on since the chunk before: what it took needs no check any more.
        if good < position + count:
            return good
        position, left = good, left - count
    return position


def _verify_chunk(reader: OrderedReader, after: int, limit: int) -> int:
    """The last good position; less than `limit` behind `after`: the log ends there, as the commit record says."""
    head, anchor = reader.head(), reader.anchor()
    if anchor.position > head.position:
        raise _broken(anchor.position, f"is where the log begins, and it ends at {head.position}")
    for key in reader.kv.keys(keys.EVENT, keys.event(anchor.position + 1), 1) if anchor.position else ():
        raise _broken(keys.number_at(key, 1), f"is there, though the log begins behind {anchor.position}")
    if after < anchor.position:
        after = anchor.position
    previous = anchor.hash if after == anchor.position else _hash_at(reader, after)
    position = after
    for _, raw in reader.kv.items(keys.event(after + 1), keys.end(keys.EVENT), limit):
        position += 1  # were one missing, the next one would not follow from the one before
        body = _body(position, raw)
        digest = blake2b(previous + body[:-_TAIL_BYTES], digest_size=HASH_BYTES).digest()
        if body[-HASH_BYTES:] != digest:
            raise _broken(position, "does not follow from the one before it")
        previous = digest
    ends = position - after < limit
    if ends and (position != max(head.position, after) or (position and previous != head.hash)):
        raise _broken(position + 1, "is missing, or the newest one was replaced")
    return position


def _hash_at(reader: OrderedReader, position: int) -> bytes:
    raw = reader.kv.get(keys.event(position))
    if raw is None:
        raise _broken(position, "is missing")
    return _body(position, raw)[-HASH_BYTES:]


def _body(position: int, raw: bytes) -> bytes:
    try:
        return codec.unseal(codec.EVENT.tag, raw, keys.event(position))
    except errors.DataLoss as cause:
        raise _broken(position, "is damaged") from cause


def _broken(position: int, what: str) -> errors.DataLoss:
    return errors.DataLoss(
        f"event {position} {what}", reason="CHAIN_BROKEN", metadata={"position": position, "good": position - 1}
    )
