"""Conversations of a sidecar that means ill: a hello that is served, and then anything, in or out of order."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import text_format
from hypothesis import strategies as st

from agentcom.v1 import attach_pb2
from tests.hostile import messages, samples

SEQUENCED: Final = ("report", "goodbye")
LENGTH_MAX: Final = 12


Said = tuple[Any, int | None]
"""A message, and the number of the holding that it is to speak of: which those are is known when it is sent."""


def of(names: messages.Names) -> st.SearchStrategy[list[Said]]:
    """Conversations."""

    @st.composite
    def drawn(draw: messages.Draw) -> list[Said]:
        opening = text_format.Parse(samples.HELLO, attach_pb2.AttachRequest())
        said: list[Said] = []
        if draw(st.integers(0, 9)):
            opening.hello.agent = draw(st.sampled_from(names.of("agents")))
            said.append((opening, None))
        seq = 0
        for _ in range(draw(st.integers(0, LENGTH_MAX))):
            maker = messages.Maker(
                draw, names, draw(st.sampled_from((0, 0, 0, 0, 3, 40))), draw(st.sampled_from(messages.DENSITY))
            )
            message: Any = maker.message(attach_pb2.AttachRequest.DESCRIPTOR)
            about = draw(st.one_of(st.none(), st.integers(0, 99)))
            if draw(st.integers(0, 19)):
                seq = _number(message, seq)
                message.ack = min(message.ack, draw(st.integers(0, 3)))
            said.append((message, about))
        return said

    return drawn()


def bodies(said: list[Said], held: list[tuple[str, int]]) -> list[bytes]:
    """As they are sent; `held` is what somebody holds now, as (task, generation)."""
    for message, about in said:
        if held and about is not None:
            _speak_of(message, held[about % len(held)])
    return [message.SerializeToString() for message, _ in said]


def _number(message: attach_pb2.AttachRequest, seq: int) -> int:
    """Give it the sequence number that it ought to have; the last one given."""
    if message.WhichOneof("body") == "batch":
        message.seq = 0
        for one in message.batch.messages:
            seq = _number(one, seq)
        return seq
    sequenced = message.WhichOneof("body") in SEQUENCED
    message.seq = seq + 1 if sequenced else 0
    return seq + sequenced


def _speak_of(message: attach_pb2.AttachRequest, held: tuple[str, int]) -> None:
    body = message.WhichOneof("body")
    if body in ("report", "log"):
        holding = getattr(message, body).holding
        holding.task, holding.generation = held
    elif body in ("heartbeat", "hello"):
        getattr(message, body).holdings.add(task=held[0], generation=held[1])
