"""Types a page of the documentation, command by command, and says where it is wrong.

    python -m tests.docs.play docs/operations.md --folder /tmp/x [--to 12] [--show]

The page gets a network of its own (so that it may use the ports that it names, whoever else does), its own /etc and its
own home. Exit code 0: every command did what the page says.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.docs import exceptions, markdown, script, stage, terminal

#: Set in the process that already is in its own namespaces.
INSIDE: Final = "AGENTCOM_DOCS_INSIDE"
#: Commands that only look: where what they show is not there yet, they are typed again, as a reader would.
LOOKS: Final = ("list", "show", "status", "explain", "stats", "alerts", "doctor", "log", "changes", "cat", "git -C")
#: Names that pages use for the hub's machine, and addresses of a VPN; all of them are this machine.
NAMES: Final = ("hub.example", "hub.vpn.example")
ADDRESSES: Final = ("10.20.0.1/32", "10.20.0.2/32", "10.20.0.3/32")
#: Folders of the machine's that pages write to: here what they write lies over them and goes with the page.
WRITTEN: Final = ("/etc", "/opt", "/var/lib")
#: `# On the machine NAME`, `# On the machine NAME, in another terminal`: a home of its own for each NAME.
MACHINE: Final = "On the machine "
LINKED: Final = ("deploy", "docs", "protos", ".venv")


class Player:
    """One page being typed."""

    def __init__(self, page: markdown.Page, folder: Path, *, show: bool) -> None:
        self._page, self._folder, self._show = page, folder, show
        self._stage = stage.STAGES.get(page.name, stage.DEFAULT)
        self._logs = folder / "logs"
        self._here = folder / "work"
        for made in (self._logs, self._here, folder / "machines"):
            made.mkdir(parents=True)
        self._terminals: dict[str, terminal.Terminal] = {}
        self._running: list[terminal.Running] = []
        self._printed = ""

    def play(self, to: int | None = None) -> None:
        """Type everything up to line `to`. Raises terminal.Failed."""
        before = self._folder / "stage.md"
        before.write_text(self._stage.before)
        try:
            self._all(script.steps(markdown.read(before)), "stage")
            wanted = [step for step in script.steps(self._page) if to is None or step.line <= to]
            self._all(list(_played(self._page.name, wanted)), self._page.name)
        except terminal.Failed as failure:
            raise terminal.Failed(f"{failure}\n{self._ends()}") from failure
        finally:
            for shell in reversed(self._terminals.values()):
                shell.close()

    def _all(self, steps: Sequence[script.Step], page: str) -> None:
        for step in steps:
            started = time.monotonic()
            try:
                self._step(step)
            except (terminal.Failed, LookupError) as failure:
                raise terminal.Failed(f"{page}:{step.line}: {step.command}\n{failure}") from failure
            if self._show:
                print(f"{time.monotonic() - started:6.2f} s  {page}:{step.line}  {step.command.splitlines()[0]}")

    def _step(self, step: script.Step) -> None:
        shell = self._terminal(step.where)
        if step.command == script.INTERRUPT:
            shell.interrupt()
            return
        command = script.fill(step.command, self._printed + "".join(one.said() for one in self._running))
        if step.forever:
            running = shell.start(command)
            self._running.append(running)
            expected = step.expected or ()
            running.until(lambda said: bool(said) and not script.missing(expected, said), f"printed {expected}")
            return
        end = time.monotonic() + terminal.PATIENCE_S / 3
        while True:
            code, printed = shell.type(command)
            lacks = script.missing(step.expected, printed) if step.expected else ""
            if (code == step.code and not lacks) or not _looks(command) or time.monotonic() > end:
                break
        self._printed += printed
        if self._show:
            print("\n".join(f"          | {line}" for line in printed.splitlines()[:40]))
        if code != step.code:
            raise terminal.Failed(f"exit code {code}, not {step.code}:\n{printed[-3_000:]}")
        if lacks:
            raise terminal.Failed(f"does not print (in this order) {lacks!r}, but:\n{printed[-3_000:]}")

    def _terminal(self, where: str) -> terminal.Terminal:
        if where not in self._terminals:
            machine = where.removeprefix(MACHINE).partition(",")[0] if where.startswith(MACHINE) else ""
            home = self._folder / "machines" / machine if machine else self._folder / "home"
            home.mkdir(exist_ok=True)
            (home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
            folder = home if machine else self._here
            for name in LINKED:
                if not (folder / name).is_symlink():
                    (folder / name).symlink_to(markdown.ROOT / name)
            self._terminals[where] = terminal.Terminal(where, folder, self._environment(home), self._logs)
        return self._terminals[where]

    def _environment(self, home: Path) -> dict[str, str]:
        path = exceptions.PATH
        if self._stage.activated:
            path = f"{Path(sys.executable).parent}:{path}"
        return {
            "PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb", "USER": "ada", "TZ": "UTC",
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    def _ends(self) -> str:
        """The ends of the logs that our programs left, for whoever must find out."""
        files = [*self._folder.glob("work/**/*.log"), *self._folder.glob("machines/**/*.log")]
        return "\n".join(f"-- {file.name}\n{file.read_text(errors='replace')[-1_500:]}" for file in files[:6])


def left_out(page: str, command: str) -> exceptions.Row | None:
    """The row of the table of what is not run that has this command; None: it is run."""
    rows = (row for row in exceptions.NOT_RUN if row.page in ("*", page) and command.startswith(row.start))
    return next(rows, None)


def _played(page: str, steps: Sequence[script.Step]) -> Iterator[script.Step]:
    for step in steps:
        row = left_out(page, step.command)
        if row is None:
            yield step
        elif row.instead:
            yield script.Step(step.line, step.where, row.instead, expected=step.expected)


def cannot() -> str:
    """Why no page can be played here; empty: it can."""
    made = subprocess.run([*_apart(), "true"], capture_output=True, text=True, check=False)
    return "" if made.returncode == 0 else f"no namespaces here: {made.stderr.strip()[:200]}"


def _apart() -> list[str]:
    more = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *more, "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]


def _looks(command: str) -> bool:
    words = script.words_of(command)
    if words.startswith(("cat ", "git -C")):
        return True
    return words.startswith("agentcom ") and any(f" {word}" in words for word in LOOKS)


def _furnish(folder: Path) -> None:
    """Inside: a loopback, the names and addresses of the pages, and places of root's that may be written."""
    _run("ip", "link", "set", "lo", "up")
    for address in ADDRESSES:
        _run("ip", "address", "add", address, "dev", "lo")
    for place in WRITTEN:
        upper = folder / place.strip("/").replace("/", "-")
        upper.mkdir()
        _run("mount", "-t", "tmpfs", "tmpfs", str(upper))
        for name in ("changed", "scratch"):
            (upper / name).mkdir()
        layers = f"lowerdir={place},upperdir={upper}/changed,workdir={upper}/scratch"
        _run("mount", "-t", "overlay", "overlay", "-o", layers, place)
    hosts = Path("/etc/hosts")
    hosts.write_text(hosts.read_text() + "".join(f"127.0.0.1 {name}\n" for name in NAMES))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play one page; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder, for everything that it leaves")
    parser.add_argument("--to", type=int, help="stop behind this line")
    parser.add_argument("--show", action="store_true", help="say what is typed, and what comes")
    chosen = parser.parse_args(arguments)
    if INSIDE not in os.environ:
        # bash is the first process there, because it takes in the orphans of the page
        words = [sys.executable, "-m", "tests.docs.play", *(sys.argv[1:] if arguments is None else arguments)]
        inside = [*_apart(), "bash", "-c", '"$@"; exit $?', "bash", *words]
        return subprocess.run(inside, env={**os.environ, INSIDE: "1"}, check=False).returncode
    folder = chosen.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    _furnish(folder)
    try:
        Player(markdown.read(chosen.page.absolute()), folder, show=chosen.show).play(chosen.to)
    except terminal.Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
