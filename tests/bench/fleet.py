"""A fleet of idle sidecars in a process of its own, which can be killed: `python -m tests.bench.fleet ADDRESS COUNT`.

It prepares (connections, agents), says `ready`, waits for a line, attaches all, says `attached`, and stays until its
standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import uvloop

from agentcom.v1 import attach_pb2
from tests.bench import hub_side

CAPABILITY = "idle"


async def stay(address: str, count: int) -> None:
    """All of it."""
    loop = asyncio.get_running_loop()

    async def line() -> None:
        await loop.run_in_executor(None, sys.stdin.readline)

    async def ready() -> None:
        print("ready", flush=True)
        await line()

    def refuse(_sidecar: hub_side.Sidecar, assign: attach_pb2.Assign) -> None:
        raise RuntimeError(f"an idle sidecar was given {assign.holding.task}")

    hellos = [hub_side.hello(f"idle-{number}", slots=1, capabilities=[CAPABILITY]) for number in range(count)]
    async with hub_side.fleet(address, hellos, refuse, ready):
        print("attached", flush=True)
        await line()


def main() -> None:
    """Read the arguments, stay."""
    parser = argparse.ArgumentParser(prog="fleet")
    parser.add_argument("address")
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    uvloop.run(stay(arguments.address, arguments.count))


if __name__ == "__main__":
    main()
