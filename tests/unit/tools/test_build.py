"""What is put into a built file: everything that its program may import, and nothing that differs between machines."""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_layers import imports
from tools import boot, build

OURS = {"hub", "sidecar", "cli", "dashboard", "kit", "agentcom", "buf"}


@pytest.fixture(params=build.PROGRAMS, ids=lambda program: program.name)
def program(request: pytest.FixtureRequest) -> build.Program:
    made: build.Program = request.param
    return made


def source(module: str) -> Path | None:
    """The file of one of our modules."""
    place = build.ROOT / ("gen" if module.partition(".")[0] in ("agentcom", "buf") else "") / module.replace(".", "/")
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def reachable(program: build.Program) -> Iterator[str]:
    """Every module of others that can be imported from a program, at its start or later."""
    waiting = [
        ".".join(path.relative_to(build.ROOT).with_suffix("").parts)
        for package in program.packages
        for path in (build.ROOT / package).rglob("*.py")
    ]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        file = source(module)
        if module in seen or file is None:
            continue
        seen.add(module)
        for _, name in imports(file, ast.parse(file.read_text(encoding="utf-8"))):
            top = name.partition(".")[0]
            if top in OURS:
                waiting += [name, name.rpartition(".")[0]]
            elif top not in sys.stdlib_module_names:
                yield name


def test_everything_that_a_program_may_import_is_in_its_file(program: build.Program):
    content = build._content(program)
    folders = {parent.as_posix() for name in content for parent in Path(name).parents}
    modules = {name.partition(".")[0] for name in content}  # x.py, x.cpython-311-x86_64-linux-gnu.so
    wanted = set(reachable(program))
    assert {"grpc", "msgspec"} <= {name.partition(".")[0] for name in wanted}
    missing = [name for name in wanted if name.replace(".", "/") not in folders | modules]
    assert sorted(missing) == []


def test_a_program_holds_its_own_packages_and_no_other_node(program: build.Program):
    content = build._content(program)
    tops = {name.partition("/")[0] for name in content if name.endswith(".py")} & OURS
    assert tops == {*program.packages, "kit", "agentcom", "buf"}
    for package in program.packages:
        there = {
            path.relative_to(build.ROOT).as_posix() for path in (build.ROOT / package).rglob("*") if path.is_file()
        }
        assert {name for name in there if "__pycache__" not in name} <= set(content), "data files, too"


def test_nothing_that_differs_from_machine_to_machine_is_inside(program: build.Program):
    names = list(build._content(program))
    assert not [name for name in names if name.endswith((".pyc", "/RECORD", "direct_url.json", "INSTALLER"))]
    assert not [name for name in names if name.startswith(("/", ".."))]
    assert any(name.lower().partition(".dist-info/")[2].startswith("licen") for name in names), "licences go along"


def test_the_same_members_give_the_same_bytes(tmp_path: Path):
    one = build.Program("tiny", "tiny.app", (), ())
    content: dict[str, Path | bytes] = {"tiny/app.py": b"x = 1\n", "tiny/data.txt": b"1"}
    first = build.archive(one, content, tmp_path)
    assert first == build.archive(one, dict(reversed(content.items())), tmp_path)
    assert first != build.archive(one, {**content, "tiny/data.txt": b"2"}, tmp_path)
    file = tmp_path / "tiny"
    file.write_bytes(first)
    with zipfile.ZipFile(file) as outer:
        assert outer.namelist() == ["__main__.py", boot.BUILD_FILE, boot.PAYLOAD_FILE]
        assert {info.date_time for info in outer.infolist()} == {build.EPOCH}


def test_files_are_fresh_until_one_of_them_or_what_they_are_made_of_changes(tmp_path: Path):
    for program in build.PROGRAMS:
        (tmp_path / program.name).write_bytes(program.name.encode())
    sums = "\n".join(build._sums(tmp_path)) + "\n"
    (tmp_path / build.SUMS_FILE).write_text(sums)
    (tmp_path / build.STAMP_FILE).write_text("inputs\n" + sums)
    assert build.is_fresh(tmp_path, "inputs")
    assert not build.is_fresh(tmp_path, "others")
    (tmp_path / "agentcom").write_bytes(b"changed")
    assert not build.is_fresh(tmp_path, "inputs")
    (tmp_path / "agentcom").unlink()
    assert not build.is_fresh(tmp_path, "inputs")
    assert not build.is_fresh(tmp_path / "nowhere", "inputs")
