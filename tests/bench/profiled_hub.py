"""The hub under cProfile, for `BENCH_PROFILE=FOLDER make bench`: where its two threads spend their time.

The event loop's thread and the store's writer are profiled apart. Figures of such a run are two to three times slower:
read the shares, not the rates.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import sys
from pathlib import Path

from hub import __main__ as hub
from hub.store.writer import Writer

VARIABLE = "BENCH_PROFILE"
LINES = 60


def main() -> int:
    """Run the hub, then leave `loop-PID.txt` and `writer-PID.txt`, with the profiles beside them."""
    folder = Path(os.environ[VARIABLE])
    folder.mkdir(parents=True, exist_ok=True)
    profiles = {"loop": cProfile.Profile(), "writer": cProfile.Profile()}
    run = Writer._run

    def profiled(writer: Writer) -> None:
        profiles["writer"].runcall(run, writer)

    Writer._run = profiled  # type: ignore[method-assign, assignment]
    code: int = profiles["loop"].runcall(hub.main)
    for name, profile in profiles.items():
        base = folder / f"{name}-{os.getpid()}"
        profile.dump_stats(base.with_suffix(".prof"))
        with base.with_suffix(".txt").open("w") as text:
            pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(LINES)
    return code


if __name__ == "__main__":
    sys.exit(main())
