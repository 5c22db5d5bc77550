"""`python -m tests.bench`: every row of the table of speed, measured in one run; see docs/benchmarks.md.

It asserts nothing about the clock: it exits with 0 unless something breaks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import uvloop

# Before grpc is loaded: it tells of every connection that a server ends, on stderr.
os.environ.setdefault("GRPC_VERBOSITY", "error")

from tests.bench import backlog, figures, idle, telemetry, throughput
from tests.bench.process import ROOT
from tests.bench.run import Run

GROUPS = (throughput, telemetry, idle, backlog)
ROWS = tuple(row for group in GROUPS for row in group.ROWS)


def main() -> None:
    """Read the arguments, measure, print the table, write the file."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes, under two minutes")
    parser.add_argument("--only", action="append", default=[], choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--folder", type=Path, default=ROOT / ".agentcom", help="where the stores are (on a real disk)")
    parser.add_argument("--json", type=Path, default=ROOT / "bench-result.json", help="where the figures go")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.folder))
    run = Run(folder, arguments.quick, frozenset(arguments.only))
    began = time.time()
    try:
        uvloop.run(measure(run))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        arguments.json.write_text(json.dumps(result(run, began), indent=2, default=dataclasses.asdict) + "\n")
    print(f"\n{machine_line()}\n\n{figures.table(run.rows)}")


async def measure(run: Run) -> None:
    """The groups of rows that are wanted, one after the other."""
    for group in GROUPS:
        if run.wants(*group.ROWS):
            await group.measure(run)


def result(run: Run, began: float) -> dict[str, Any]:
    """Everything that is worth keeping of a run."""
    return {
        "begin_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 1),
        "quick": run.quick,
        "machine": machine_line(),
        "rows": [row.as_json() for row in run.rows],
    }


def machine_line() -> str:
    """What the figures depend on."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("grpcio", "lmdb", "protobuf"))
    system = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{system}, {versions}; load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()
