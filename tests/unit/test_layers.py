"""Which room may import which: the table of the architecture, checked over the source of every file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("kit", "hub", "sidecar", "cli", "dashboard")
NODES = ("hub", "sidecar", "cli", "dashboard")

KIT_PURE = tuple(f"kit.{name}" for name in ("clock", "ids", "backoff", "ledger", "errors", "tracing", "version"))
GEN = ("agentcom", "buf", "google")
# The core takes the time and the dice as arguments, and does nothing that lasts.
CORE_NEVER = (
    "asyncio", "concurrent", "grpc", "http", "lmdb", "logging", "multiprocessing", "os", "pathlib", "secrets", "select",
    "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib", "uuid",
)  # fmt: skip

# What a room may import besides the stdlib: module prefixes of ours and of others. The first match counts, so the
# narrow rooms stand before the wide ones. Records are msgspec Structs (measured faster than dataclasses), hence
# msgspec in the cores.
ALLOWED: list[tuple[str, tuple[str, ...]]] = [
    ("hub/core", ("hub.core", "msgspec", *KIT_PURE)),
    ("hub/store/lmdb.py", ("hub.store", "hub.core", "kit", "msgspec", "lmdb")),
    ("hub/store", ("hub.store", "hub.core", "kit", "msgspec")),
    ("hub/engine/script", ("hub.engine.script", "hub.store.base", "hub.core", "kit", "msgspec")),
    ("hub/engine/live", ("hub.engine.live", "hub.engine.script", "hub.store.base", "hub.core", "kit", "msgspec")),
    ("hub/engine", ("hub.engine", "hub.store.base", "hub.core", "kit", "msgspec")),
    ("hub/rpc", ("hub.rpc", "hub.engine", "hub.core", "kit", "grpc", *GEN)),
    (
        "hub/notify",
        (
            *("hub.notify", "hub.engine.notify", "hub.core", "hub.data", "kit", "msgspec"),
            *("httpcore2", "aiosmtplib", "cryptography"),
        ),
    ),
    ("hub/llm", ("hub.llm", "hub.core", "kit", "msgspec", "anthropic", "openai", "httpx", "httpx2")),
    ("hub", ("hub", "kit", "grpc", "msgspec", "uvloop", "yaml", *GEN)),
    ("sidecar/core", ("sidecar.core", "msgspec", *KIT_PURE)),
    ("sidecar/child", ("sidecar.child", "sidecar.core", "kit")),
    ("sidecar/repo", ("sidecar.repo", "sidecar.child", "sidecar.core", "sidecar.settings", "kit", "msgspec")),
    ("sidecar/wire", ("sidecar.wire", "sidecar.child", "sidecar.core", "kit", "grpc", "msgspec", *GEN)),
    ("sidecar/executors", ("sidecar", "kit", "msgspec", "yaml", "anthropic", "openai", "httpx", "httpx2", *GEN)),
    ("sidecar", ("sidecar", "kit", "grpc", "msgspec", "yaml", "uvloop", *GEN)),
    ("cli", ("cli", "kit", "grpc", "msgspec", "rich", "typer", "yaml", *GEN)),
    ("dashboard", ("dashboard", "kit", "grpc", "flask", "gunicorn", "markupsafe", "werkzeug", *GEN)),
    # Before anything of kit: which of its modules may know which outside library.
    ("kit/otlp.py", ("kit", "opentelemetry")),
    ("kit/otlp_spans.py", ("kit", "opentelemetry")),
    ("kit/promtext.py", ("kit", "prometheus_client")),
    ("kit/logs.py", ("kit", "msgspec", "structlog")),
    ("kit/validation.py", ("kit", "google", "protovalidate")),
    ("kit/serving.py", ("kit", "grpc", "grpc_health", "grpc_reflection")),
    ("kit/goalfile.py", ("kit", "agentcom", "google")),
    ("kit/yamltree.py", ("kit", "yaml")),
    *[(f"{module.replace('.', '/')}.py", KIT_PURE) for module in KIT_PURE],
    ("kit", ("kit", "google", "grpc", "grpc_status")),
]
# hub.store.base alone would shut out its package's own __init__; nothing else of the store is open to the engine.
CLOSED_STORES = ("hub.store.lmdb", "hub.store.memory")
# app.py and __main__.py put a node together; nothing of the node may need them.
ROOTS = ("hub.app", "sidecar.app")


def files() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def rule_of(path: Path) -> tuple[str, ...]:
    name = path.relative_to(ROOT).as_posix()
    return next(allowed for room, allowed in ALLOWED if name == room or name.startswith(f"{room}/"))


def imports(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every import of a file as (line, module); `from hub import core` counts as hub.core."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            if is_folder(base):
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base


def is_folder(module: str) -> bool:
    """Is this a package, so that `from it import name` means a module? Rooms count before they are built."""
    path = module.replace(".", "/")
    return path in {room for room, _ in ALLOWED} or (ROOT / path).is_dir()


def is_below(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def faults(path: Path, tree: ast.Module) -> Iterator[str]:
    name = path.relative_to(ROOT).as_posix()
    allowed = rule_of(path)
    is_core = "/core/" in name
    is_root = path.name in ("app.py", "__main__.py")
    for line, module in imports(path, tree):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names:
            if is_core and is_below(module, CORE_NEVER):
                yield f"{name}:{line}: a core is pure and may not import {module}"
        elif not is_below(module, allowed):
            yield f"{name}:{line}: may not import {module}"
        elif is_below(module, ROOTS) and not is_root:
            yield f"{name}:{line}: only __main__ imports the composition root {module}"
        elif is_below(module, CLOSED_STORES) and not (is_root or name.startswith("hub/store/")):
            yield f"{name}:{line}: only the composition root names a concrete store, not {module}"


def unchecked_reads(path: Path, tree: ast.Module) -> Iterator[str]:
    """Calls of `context.read()` in servicers: such messages pass by the rules of the protos."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "read"
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "context"
        ):
            yield f"{path.relative_to(ROOT)}:{node.lineno}: read with `async for`, context.read() is not validated"


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_imports_only_what_its_room_may(path):
    found = list(faults(path, ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", sorted((ROOT / "hub/rpc").rglob("*.py")), ids=lambda path: path.name)
def test_a_servicer_reads_only_messages_that_were_checked(path):
    found = list(unchecked_reads(path, ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_says_what_it_is_and_stays_below_the_ceiling(path):
    text = path.read_text(encoding="utf-8")
    if text:
        assert ast.get_docstring(ast.parse(text)), "the first line of a file says what it is"
    assert len(text.splitlines()) <= 400, "split it: one idea a file"


BROKEN = [
    ("hub/core/x.py", "import asyncio"),
    ("hub/core/x.py", "import time"),
    ("hub/core/x.py", "from os import path"),
    ("hub/core/x.py", "from kit import logs"),
    ("hub/core/x.py", "from hub.engine.script import queue"),
    ("hub/core/x.py", "from hub import store"),
    ("hub/core/x.py", "from agentcom.v1 import task_pb2"),
    ("hub/store/memory.py", "import lmdb"),
    ("hub/store/memory.py", "from hub.engine.script import queue"),
    ("hub/engine/x.py", "from hub.store import lmdb"),
    ("hub/engine/x.py", "from hub.store import memory"),
    ("hub/engine/x.py", "import grpc"),
    ("hub/engine/x.py", "from agentcom.v1 import task_pb2"),
    ("hub/engine/x.py", "from hub.rpc import tasks"),
    ("hub/rpc/x.py", "from hub.store import base"),
    ("hub/rpc/x.py", "from hub import app"),
    ("hub/config.py", "from hub.store import lmdb"),
    ("hub/app.py", "import sidecar"),
    ("hub/app.py", "import anthropic"),
    ("sidecar/wire/stream.py", "from hub.core import task"),
    ("sidecar/core/x.py", "import subprocess"),
    ("sidecar/wire/stream.py", "import anthropic"),
    ("cli/main.py", "from hub import config"),
    ("kit/ids.py", "import grpc"),
    ("kit/ledger.py", "from kit import logs"),
    ("kit/channel.py", "from agentcom.v1 import task_pb2"),
    ("kit/channel.py", "import opentelemetry.trace"),
    ("kit/channel.py", "import hub"),
]
SOUND = [
    ("hub/core/x.py", "import msgspec, enum, random\nfrom kit import errors, ids\nfrom hub.core import task"),
    ("hub/engine/x.py", "import asyncio\nfrom hub.store import base\nfrom hub.core import task\nfrom kit import logs"),
    ("hub/rpc/x.py", "import grpc\nfrom agentcom.v1 import task_pb2\nfrom hub.engine.script import queue"),
    ("hub/app.py", "from hub.store import lmdb\nfrom hub.rpc import tasks"),
    ("hub/__main__.py", "from hub import app"),
    ("sidecar/executors/x.py", "import anthropic"),
]


@pytest.mark.parametrize(("name", "source"), BROKEN, ids=[f"{n}: {s}" for n, s in BROKEN])
def test_the_rules_catch_what_they_are_for(name, source):
    assert list(faults(ROOT / name, ast.parse(source)))


@pytest.mark.parametrize(("name", "source"), SOUND, ids=[n for n, _ in SOUND])
def test_the_rules_let_pass_what_is_meant(name, source):
    assert not list(faults(ROOT / name, ast.parse(source)))


def test_an_unchecked_read_is_caught():
    tree = ast.parse("async def attach(requests, context):\n    await context.read()")
    assert list(unchecked_reads(ROOT / "hub/rpc/x.py", tree))
