"""`agentcom`: the groups of commands put together, and the way in."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from cli import agent, alert, command, git, goal, hub, notify, plan, repo, task, token, up
from kit.version import VERSION

app = typer.Typer(
    name="agentcom",
    help="Steers an AgentCom hub: goals go in, checked and merged changes come out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 refused or not succeeded, 2 wrong usage or invalid, 3 not found, 4 wrong state or "
    "changed meanwhile, 5 hub not reachable or too slow, 6 not allowed, 130 Ctrl-C.",
)

for name, group in (
    ("goal", goal.app), ("task", task.app), ("agent", agent.app), ("repo", repo.app), ("hub", hub.app),
    ("alert", alert.app), ("token", token.app), ("plan", plan.app), ("notify", notify.app),
):  # fmt: skip
    app.add_typer(group, name=name, no_args_is_help=True)
app.command("git", **git.SETTINGS)(git.git)
app.command("up")(up.up)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"agentcom {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    hub: command.Hub = None,
    token: command.Token = None,
    token_file: command.TokenFile = None,
    format: command.Format = None,
    timeout_s: command.Timeout = None,
    ca_file: command.CaFile = None,
    certificate_file: command.CertificateFile = None,
    key_file: command.KeyFile = None,
    plaintext: command.Plaintext = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="show the version and leave")
    ] = False,
) -> None:
    """Steers an AgentCom hub: goals go in, checked and merged changes come out."""
    context.obj = {
        "hub": hub,
        "token": token,
        "token_file": token_file,
        "format": format,
        "timeout_s": timeout_s,
        "ca_file": ca_file,
        "certificate_file": certificate_file,
        "key_file": key_file,
        "plaintext": plaintext,
    }


def main() -> None:
    """Run one command; never returns."""
    # Libraries may log; standard error belongs to what the command itself has to say.
    logging.basicConfig(level=logging.CRITICAL)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character must not end the command
    app()


if __name__ == "__main__":
    main()
