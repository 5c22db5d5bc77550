"""The one table of what the documentation says and no test runs, with the reason and what is looked at instead.

A command that is neither run nor in here fails `test_commands.py`; so does a row that no page needs.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Row:
    """Commands of a page (`docs/x.md`, `*`: any) that begin with `start`."""

    page: str
    start: str
    reason: str
    #: What is typed in its place, so that the page goes on; empty: nothing.
    instead: str = ""


#: All of them are parsed: by bash, and what names a program of ours by that program.
NOT_RUN: Final = (
    Row("README.md", "make setup", "installs from the network; CI itself begins with it"),
    Row("README.md", "make demo", "tests/e2e/test_commands.py runs it"),
    Row("README.md", "make test", "it is what runs this"),
    Row("docs/benchmarks.md", "make bench", "takes minutes; tests/bench/test_bench.py runs every row of it, small"),
    Row("docs/benchmarks.md", ".venv/bin/python -m tests.bench", "as above"),
    Row("docs/benchmarks.md", "BENCH_PROFILE=", "as above"),
    Row("docs/deployment.md", "make build", "tests/e2e/test_built.py builds the files and runs them"),
    Row("docs/deployment.md", "sha256sum --check", "as above"),
    Row("docs/deployment.md", "install -D -m 755", "as above"),
    Row("docs/deployment.md", "/opt/agentcom/bin/agentcom-hub --version", "as above"),
    Row("docs/deployment.md", "deploy/tls/agentcom-tls --dir deploy/containers/tls", "would write into the checkout"),
    Row("docs/deployment.md", "sudo chown", "there is no engine for containers here; tests/unit/test_containers.py"),
    Row("docs/deployment.md", "cd deploy/containers", "as above"),
    Row("docs/deployment.md", "docker compose", "as above"),
    Row("docs/deployment.md", "install -d secrets", "as above"),
    Row("docs/faults.md", "make faults", "takes minutes; tests/faults/test_quick.py runs every scenario, short"),
    Row("docs/faults.md", "python -m tests.faults", "as above"),
    Row(
        "docs/recipes/vpn.md",
        "scp hub:ca.crt hub:builder-1.key",
        "one machine plays all of them",
        instead="cp ../hub/ca.crt ../hub/builder-1.key .",
    ),
    Row(
        "docs/recipes/vpn.md",
        "scp hub:ca.crt hub:builder-2.key",
        "one machine plays all of them",
        instead="cp ../hub/ca.crt ../hub/builder-2.key .",
    ),
    Row(
        "docs/recipes/vpn.md",
        "agentcom repo add notes ssh://",
        "no ssh server here: the same repository, by its path",
        instead='agentcom repo add notes ./notes.git --check "test -s greetings.txt"',
    ),
    Row(
        "docs/recipes/proxy.md",
        "scp hub:",
        "one machine plays both",
        instead="cp ../../work/ca.crt ../../work/data/admin.token .",
    ),
    Row(
        "docs/onboarding.md", "systemctl", "there is no systemd of the machine's here; tests/unit/test_systemd_units.py"
    ),
)

#: Whole pages whose commands are run by something else.
NOT_PLAYED: Final = {
    "CONTRIBUTING.md": "names the targets of make, which CI runs",
}

#: Where a page finds programs; DOCS_PATH adds a folder in front, for those that are not installed.
MORE: Final = os.environ.get("DOCS_PATH", "")
PATH: Final = f"{MORE}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".strip(":")
#: Programs that a page needs besides ours and what every Linux has; where one is missing its page is skipped.
NEEDS: Final = {"docs/recipes/proxy.md": ("nginx", "caddy", "haproxy")}


def needs(page: str) -> str:
    """Why a page cannot be played here; empty: it can."""
    missing = [program for program in NEEDS.get(page, ()) if shutil.which(program, path=PATH) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


#: Dotted words in inline code that begin like a section of a configuration and are something else.
NOT_SETTINGS: Final = frozenset(
    {
        "store.base", "store.records", "store.room", "store.readers",  # a module; probes of the doctor
        "hub.crash", "hub.crash.last",  # files in the data folder
    }
)  # fmt: skip
#: Words in inline code that look like names of the contract and are something else.
NOT_CONTRACT: Final = frozenset({"ErrorInfo", "BadRequest", "RetryInfo"})  # of google.rpc
#: What begins like a path of the repository and is none.
NOT_PATHS: Final = frozenset[str]()
