"""`python -m sidecar`: a sidecar in the foreground; `... git`: the enforced workflow by hand; `... preflight`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from kit import errors, logs
from kit.version import VERSION
from sidecar import app, config

#: The process ended as it was asked to.
EXIT_GOOD = 0
#: It could not begin: the folder is taken, the disk or the hub refuses.
EXIT_PROBLEM = 1
#: The configuration or the command line is wrong.
EXIT_USAGE = 2
#: The hub does not want this sidecar (any more): starting it again is no help.
EXIT_REFUSED = 3
#: It was cancelled by signals.
EXIT_CANCELLED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["git"]:
            from sidecar import byhand

            return byhand.main(words[1:])
        if words[:1] == ["preflight"]:
            from sidecar import preflight

            return preflight.main(words[1:])
        return _serve(words)
    except errors.Invalid as problem:
        _complain(problem.message)
        return EXIT_USAGE
    except errors.Problem as problem:
        _complain(str(problem))
        return EXIT_PROBLEM


def _serve(words: Sequence[str]) -> int:
    chosen = _parser().parse_args(words)
    settings = config.load(
        chosen.config,
        overrides={
            "hub.address": chosen.hub,
            "agent": chosen.agent,
            "state_dir": chosen.state_dir,
            "slots": chosen.slots,
            "executors": None if chosen.executors is None else [e for e in chosen.executors.split(",") if e],
            "log.level": chosen.log_level,
        },
    )
    logs.begin(settings.log)
    try:
        end = asyncio.run(app.run(settings))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_CANCELLED
    if not end.is_good:
        _complain(f"the hub ended this agent's session for good: {end.reason}: {end.message}")
        return EXIT_REFUSED
    return EXIT_GOOD


def _complain(text: str) -> None:
    sys.stderr.write(f"agentcom-sidecar: {text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentcom-sidecar",
        description="Runs beside an agent: takes tasks from the hub, does them, checks them and reports.",
        epilog=f"Every key of the configuration can be set by environment, e.g. {config.PREFIX}_HUB_ADDRESS, "
        f"{config.PREFIX}_SLOTS. There is also: agentcom-sidecar git start-task|submit|status --help; "
        "agentcom-sidecar preflight --help",
    )
    parser.add_argument("--version", action="version", version=f"agentcom-sidecar {VERSION}", help="say it and leave")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file")
    parser.add_argument("--hub", metavar="ADDR", help=f"host:port, grpcs:// for TLS (default {config.ADDRESS_DEFAULT})")
    parser.add_argument("--agent", metavar="ID", help="the agent's id (default: as enrolled, or invented by the hub)")
    parser.add_argument("--state-dir", metavar="DIR", help="journal and identity; one sidecar a folder")
    parser.add_argument("--slots", type=int, metavar="N", help="tasks held at once (default 1)")
    parser.add_argument("--executors", metavar="NAMES", help="comma-separated (default shell)")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
