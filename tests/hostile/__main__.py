"""Hostile input for as long as you like: `python -m tests.hostile --minutes 10 --seed 7`. Prints what was answered."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import secrets
import tempfile
import time
from pathlib import Path

from tests.hostile import attacks, campaign, siege, verdict, world
from tests.support.fleet import Fleet

EXAMPLES = 200
"""Of each sort for each method in each round; a round is some minutes."""


def main() -> None:
    """Rounds over all methods, and then the port, until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--method", default="", help="only methods whose name contains this")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    until = time.monotonic() + chosen.minutes * 60
    for number in itertools.count():
        seed = chosen.seed + number
        for path in world.METHODS:
            if chosen.method in path:
                _method(path, seed, ("memory", "lmdb")[number % 2])
            if time.monotonic() > until:
                return
        if not chosen.method:
            asyncio.run(_port(seed))


def _method(path: str, seed: int, store: str) -> None:
    tally, rng, began = verdict.Tally(), random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, world.made(Path(folder), store__kind=store) as here:
        if path == world.ATTACH:
            campaign.conversations(here, EXAMPLES, tally, seed=seed)
            campaign.garbled(here, EXAMPLES, tally, rng)
        else:
            campaign.generated(here, path, EXAMPLES, tally, seed=seed)
            campaign.mutated(here, path, EXAMPLES, tally, rng)
        wrong = here.ailment()
    assert not wrong, f"seed {seed} {path}: {wrong}"
    print(f"seed {seed} {store} {path.rpartition('/')[2]} {time.monotonic() - began:.1f} s: {tally}", flush=True)


async def _port(seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder))
        try:
            await fleet.start_hub()
            host, _, number = fleet.address.rpartition(":")
            assert fleet.hub is not None
            for attack in (*attacks.SHORT, *attacks.HELD):
                client = siege.Client(fleet.address)
                async with siege.watched(fleet.hub.pid, client):
                    count = await attack(attacks.Port(host, int(number)), rng)
                worst_ms = max(client.latencies_s) * 1000
                print(f"seed {seed} {attack.__name__}: {count}, worst {worst_ms:.0f} ms, {siege.size(fleet.hub.pid)}")
        finally:
            await fleet.close()


if __name__ == "__main__":
    main()
