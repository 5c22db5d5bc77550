"""The page of the command line, read off the programs themselves: every command, argument, option, default, exit code.

`agentcom` is asked through Typer; the programs of the nodes through their argument parsers, as `--help` would.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import typer

import cli.main
import dashboard.__main__
import hub.__main__
import sidecar.__main__
from cli import command, failure
from hub import offline
from sidecar import byhand, preflight

#: Kinds of values as people call them.
_KINDS: Final = (
    (re.compile(r" <list\[str\]>"), " TEXT"), (re.compile(r" <str>"), " TEXT"), (re.compile(r" <int( range)?>"), " N"),
    (re.compile(r" <float( range)?>"), " NUMBER"), (re.compile(r" <path>", re.IGNORECASE), " PATH"),
)  # fmt: skip
_NOT_SHOWN: Final = ("--help", "-h", "--install-completion", "--show-completion")
_HEAD: Final = "| option | what it is |\n| --- | --- |"

#: The programs of the nodes: name, the parser that it has, its exit codes.
NODES: Final[tuple[tuple[str, Callable[[], argparse.ArgumentParser], str], ...]] = (
    ("agentcom-hub", hub.__main__._parser, "Exit codes: 0 ended as asked, 2 the configuration is wrong or unusable."),
    ("agentcom-hub", offline._parser, "Exit codes: 0 all is well, 1 a warning, 2 refused, or something is broken."),
    (
        "agentcom-sidecar", sidecar.__main__._parser,
        "Exit codes: 0 ended as asked, 1 it could not begin, 2 the configuration is wrong, 3 the hub sent it away for "
        "good, 130 cancelled.",
    ),
    ("agentcom-sidecar preflight", preflight._parser, "Exit codes: 0 nothing failed, 1 something did."),
    ("agentcom-sidecar git", byhand._parser, "`agentcom git` is the same; exit codes as above."),
    ("agentcom-dashboard", dashboard.__main__._parser, "Exit codes: 0 ended as asked, 2 the configuration is wrong."),
)  # fmt: skip


def page(note: str) -> str:
    """The page."""
    root = typer.main.get_command(cli.main.app)
    parts = [
        note,
        "# The command line\n",
        "`agentcom` speaks to a hub and keeps nothing. Names may be short: the id is enough where `tasks/ID` is meant. "
        "The programs of the nodes are at the end.\n",
        "## Options of every command\n",
        "They may stand before or after the command's words; after wins, then the environment, then the default.\n",
        *_table(_common(root)),
        "## Exit codes\n",
        (failure.__doc__ or "").partition("\n\n")[2],
        *_commands(root, "agentcom"),
        "## Programs of the nodes\n",
        "Every key of their [configuration](configuration.md) can be set by environment, too.\n",
    ]
    shown: set[str] = set()
    for name, parser, codes in NODES:
        parts += _program(name if name not in shown else f"{name} COMMAND", parser(), codes)
        shown.add(name)
    return "\n".join(parts).rstrip() + "\n"


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, one in sorted(group.commands.items()):
        full = f"{path} {name}"
        if getattr(one, "commands", None):
            yield f"## {full}\n"
            yield f"{one.help}\n"
            yield from _commands(one, full)
        else:
            context = one.make_context(full, [], resilient_parsing=True)
            yield f"{'##' if path == 'agentcom' else '###'} {full}\n"
            yield f"{_line(one.help)}\n"
            if full == "agentcom git":
                yield "See [agentcom-sidecar git](#agentcom-sidecar-git).\n"
                continue
            pieces = [
                piece.strip("{}").replace("[[", "[").replace("]]", "]") for piece in one.collect_usage_pieces(context)
            ]
            yield f"```text\n{' '.join([full, *pieces])}\n```\n"
            own = [one for one in one.params if one.name not in command.COMMON]
            yield from _table(_records(own, context))


def _common(root: Any) -> list[tuple[str, str]]:
    context = root.make_context("agentcom", [], resilient_parsing=True)
    return list(_records(root.params, context))


def _records(parameters: Iterable[Any], context: Any) -> Iterator[tuple[str, str]]:
    for one in parameters:
        record = one.get_help_record(context)
        if record is None or any(option in _NOT_SHOWN for option in one.opts):
            continue
        name = record[0]
        for pattern, word in _KINDS:
            name = pattern.sub(word if one.opts[0].startswith("-") else "", name)
        yield name, record[1]


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f"| `{name.replace('|', chr(92) + '|')}` | {_cell(text)} |" for name, text in rows]
    return [_HEAD, *lines, ""] if lines else []


def _program(name: str, parser: argparse.ArgumentParser, codes: str) -> Iterator[str]:
    yield f"### {name}\n"
    yield f"{_line(parser.description)} {codes}\n"
    yield from _table(_actions(parser))
    for sub in (one for one in parser._actions if isinstance(one, argparse._SubParsersAction)):
        for word, inner in sub.choices.items():
            yield f"#### {name.removesuffix(' COMMAND')} {word}\n"
            about = next((one.help for one in sub._choices_actions if one.dest == word), inner.description)
            yield f"{_line(about)}\n"
            yield from _table(_actions(inner))


def _actions(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for one in parser._actions:
        if isinstance(one, (argparse._SubParsersAction, argparse._HelpAction)):
            continue
        value = "" if one.nargs == 0 else _metavar(one)
        name = ", ".join(one.option_strings)
        shown = f"{name} {value}".strip() if name else str(one.metavar or one.dest)
        yield shown, (one.help or "").replace("%(default)s", str(one.default))


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    return action.metavar or ("|".join(map(str, action.choices)) if action.choices else "TEXT")


def _line(text: str | None) -> str:
    """A help text as Markdown: paragraphs, and what looks like a placeholder kept visible."""
    return re.sub(r"[ \t]*\n(?!\n)[ \t]*", " ", (text or "").strip()).replace("<", "&lt;")


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|").replace("<", "&lt;")
