"""`agentcom git`: the enforced git workflow by hand, done by the sidecar's own command in a child process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

import typer

from cli import command, output
from kit import program

SETTINGS: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    "help": "The enforced git workflow by hand: git start-task TASK | submit | status (see git --help).",
    "add_help_option": False,
}


# A flag that stands before `git`, and the variable in which the sidecar's command looks for it.
HANDED_ON = (
    ("hub", command.ENV_ADDRESS),
    ("token", command.ENV_TOKEN),
    ("token_file", command.ENV_TOKEN_FILE),
    ("ca_file", command.ENV_CA_FILE),
    ("certificate_file", command.ENV_CERTIFICATE_FILE),
    ("key_file", command.ENV_KEY_FILE),
)


def git(context: typer.Context) -> None:
    """Run `agentcom-sidecar git ...` with the same arguments and leave with its exit code."""
    before = context.obj or {}
    words = ["git", *context.args]
    if before.get("format") is output.Format.JSON and context.args:
        words += ["--output", "json"]

    def run() -> int:
        done = subprocess.run([*program.node("sidecar"), *words], env=environment(before, os.environ), check=False)
        return done.returncode if done.returncode >= 0 else 128 - done.returncode

    command.ending(run)


def environment(before: Mapping[str, Any], ours: Mapping[str, str]) -> dict[str, str]:
    """Ours, with the flags that were given before `git`."""
    given = {variable: str(before[flag]) for flag, variable in HANDED_ON if before.get(flag) is not None}
    return {**ours, **given}
