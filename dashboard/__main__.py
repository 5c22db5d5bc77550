"""`python -m dashboard`: the pages, in the foreground."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import flask
from gunicorn.app.base import BaseApplication

from dashboard import app, config
from kit import errors, logs
from kit.version import VERSION

log = logs.get(__name__)

PAGE_THREADS: Final = 8
"""Threads for pages, besides one for each live page."""
STOP_GRACE_S: Final = 3
"""Live pages are cut after this; they come back by themselves."""

PARENT_LOOK_S: Final = 0.5
"""How often the process that serves looks whether the one that started it is still there."""

EXIT_GOOD: Final = 0
EXIT_PROBLEM: Final = 1
EXIT_USAGE: Final = 2


class Pages(BaseApplication):
    """The server: one process with threads, because each live page holds one."""

    def __init__(self, settings: config.Config) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        values: Mapping[str, Any] = {
            "bind": self._settings.address.target,
            "worker_class": "gthread",
            "workers": 1,
            "threads": PAGE_THREADS + self._settings.live.pages_max,
            "graceful_timeout": STOP_GRACE_S,
            "timeout": 60,
            "keepalive": 15,
            "limit_request_line": 4094,
            "limit_request_fields": 50,
            "limit_request_field_size": 8190,
            "forwarded_allow_ips": "",
            "control_socket_disable": True,
            "loglevel": "warning",
            "proc_name": "agentcom-dashboard",
        }
        for name, value in values.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)
        self.cfg.set("post_fork", lambda arbiter, _worker: _end_with(arbiter.pid))
        self.cfg.set("when_ready", lambda _arbiter: self._tell())

    def _tell(self) -> None:
        """Only now is the port bound and a Ctrl-C heard: before, this would promise too much."""
        log.info(
            "dashboard.serving", address=f"http://{self._settings.address.target}/", hub=self._settings.hub.address
        )

    def load(self) -> flask.Flask:  # type: ignore[override]  # the stub wants a bare WSGI callable; Flask is one
        """In the worker, after the fork: the connection to the hub is opened by the first page."""
        return app.make(self._settings)


def _end_with(parent: int) -> None:
    """End this process as soon as its parent has: a live page would keep a worker whose server was killed for hours."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_LOOK_S)
        os._exit(EXIT_PROBLEM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        settings = config.load(
            chosen.config,
            os.environ,
            {"hub.address": chosen.hub, "listen": chosen.listen, "log.level": chosen.log_level},
        )
        logs.begin(settings.log)
    except (errors.Invalid, errors.IllegalState) as problem:
        sys.stderr.write(f"agentcom-dashboard: {problem.message}\n")
        return EXIT_USAGE
    try:
        Pages(settings).run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_PROBLEM
    return EXIT_GOOD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentcom-dashboard",
        description="Pages over a hub: what waits, who works, what needs a person.",
        epilog=f"Every key of the configuration can be set by environment, e.g. {config.PREFIX}_LISTEN.",
    )
    parser.add_argument("--version", action="version", version=f"agentcom-dashboard {VERSION}", help="say it and leave")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file")
    parser.add_argument("--hub", metavar="ADDR", help="host:port, grpcs:// for TLS")
    parser.add_argument("--listen", metavar="ADDR", help=f"host:port of the pages (default {config.LISTEN_DEFAULT})")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
