"""What names in the documentation may stand for: our programs with their options, settings, RPCs, targets of make."""

from __future__ import annotations

import argparse
import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import typer
from google.protobuf import descriptor_pool

import cli.main
from agentcom.v1 import (
    agent_service_pb2,
    attach_pb2,
    goal_service_pb2,
    hub_service_pb2,
    registry_service_pb2,
    task_service_pb2,
)
from hub.core import event
from tests.docs.markdown import ROOT
from tools import cli_page, docs, settings

#: Importing these fills the pool of descriptors; others that a hub serves are found in it, too.
LOADED: Final = (
    agent_service_pb2, attach_pb2, goal_service_pb2, hub_service_pb2, registry_service_pb2, task_service_pb2,
)  # fmt: skip
#: Programs that are only begun as a module.
DEVELOPERS: Final = ("tests.bench", "tests.faults", "tests.sim", "tests.soak", "tests.hostile")
#: How each is begun as a module.
PROGRAMS: Final = {
    "agentcom-hub": "hub", "agentcom-sidecar": "sidecar", "agentcom-dashboard": "dashboard",
    **{name: name for name in DEVELOPERS},
}  # fmt: skip
_ENDS = ("|", "||", "&&", ";", ">", ">>", "<", "2>&1")
_WORD = re.compile(r"[a-z][a-z-]*")


def faults_of(command: str) -> Iterator[str]:
    """What is wrong with the calls of our programs in a line of shell, or in inline code; placeholders are let be."""
    for words in calls(command):
        if words[0] == "agentcom":
            yield from _agentcom(words[1:])
        else:
            yield from _argparse(words)


def calls(command: str) -> Iterator[list[str]]:
    """Each call of one of our programs in a line of shell."""
    try:
        words = shlex.split(command.replace("\\\n", " "), comments=True)
    except ValueError:
        return
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        starts = index == 0 or before in _ENDS or before.endswith(";") or re.fullmatch(r"\w+=.*", before) is not None
        name = word.rpartition("/")[2]
        if name in (*PROGRAMS, "agentcom") and starts:
            yield [name, *_until_end(words[index + 1 :])]
        elif name.startswith("python") and words[index + 1 : index + 2] == ["-m"]:
            module = words[index + 2]
            if module in PROGRAMS.values():
                program = next(key for key, value in PROGRAMS.items() if value == module)
                yield [program, *_until_end(words[index + 3 :])]


def _until_end(words: Sequence[str]) -> list[str]:
    taken: list[str] = []
    for word in words:
        if word in _ENDS:
            break
        taken.append(word.rstrip(";)"))
        if word.endswith(";"):
            break
    return taken


def _agentcom(words: Sequence[str]) -> Iterator[str]:
    at: Any = _root()
    path, rest = ["agentcom"], list(words)
    options = set(_options(at))
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            name = word.split("=")[0]
            if path[1:2] != ["git"] and name not in options:
                yield f"{' '.join(path)} has no option {name}"
            continue
        known = getattr(at, "commands", None)
        if known is None:
            continue
        if word in known:
            at = known[word]
            path.append(word)
            options |= set(_options(at))
            if path == ["agentcom", "git"]:
                yield from _argparse(["agentcom-sidecar", "git", *rest])
                return
        elif _WORD.fullmatch(word) and not _is_value(word, words):
            yield f"{' '.join(path)} has no command {word}"
            return


@functools.cache
def _root() -> Any:
    return typer.main.get_command(cli.main.app)


def _is_value(word: str, words: Sequence[str]) -> bool:
    """Does it stand behind an option that takes a value?"""
    at = list(words).index(word)
    return at > 0 and words[at - 1].startswith("-") and "=" not in words[at - 1]


def _options(command: Any) -> Iterator[str]:
    yield from ("--help", "-h")
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)


def _argparse(words: Sequence[str]) -> Iterator[str]:
    program, *rest = words
    path: list[str] = []
    while rest and _WORD.fullmatch(rest[0]):
        path.append(rest.pop(0))
    known = _known(program, tuple(path))
    if known is None:
        yield f"{program} has no command {' '.join(path)}"
        return
    for option in (word.split("=")[0] for word in rest if word.startswith("--")):
        if option not in known:
            yield f"{' '.join([program, *path])} has no option {option}"


@functools.cache
def _known(program: str, path: tuple[str, ...]) -> frozenset[str] | None:
    """The options of a program, or of a command of it; None: it has no such command."""
    parsers = [make() for name, make, _ in cli_page.NODES if name.split() == [program, *path]]
    for name, make, _ in cli_page.NODES:
        if path and name.split() == [program, *path[:-1]]:
            parsers += _commands_of(make()).get(path[-1:], [])
    if not parsers and not path and program in DEVELOPERS:
        words = [sys.executable, "-m", program, "--help"]
        made = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
        return frozenset(re.findall(r"--[a-z-]+", made.stdout))
    return frozenset(one for parser in parsers for action in parser._actions for one in action.option_strings) or None


def _commands_of(parser: argparse.ArgumentParser) -> dict[tuple[str, ...], list[argparse.ArgumentParser]]:
    groups = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    return {(word,): [inner] for group in groups for word, inner in group.choices.items()}


@functools.cache
def setting_keys() -> frozenset[str]:
    """Every key of every node, with its section: `backup.every_s`."""
    return frozenset(
        ".".join(part for part in (section.name, one.key) if part)
        for node in docs.NODES
        for section in settings.sections(node.kind, docs.MEANINGS)
        for one in section.settings
    )


@functools.cache
def sections() -> frozenset[str]:
    """The names of all sections."""
    return frozenset(key.rpartition(".")[0] for key in setting_keys() if "." in key)


@functools.cache
def variables() -> frozenset[str]:
    """Every variable of the environment by which a node is configured."""
    return frozenset(
        "_".join(part for part in (node.prefix, *section.name.split("."), one.key) if part).upper()
        for node in docs.NODES
        for section in settings.sections(node.kind, docs.MEANINGS)
        for one in section.settings
    )


@functools.cache
def rpcs() -> frozenset[str]:
    """`TaskService/CreateTask` and its kin."""
    return frozenset(f"{service.name}/{method.name}" for service in _services() for method in service.methods)


def _services() -> Iterator[Any]:
    pool = descriptor_pool.Default()
    for path in sorted((ROOT / "protos/agentcom/v1").glob("*_service.proto")):
        try:
            file = pool.FindFileByName(f"agentcom/v1/{path.name}")
        except KeyError:
            __import__(f"agentcom.v1.{path.stem}_pb2")
            file = pool.FindFileByName(f"agentcom/v1/{path.name}")
        yield from file.services_by_name.values()


@functools.cache
def of_the_contract() -> frozenset[str]:
    """Names of services, methods, messages and enums."""
    text = "\n".join(path.read_text() for path in (ROOT / "protos/agentcom/v1").glob("*.proto"))
    return frozenset(re.findall(r"\b(?:service|rpc|message|enum) (\w+)", text))


@functools.cache
def fields_of_the_contract() -> frozenset[str]:
    """Names of fields."""
    text = "\n".join(path.read_text() for path in (ROOT / "protos/agentcom/v1").glob("*.proto"))
    return frozenset(re.findall(r"\b(\w+) = \d+(?:;| \[)", text))


@functools.cache
def targets() -> frozenset[str]:
    """Targets of make."""
    return frozenset(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def event_types() -> frozenset[str]:
    """Types of events of the log."""
    return frozenset(event.EVENT_TYPES)
