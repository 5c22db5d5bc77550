"""`make build`: one executable file for each node and one for the CLI, in dist/.

    python tools/build.py [--out dist] [--if-stale]

A built file is a line of shell that finds Python, and behind it an archive with the start (tools/boot.py) and the
program: our packages from this tree, and the distributions that pyproject.toml asks for as they are installed in the
environment that runs this: what was tested is what is built. Nothing is downloaded. The same tree and environment give
the same bytes: names in order, no times, no ids of this machine.

Native modules are inside, so a file runs with the Python version, system and machine that it was built with.
docs/deployment.md says what a target needs, docs/decisions.md why it is done this way.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]  # run as a script, too

from packaging.requirements import Requirement  # noqa: E402  # the path is set first

from kit.version import VERSION  # noqa: E402  # the path is set first
from tools import boot  # noqa: E402  # the path is set first

STAMP_FILE: Final = ".inputs"
SUMS_FILE: Final = "SHA256SUMS"
EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first moment that an archive can name
#: Of an installed distribution: what runs nowhere, and what differs from one machine to the next. Licences stay.
LEFT_OUT: Final = re.compile(
    r"(^|/)(__pycache__|tests?|testing)/"
    r"|\.(pyc|pyi|pyo|pxd|pyx|c|h|cpp)$"
    r"|\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$"
)
COMPILE_S: Final = 600

STUB: Final = """\
#!/bin/sh
# {program} {version} of AgentCom, in one file, for CPython {python}.
# AGENTCOM_PYTHON names a Python that is not in PATH, AGENTCOM_CACHE_DIR where it unpacks itself.
python=${{AGENTCOM_PYTHON:-python{python}}}
if ! command -v "$python" >/dev/null 2>&1; then
  python=python3
  if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != ({python_pair}))' 2>/dev/null; then
    echo "{program}: CPython {python} is needed and is not in PATH; AGENTCOM_PYTHON=/path/of/it names one" >&2
    exit 2
  fi
fi
exec "$python" -I -S "$0" "$@"
"""


@dataclass(frozen=True, slots=True)
class Program:
    """One built file."""

    name: str
    #: What is run: `main()` of this module.
    module: str
    #: Our packages, besides what all share.
    packages: tuple[str, ...]
    #: What is asked for in pyproject.toml, besides what all share.
    extras: tuple[str, ...]


PROGRAMS: Final = (
    Program("agentcom-hub", "hub.__main__", ("hub",), ("hub", "telemetry", "notify")),
    Program("agentcom-sidecar", "sidecar.__main__", ("sidecar",), ("sidecar", "telemetry")),
    Program("agentcom-dashboard", "dashboard.__main__", ("dashboard",), ("dashboard",)),
    Program("agentcom", "cli.main", ("cli",), ("cli",)),
)
#: What a wheel says of itself, and the tags in it that ask for a version of glibc.
WHEEL: Final = re.compile(r"\.dist-info/WHEEL$")
GLIBC_TAG: Final = re.compile(r"^Tag: .*-manylinux(?:_(\d+)_(\d+)|(1|2010|2014))_\w+$", re.MULTILINE)
GLIBC_OLD: Final = {"1": (2, 5), "2010": (2, 12), "2014": (2, 17)}
#: Folder and the name under which it is imported.
SHARED: Final = {"kit": "kit", "gen/agentcom": "agentcom", "gen/buf": "buf"}


def main(arguments: Iterable[str] | None = None) -> int:
    """Build; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tools/build.py", description="Builds one executable file for each node.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument("--if-stale", action="store_true", help="only when the files in it are not of this tree")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    started = time.monotonic()
    if not ensure(chosen.out, always=not chosen.if_stale):
        print(f"{chosen.out} is of this tree")
        return 0
    for program in PROGRAMS:
        size = (chosen.out / program.name).stat().st_size
        print(f"{size / 1e6:6.1f} MB  {chosen.out / program.name}")
    print(f"{time.monotonic() - started:.1f} s, for {boot.tag()}")
    return 0


def ensure(out: Path, *, always: bool = False) -> bool:
    """Build into a folder unless what is there is of this tree; False when nothing had to be done."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = inputs()
        if not always and is_fresh(out, wanted):
            return False
        build(out, wanted)
        return True


def is_fresh(out: Path, wanted: str) -> bool:
    """Are the files those of these inputs, whole and unchanged?"""
    try:
        stamp, *sums = (out / STAMP_FILE).read_text().splitlines()
        return stamp == wanted and sums == _sums(out) == (out / SUMS_FILE).read_text().splitlines()
    except (OSError, ValueError):
        return False


def build(out: Path, wanted: str) -> None:
    """Build all files into a folder; each takes its place in one step."""
    (out / STAMP_FILE).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="agentcom-build-") as scratch:
        every = Path(scratch) / "every"
        contents = {program: _content(program) for program in PROGRAMS}
        everything = {name: source for content in contents.values() for name, source in content.items()}
        _compile(every, everything)
        for program, content in contents.items():
            data = archive(program, content, every)
            fresh = out / f"{program.name}.new"
            fresh.write_bytes(data)
            fresh.chmod(0o755)
            fresh.replace(out / program.name)
    sums = _sums(out)
    (out / SUMS_FILE).write_text("".join(f"{line}\n" for line in sums))
    (out / STAMP_FILE).write_text("".join(f"{line}\n" for line in (wanted, *sums)))


def archive(program: Program, content: Mapping[str, Path | bytes], compiled: Path) -> bytes:
    """The bytes of one built file."""
    members: dict[str, bytes] = {}
    for name, source in content.items():
        members[f"site/{name}"] = source if isinstance(source, bytes) else source.read_bytes()
        folder, _, file = name.rpartition("/")
        cached = f"{folder}/__pycache__/{file.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc".lstrip("/")
        if name.endswith(".py") and (compiled / cached).is_file():
            members[f"site/{cached}"] = (compiled / cached).read_bytes()
    members["__main__.py"] = start = Path(boot.__file__).read_bytes()
    about: dict[str, Any] = {"name": program.name, "module": program.module, "version": VERSION}
    about |= {"python": boot.tag(), "glibc": glibc(data for name, data in members.items() if WHEEL.search(name))}
    about["id"] = _digest(members, json.dumps(about, sort_keys=True))[:16]
    members[boot.BUILD_FILE] = said = json.dumps(about, sort_keys=True).encode()
    outer = {"__main__.py": start, boot.BUILD_FILE: said, boot.PAYLOAD_FILE: _zipped(members, zipfile.ZIP_DEFLATED)}
    python = "{}.{}".format(*sys.version_info)
    stub = STUB.format(
        program=program.name, version=VERSION, python=python, python_pair=python.replace(".", ", ")
    ).encode()
    return stub + _zipped(outer, zipfile.ZIP_STORED, before=stub)


def inputs() -> str:
    """What the built files are made of, as a digest: our source, this tool, and what is installed."""
    members: dict[str, bytes] = {}
    for folder in (*SHARED, *(package for program in PROGRAMS for package in program.packages)):
        for name, path in _folder(ROOT / folder, folder):
            members[name] = path.read_bytes()
    for path in (Path(__file__), Path(boot.__file__), ROOT / "pyproject.toml"):
        members[path.name] = path.read_bytes()
    found = {one.name: one.version for program in PROGRAMS for one in _distributions(program)}
    return _digest(members, f"{boot.tag()} {sys.version} {sorted(found.items())}")


def _content(program: Program) -> dict[str, Path | bytes]:
    """Everything that can be imported or read by a program, by the name that it has below site/."""
    content: dict[str, Path | bytes] = {}
    for one in _distributions(program):
        for file in one.files or ():
            name = file.as_posix()
            if not name.startswith(("..", "/")) and not LEFT_OUT.search(name):
                content[name] = Path(str(one.locate_file(file)))
    for folder, package in (*SHARED.items(), *((name, name) for name in program.packages)):
        content.update(_folder(ROOT / folder, package))
    said = f"Metadata-Version: 2.1\nName: agentcom\nVersion: {VERSION}\n"
    content[f"agentcom-{VERSION}.dist-info/METADATA"] = said.encode()
    return content


def glibc(wheels: Iterable[bytes]) -> tuple[int, int]:
    """The oldest version that all of them run with; each wheel runs with the oldest that it names."""
    oldest = (0, 0)
    for text in wheels:
        asked = [
            GLIBC_OLD[old] if old else (int(major), int(minor))
            for major, minor, old in GLIBC_TAG.findall(text.decode("utf-8", "replace"))
        ]
        oldest = max(oldest, min(asked, default=(0, 0)))
    return oldest


def _folder(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyi":
            yield f"{name}/{path.relative_to(folder).as_posix()}", path


def _distributions(program: Program) -> list[importlib.metadata.Distribution]:
    """What is installed of what a program asks for, and of what that asks for. Raises PackageNotFoundError."""
    project = _project()
    optional = project["optional-dependencies"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    waiting += [Requirement(text) for extra in program.extras for text in optional[extra]]
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        asked = waiting.pop()
        name = re.sub(r"[-_.]+", "-", asked.name).lower()
        key = (name, frozenset(asked.extras))
        if key in seen or (asked.marker is not None and not asked.marker.evaluate({"extra": ""})):
            continue
        seen.add(key)
        found[name] = one = importlib.metadata.distribution(name)
        for text in one.requires or ():
            further = Requirement(text)
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in asked.extras or {""}):
                further.marker = None
                waiting.append(further)
    return [found[name] for name in sorted(found)]


def _compile(every: Path, content: Mapping[str, Path | bytes]) -> None:
    """Bytecode that is taken as it is, without a look at its source: the tree of a version never changes."""
    for name, source in content.items():
        if name.endswith(".py") and isinstance(source, Path):
            target = every / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    # The order of a set of strings is another one in each process, unless the seed is given.
    done = subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(every),
         "-j", str(os.cpu_count() or 1), str(every)],
        env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=COMPILE_S, check=False,
    )  # fmt: skip
    if done.returncode:
        print(f"not everything could be compiled, which is no harm:\n{done.stdout}", file=sys.stderr)


def _zipped(members: Mapping[str, bytes], method: int, *, before: bytes = b"") -> bytes:
    """An archive whose bytes follow from its members alone; its places are counted from the begin of `before`."""
    target = io.BytesIO()
    target.write(before)
    with zipfile.ZipFile(target, "a", method) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            info.compress_type = method
            archive.writestr(info, members[name])
    return target.getvalue()[len(before) :]


def _digest(members: Mapping[str, bytes], more: str) -> str:
    digest = hashlib.sha256(more.encode())
    for name in sorted(members):
        digest.update(f"\0{name}\0{len(members[name])}\0".encode())
        digest.update(members[name])
    return digest.hexdigest()


def _sums(out: Path) -> list[str]:
    names = sorted(program.name for program in PROGRAMS)
    return [f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}" for name in names]


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


if __name__ == "__main__":
    sys.exit(main())
