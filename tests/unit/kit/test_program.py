"""How a node starts another part of itself: from the source, installed, and from a built file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kit import errors, program


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for programs, and nothing in PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    made = tmp_path / "bin"
    made.mkdir()
    return made


def put(folder: Path, name: str, mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(mode)
    return file


def begin(monkeypatch: pytest.MonkeyPatch, folder: Path) -> program.Built:
    monkeypatch.setattr(program, "_built", None)
    made = program.Built(folder / "agentcom", folder / "tree")
    program.begin(made)
    return made


def test_from_the_source_a_node_is_run_by_our_own_interpreter(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(folder / "__main__.py")])
    assert program.built() is None
    assert program.node("hub") == [sys.executable, "-m", "hub"]


def test_installed_it_is_the_program_beside_ours(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(put(folder, "agentcom"))])
    hub = put(folder, "agentcom-hub")
    put(folder, "agentcom-sidecar", 0o644)
    assert program.node("hub") == [str(hub)]
    assert program.node("sidecar") == [sys.executable, "-m", "sidecar"], "what cannot be run is not taken"


def test_from_a_built_file_it_is_the_file_beside_it_and_then_the_one_in_path(folder, monkeypatch):
    begin(monkeypatch, folder)
    with pytest.raises(errors.Unavailable, match=f"agentcom-hub is needed .* neither in {folder} nor in PATH") as told:
        program.node("hub")
    assert told.value.reason == "PROGRAM_MISSING"
    elsewhere = put(folder.parent / "path", "agentcom-hub")
    assert program.node("hub") == [str(elsewhere)]
    beside = put(folder, "agentcom-hub", 0o644)
    assert program.node("hub") == [str(elsewhere)], "what cannot be run is not taken"
    beside.chmod(0o755)
    assert program.node("hub") == [str(beside)]


def test_a_part_of_a_built_file_is_run_from_what_that_file_unpacked(folder, monkeypatch):
    made = begin(monkeypatch, folder)
    words = program.part("hub.store.care.errand")
    assert words == [sys.executable, "-I", "-S", f"{made.tree}/__main__.py", str(made.file), "hub.store.care.errand"]
    assert "PYTHONPATH" not in program.part_environment()


def test_a_part_finds_what_we_find():
    done = subprocess.run(
        [*program.part("kit.version")], env=program.part_environment(), cwd="/", capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
