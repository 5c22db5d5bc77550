"""Every command of the documentation is typed as its reader would, or is in the table of what cannot be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs import exceptions, markdown, names, play, script

#: A bound for failures: the longest page takes a fifth of it.
PAGE_TIMEOUT_S = 600
#: As many as the smallest machine of ours has cores.
AT_ONCE = 2
PAGES = [markdown.read(path) for path in markdown.pages()]
STEPS = {page.name: script.steps(page) for page in PAGES}
PLAYED = [
    page.name
    for page in PAGES
    if page.name not in exceptions.NOT_PLAYED
    and any(play.left_out(page.name, step.command) is None for step in STEPS[page.name])
]


@pytest.fixture(scope="module")
def plays(request, tmp_path_factory) -> Iterator[Mapping[str, Future[str]]]:
    """What is wrong with each page of this run; they share nothing, so that two are typed at once."""
    wanted = [item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        pages = [name for name in dict.fromkeys(wanted) if name in PLAYED]
        folders = {name: tmp_path_factory.mktemp(markdown.anchor(name)) for name in pages}
        yield {name: pool.submit(_play, name, folders[name]) for name in pages}
        pool.shutdown(cancel_futures=True)


def _play(name: str, folder: Path) -> str:
    if exceptions.needs(name) or play.cannot():
        return ""
    words = [sys.executable, "-m", "tests.docs.play", str(markdown.ROOT / name), "--folder", str(folder / "page")]
    path = f"{markdown.ROOT}:{markdown.ROOT / 'gen'}"
    made = subprocess.run(
        words, cwd=markdown.ROOT, env={"PATH": exceptions.PATH, "PYTHONPATH": path, "DOCS_PATH": exceptions.MORE},
        capture_output=True, text=True, timeout=PAGE_TIMEOUT_S, check=False,
    )  # fmt: skip
    return "" if made.returncode == 0 else made.stderr or f"ended with {made.returncode}"


@pytest.mark.parametrize("name", PLAYED)
def test_every_command_of_a_page_does_what_the_page_says(name, plays):
    if why := play.cannot() or exceptions.needs(name):
        pytest.skip(why)
    wrong = plays[name].result(timeout=PAGE_TIMEOUT_S * len(PLAYED))
    assert not wrong, wrong


def test_what_is_not_run_is_good_shell_and_names_what_our_programs_know():
    for page in PAGES:
        for step in STEPS[page.name]:
            if play.left_out(page.name, step.command) is None and page.name not in exceptions.NOT_PLAYED:
                continue
            parsed = subprocess.run(["bash", "-n"], input=step.command, capture_output=True, text=True, check=False)
            assert parsed.returncode == 0, f"{page.name}:{step.line}: {parsed.stderr}"
            assert not list(names.faults_of(step.command)), f"{page.name}:{step.line}"


def test_every_row_of_the_table_of_exceptions_is_needed_and_says_why():
    for row in exceptions.NOT_RUN:
        assert row.reason
        assert any(
            step.command.startswith(row.start)
            for page in PAGES
            if row.page in ("*", page.name)
            for step in STEPS[page.name]
        ), f"no page has {row.start!r} of {row.page}"
    for name in exceptions.NOT_PLAYED:
        assert (markdown.ROOT / name).exists()


def test_what_runs_until_ctrl_c_says_what_it_prints_when_it_is_ready():
    for page in PAGES:
        for step in STEPS[page.name]:
            if step.forever and play.left_out(page.name, step.command) is None:
                assert step.expected, f"{page.name}:{step.line}: {step.command}"


def test_programs_that_pages_need_are_looked_for(monkeypatch):
    monkeypatch.setattr(exceptions, "NEEDS", {"docs/x.md": ("no-such-program-anywhere",)})
    assert "no-such-program-anywhere" in exceptions.needs("docs/x.md")
    assert exceptions.needs("docs/y.md") == ""
    assert Path(sys.executable).exists()
