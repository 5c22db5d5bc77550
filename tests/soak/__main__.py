"""`python -m tests.soak [--minutes N] [--seed N] [--keep FOLDER]`: load with mishaps, and what grows meanwhile.

Ends with 0 when nothing grows but for what retention is documented to keep, everything ended cleanly, and the oracle
found nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from kit import logs
from tests.soak import run


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual load")
    parser.add_argument("--keep", type=Path, default=None, help="keep logs, store and samples in this folder")
    words = parser.parse_args()
    seed = random.randrange(1_000_000) if words.seed is None else words.seed
    logs.configure(level="warning")
    print(f"soak of {words.minutes:g} min, seed {seed} (replay: python -m tests.soak --seed {seed})", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        folder = words.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = asyncio.run(run.run(folder, words.minutes * 60, seed, share=words.share))
    print(run.text(outcome))
    print("good" if outcome.is_good else "NOT good")
    return not outcome.is_good


if __name__ == "__main__":
    sys.exit(main())
