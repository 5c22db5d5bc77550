"""Every RPC fed with bytes that are no message any more: refused or served, nothing lost, and no memory kept."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from tests.hostile import campaign, mutation, samples, verdict, world

BODIES = 40
"""For each method."""
STREAMS = 80
MEMORY_ROUNDS = 25
GROWTH_MIB_MAX = 24
"""Between the first and the last third of some thousand requests; a leak of a message of 10 KB each would be more."""


@pytest.fixture
def here(tmp_path):
    with world.made(tmp_path) as made:
        yield made


@pytest.mark.parametrize("path", [*world.UNARY, *world.WATCHES], ids=lambda path: path.rpartition("/")[2])
def test_mutated_bytes_are_served_or_refused_and_a_refusal_changes_nothing(here, path, rng):
    tally = verdict.Tally()
    campaign.mutated(here, path, BODIES, tally, rng)
    assert not here.ailment()
    print(f"{path}: {tally}")


def test_mutated_bytes_on_attach_end_the_stream_with_a_reason_or_are_taken(here, rng):
    tally = verdict.Tally()
    campaign.garbled(here, STREAMS, tally, rng)
    assert not here.ailment()
    print(f"Attach: {tally}")


def test_thousands_of_mutated_requests_leave_no_memory_behind(here, rng):
    bodies = {path: samples.likely(path, here.names).SerializeToString() for path in world.UNARY if "Get" in path}
    for path in world.UNARY:
        if "Create" in path or "Lint" in path:
            bodies[path] = samples.likely(path, here.names).SerializeToString()
    resident = []
    for _ in range(MEMORY_ROUNDS):
        for path, body in bodies.items():
            for _ in range(5):
                # Noise behind a good message: it is read, looked at and refused, or served.
                sent = mutation.mutated(body, rng) + mutation.strange(b"", rng) * rng.randint(0, 200)
                here.run(world.call(here.caller.channel, path, sent))
        gc.collect()
        resident.append(resident_mib())
    third = MEMORY_ROUNDS // 3
    growth = sum(resident[-third:]) / third - sum(resident[third : 2 * third]) / third
    print(f"{MEMORY_ROUNDS * len(bodies) * 5} requests, {growth:+.1f} MiB; {resident}")
    assert growth < GROWTH_MIB_MAX


def resident_mib() -> float:
    """Memory of this process, which is the hub's, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")
