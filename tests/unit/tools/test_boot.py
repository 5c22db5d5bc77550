"""The start of a built file: real archives of a tiny program, run by real interpreters with nothing of ours around."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import boot, build

ROOT = Path(build.ROOT)
DAY_S = 86_400.0
#: What the tiny program says: its words, and where it and its modules come from.
TINY = """\
import sys
from kit import program

def main():
    if sys.argv[1:2] == ["wait"]:
        print("waits", flush=True)
        sys.stdin.read()
        import tiny.late
        print(tiny.late.SAID, flush=True)
        return 0
    print(sys.argv[1:], program.built().file, program.built().tree, [p for p in sys.path if "python" not in p])
    return 7

if __name__ == "__main__":
    print("part", sys.argv[1:], program.built().file, program.built().tree)
"""


def make(folder: Path, said: str = "first", name: str = "tiny") -> Path:
    """A built file whose program is the tiny one."""
    content: dict[str, Path | bytes] = {
        "tiny/__init__.py": b"",
        "tiny/app.py": TINY.encode(),
        "tiny/late.py": f"SAID = {said!r}\n".encode(),
        **{f"kit/{name}.py": ROOT / "kit" / f"{name}.py" for name in ("__init__", "program", "errors", "clock")},
    }
    data = build.archive(build.Program(name, "tiny.app", (), ()), content, folder / "nothing-compiled")
    file = folder / "bin" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.chmod(0o755)
    return fresh.replace(file)


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """An environment with a home, a shell and a Python."""
    (tmp_path / "home").mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "PATH": "/usr/bin:/bin",
        "AGENTCOM_PYTHON": str(Path(sys.executable).resolve()),
    }


def run(file: Path, *words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(file), *words], env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )


def begin(file: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """The tiny program, running until its input ends."""
    running = subprocess.Popen(
        [str(file), "wait"], env=environment, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "waits\n"
    return running


def trees(machine: dict[str, str]) -> list[Path]:
    return sorted(path for path in (Path(machine["HOME"]) / ".cache" / "agentcom").iterdir() if path.is_dir())


def test_the_first_start_unpacks_and_the_second_only_runs(tmp_path, machine):
    file = make(tmp_path)
    first = run(file, "a b", "--c", environment=machine)
    (tree,) = trees(machine)
    inode = tree.stat().st_ino
    second = run(file, "a b", "--c", environment=machine)
    assert (first.returncode, first.stderr) == (7, "")
    assert first.stdout == second.stdout == f"['a b', '--c'] {file} {tree} ['{tree}/site']\n"
    assert trees(machine)[0].stat().st_ino == inode


def test_many_first_starts_at_once_make_one_tree(tmp_path, machine):
    file = make(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: run(file, environment=machine), range(4)))
    assert [one.returncode for one in done] == [7] * 4, done
    assert len(trees(machine)) == 1


def test_nothing_of_the_callers_python_is_taken(tmp_path, machine):
    wrong = tmp_path / "wrong" / "tiny"
    wrong.mkdir(parents=True)
    (wrong / "__init__.py").write_text("raise SystemExit('taken')")
    (wrong.parent / "sitecustomize.py").write_text("raise SystemExit('taken')")
    (wrong.parent / "json.py").write_text("raise SystemExit('taken')")
    said = run(make(tmp_path), environment={**machine, "PYTHONPATH": str(wrong.parent), "PYTHONSTARTUP": "/x"})
    assert said.returncode == 7, said
    assert str(wrong.parent) not in said.stdout


def test_a_part_is_of_the_version_that_runs_even_when_the_file_has_been_replaced(tmp_path, machine):
    file = make(tmp_path, "first")
    running = begin(file, machine)
    (tree,) = trees(machine)
    make(tmp_path, "second")
    assert run(file, environment=machine).returncode == 7
    assert len(trees(machine)) == 2
    words = [machine["AGENTCOM_PYTHON"], "-I", "-S", f"{tree}/__main__.py", str(file), "tiny.app", "x"]
    part = subprocess.run(words, env=machine, cwd="/", capture_output=True, text=True, timeout=60)
    assert part.stdout == f"part ['x'] {file} {tree}\n", part
    said, _ = running.communicate("", timeout=60)
    assert (said, running.returncode) == ("first\n", 0)


def test_old_versions_go_when_nobody_runs_them_and_nobody_has_for_two_weeks(tmp_path, machine):
    for number, name in enumerate(["tiny", "tiny", "tiny", "tiny-er"]):  # the last one begins like ours
        assert run(make(tmp_path, f"version {number}", name), environment=machine).returncode == 7
    running = begin(make(tmp_path, "version 1"), machine)
    found = {(tree / "site/tiny/late.py").read_text()[-3]: tree for tree in trees(machine)}
    now = os.stat(found["2"]).st_mtime
    for key, age_s in (("0", 15 * DAY_S), ("1", 15 * DAY_S), ("2", 13 * DAY_S), ("3", 90 * DAY_S)):
        os.utime(found[key] / boot.LOCK_FILE, (now - age_s, now - age_s))
    assert run(make(tmp_path, "version 9"), environment=machine).returncode == 7
    assert not found["0"].exists(), "old, and nobody has it"
    assert found["1"].exists(), "somebody runs it"
    assert found["2"].exists(), "it was run lately"
    assert found["3"].exists(), "another program's"
    said, _ = running.communicate("", timeout=60)
    assert (said, running.returncode) == ("version 1\n", 0)


def test_a_start_is_a_use(tmp_path, machine):
    file = make(tmp_path)
    run(file, environment=machine)
    used = trees(machine)[0] / boot.LOCK_FILE
    os.utime(used, (1.0, 1.0))
    run(file, environment=machine)
    assert used.stat().st_mtime > DAY_S


def test_a_tree_has_its_name_when_all_of_it_is_on_the_disk(tmp_path, monkeypatch):
    file, tree = make(tmp_path), tmp_path / "cache" / "tiny-0"
    seen = []
    monkeypatch.setattr(os, "sync", lambda: seen.append((tree.exists(), (Path(f"{tree}.new") / "site/tiny").is_dir())))
    boot.unpack(str(file), {"name": "tiny", "id": "0"}, str(tree.parent), str(tree))
    assert seen == [(False, True)]
    assert (tree / "site/tiny/app.py").read_text() == TINY


def test_what_was_cut_off_while_it_unpacked_is_done_again(tmp_path, machine):
    file = make(tmp_path)
    run(file, environment=machine)
    (tree,) = trees(machine)
    tree.rename(f"{tree}.new")
    (Path(f"{tree}.new") / "site" / "tiny" / "app.py").write_text("half of i")
    assert run(file, environment=machine).returncode == 7
    assert trees(machine) == [tree]


def test_a_tree_that_others_could_write_to_is_not_run(tmp_path, machine):
    file = make(tmp_path)
    run(file, environment=machine)
    (tree,) = trees(machine)
    tree.chmod(0o777)
    said = run(file, environment=machine)
    assert (said.returncode, said.stdout) == (2, "")
    assert f"{tree} could be written to by others" in said.stderr
    shutil.rmtree(tree)
    tree.parent.chmod(0o777)
    assert f"{tree.parent} could be written to by others" in run(file, environment=machine).stderr
    assert trees(machine) == []


def test_a_folder_that_was_asked_for_has_no_second_choice(tmp_path, machine):
    file = make(tmp_path)
    taken = tmp_path / "taken"
    taken.write_text("")
    said = run(file, environment={**machine, "AGENTCOM_CACHE_DIR": str(taken)})
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == (
        f"tiny: has no folder to unpack itself into ({taken}: File exists); AGENTCOM_CACHE_DIR names another one\n"
    )
    asked = {**machine, "AGENTCOM_CACHE_DIR": str(tmp_path / "asked")}
    assert str(tmp_path / "asked" / "tiny-") in run(file, environment=asked).stdout
    # systemd's is taken where nobody asked, and what cannot be used is passed by.
    service = {**machine, "CACHE_DIRECTORY": f"{tmp_path}/service:{tmp_path}/second"}
    assert f"{tmp_path}/service/tiny-" in run(file, environment=service).stdout
    passed = run(file, environment={**machine, "CACHE_DIRECTORY": str(taken)})
    assert f"{machine['HOME']}/.cache/agentcom/tiny-" in passed.stdout


def test_another_python_is_told_what_is_needed(tmp_path, machine):
    file = make(tmp_path)
    missing = run(file, environment={**machine, "AGENTCOM_PYTHON": "/nowhere/python", "PATH": str(tmp_path)})
    ours = "{}.{}".format(*sys.version_info)
    assert missing.returncode == 2
    assert f"tiny: CPython {ours} is needed and is not in PATH" in missing.stderr
    data = file.read_bytes()
    file.write_bytes(data.replace(boot.tag().encode(), boot.tag().replace("cpython-3", "cpython-9").encode()))
    said = run(file, environment=machine)
    assert (said.returncode, said.stdout) == (2, "")
    assert f"was started with {boot.tag()}" in said.stderr


def test_a_machine_with_an_older_glibc_is_told(monkeypatch):
    fits = {"python": boot.tag(), "glibc": [2, 17]}
    boot.check_python(fits)
    with pytest.raises(boot.Refused, match=r"needs glibc 99\.1 or newer, this machine has \d+\.\d+"):
        boot.check_python({**fits, "glibc": [99, 1]})
    monkeypatch.setattr(os, "confstr", lambda _: "musl 1.2")
    with pytest.raises(boot.Refused, match=r"this machine has 0\.0"):
        boot.check_python(fits)


@pytest.mark.parametrize(
    ("wheels", "needed"),
    [
        ((), (0, 0)),
        ((b"Tag: py3-none-any\n",), (0, 0)),
        ((b"Tag: cp311-cp311-manylinux_2_17_x86_64\nTag: cp311-cp311-manylinux2014_x86_64\n",), (2, 17)),
        ((b"Tag: cp311-cp311-manylinux_2_28_x86_64\n", b"Tag: cp311-abi3-manylinux_2_9_x86_64\n"), (2, 28)),
    ],
)
def test_the_glibc_that_is_needed_is_that_of_the_wheel_which_needs_the_newest(wheels, needed):
    assert build.glibc(wheels) == needed


def test_where_it_may_be_unpacked():
    assert list(boot.caches({"AGENTCOM_CACHE_DIR": "/a", "CACHE_DIRECTORY": "/s", "HOME": "/h"})) == [("/a", True)]
    assert list(boot.caches({"CACHE_DIRECTORY": "/s:/t", "HOME": "/h"})) == [
        ("/s", False),
        ("/h/.cache/agentcom", False),
    ]
    assert list(boot.caches({"XDG_CACHE_HOME": "/x", "HOME": "/h"})) == [("/x/agentcom", False)]
    assert list(boot.caches({"XDG_CACHE_HOME": "relative", "HOME": "/h"})) == [("/h/.cache/agentcom", False)]
    ((folder, asked),) = boot.caches({})
    assert folder.endswith("/.cache/agentcom")
    assert not asked
