"""`python -m hub`: a hub in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hub import app, config, crash, offline
from kit import errors, logs, signals
from kit.version import VERSION

#: The process ended as it was asked to.
EXIT_GOOD = 0
#: The configuration is wrong, or what it names cannot be used: folder, port, store.
EXIT_USAGE = 2

#: A stop that takes this much longer than its grace is cancelled.
STOP_MARGIN_S = 10.0

#: Garbage is looked for when this many more objects were made than freed. Nearly all that the hub makes is freed by its
#: reference counts; at Python's 700 a busy hub looked thousands of times a second and found nothing (measured: 3 to
# 6 %).
GC_THRESHOLDS = (50_000, 50, 100)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in offline.COMMANDS:
        return offline.main(words)
    chosen = _parser().parse_args(arguments)
    try:
        settings = config.load(
            chosen.config,
            os.environ,
            {
                "server.listen": chosen.listen,
                "data": chosen.data,
                "store.kind": chosen.store,
                "log.level": chosen.log_level,
            },
        )
        logs.begin(settings.log)
        with asyncio.Runner(loop_factory=_loop_factory(settings.server.event_loop)) as runner:
            return runner.run(_run(settings))
    except errors.Problem as problem:
        sys.stderr.write(f"agentcom-hub: {problem.message}\n")
        return EXIT_USAGE


async def _run(settings: config.Config) -> int:
    hub = app.Hub(settings, crashed=crash.begin(settings.data))
    await hub.start()
    gc.freeze()  # what is there now stays to the end
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        return await signals.run(hub.run, deadline_s=settings.server.stop_grace_s + STOP_MARGIN_S)
    finally:
        await hub.close()
        crash.end(settings.data)


def _loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if kind == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if kind == "uvloop":
            raise errors.Invalid(
                "server.event_loop is uvloop, which is not installed", reason="BAD_CONFIGURATION"
            ) from None
        return None
    return uvloop.new_event_loop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentcom-hub",
        description="Keeps the queue of tasks, pushes work to sidecars, merges what they bring.",
        epilog=f"A store that no hub has open is looked after by: agentcom-hub {'|'.join(offline.COMMANDS)} --help. "
        f"Every key of the configuration can be set by environment, e.g. {config.PREFIX}_SERVER_LISTEN, "
        f"{config.PREFIX}_STORE_KIND.",
    )
    parser.add_argument("--version", action="version", version=f"agentcom-hub {VERSION}", help="say it and leave")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file")
    parser.add_argument("--listen", metavar="ADDR", help="host:port; port 0 lets the system choose")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of the store")
    parser.add_argument("--store", choices=("lmdb", "memory"), help="kind of store")
    parser.add_argument("--log-level", choices=tuple(logs.LEVELS), help="what is logged")
    return parser


if __name__ == "__main__":
    sys.exit(main())
