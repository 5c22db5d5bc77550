"""Seeds that once failed: kept in a file, run first, for ever."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("kept_seeds.toml")


class Kept(NamedTuple):
    """One of them."""

    seed: int
    found: str


def load() -> list[Kept]:
    """All, oldest first."""
    if not FILE.exists():
        return []
    return [Kept(int(one["seed"]), str(one["found"])) for one in tomllib.loads(FILE.read_text()).get("kept", [])]


def keep(seed: int, found: str) -> None:
    """Remember a seed that failed just now."""
    if seed in {one.seed for one in load()}:
        return
    quoted = found.replace("\\", "\\\\").replace('"', '\\"').splitlines()[0][:200]
    with FILE.open("a") as file:
        file.write(f'\n[[kept]]\nseed = {seed}\nfound = "{quoted}"\n')
