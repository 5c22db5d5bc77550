"""Campaigns of generated, mutated and spoken input against one world; the tests run short ones, `__main__` long ones.

Each raises AssertionError that shows the input and what is wrong with what came of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import hypothesis
from google.protobuf import text_format
from hypothesis import strategies as st

from agentcom.v1 import attach_pb2
from tests.hostile import conversation, feed, messages, mutation, samples, verdict, world
from tests.hostile.world import World


def generated(here: World, path: str, count: int, tally: verdict.Tally, *, seed: int | None = None) -> None:
    """Messages of the method's type; without a seed the same ones each time."""
    likely = samples.likely(path, here.names).SerializeToString()
    kind = world.METHODS[path].input_type

    def one(data: st.DataObject) -> None:
        message = data.draw(messages.of(kind, here.names, likely))
        wrong = feed.one(here, path, message.SerializeToString(), tally)
        assert not wrong, f"{path}: {wrong} {here.ailment()}"

    _examples(one, count, seed)


def mutated(here: World, path: str, count: int, tally: verdict.Tally, rng: random.Random) -> None:
    """Bytes that were a request which the method serves."""
    body = samples.likely(path, here.names).SerializeToString()
    for _ in range(count):
        sent = mutation.mutated(body, rng)
        wrong = feed.one(here, path, sent, tally)
        assert not wrong, f"{path} {sent.hex()}: {wrong} {here.ailment()}"


def conversations(here: World, count: int, tally: verdict.Tally, *, seed: int | None = None) -> None:
    """Streams of sidecars that mean ill; agents are given work as soon as they say hello."""

    def one(data: st.DataObject) -> None:
        said = data.draw(conversation.of(here.names))
        error = here.run(world.converse(here.caller.channel, conversation.bodies(said, _held(here))))
        tally.note(error)
        wrong = verdict.fault(error)
        assert not wrong, f"Attach: {wrong} {here.ailment()}"

    _examples(one, count, seed)


def garbled(here: World, count: int, tally: verdict.Tally, rng: random.Random) -> None:
    """Streams of which one message is no message any more."""
    hello = text_format.Parse(samples.HELLO, attach_pb2.AttachRequest()).SerializeToString()
    beat = attach_pb2.AttachRequest(heartbeat=attach_pb2.Heartbeat()).SerializeToString()
    report = attach_pb2.AttachRequest(seq=1)
    report.report.holding.task, report.report.holding.generation = here.names.of("tasks")[0], 1
    report.report.failed.failure.reason = "X"
    for _ in range(count):
        said = [hello, beat, report.SerializeToString(), beat]
        at = rng.randrange(len(said))
        said[at] = mutation.mutated(said[at], rng)
        error = here.run(world.converse(here.caller.channel, said))
        tally.note(error)
        wrong = verdict.fault(error)
        assert not wrong, f"Attach: {wrong} {[one.hex() for one in said]} {here.ailment()}"


def _held(here: World) -> list[tuple[str, int]]:
    """What is held now, as (task, generation)."""
    tasks = here.caller.hub.store.read(lambda reader: [t for agent in world.AGENTS for t in reader.held_by(agent)])
    return [(f"tasks/{task.id}", task.generation) for task in tasks]


def _examples(one: Callable[[Any], None], count: int, seed: int | None) -> None:
    """Not shrunk: each example costs calls, and the hub is not the same after one."""
    chosen = hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=seed is None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    made = chosen(hypothesis.given(st.data())(one))
    (made if seed is None else hypothesis.seed(seed)(made))()
