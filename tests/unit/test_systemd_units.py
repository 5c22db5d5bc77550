"""The units of deploy/systemd: systemd takes them, they are as tight as they say, and they agree with the programs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cli.onboarding import service
from hub import __main__ as hub_main
from sidecar import __main__ as sidecar_main

UNITS = Path(__file__).resolve().parent.parent.parent / "deploy" / "systemd"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
#: systemd's own measure, 0 (tight) to 10. An ordinary service has 9.6.
EXPOSURE_MAX = 1.5


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda unit: unit.name)
def test_systemd_takes_each_unit(unit: Path, tmp_path: Path):
    # The programs are not installed here; that they are missing is all that may be said.
    text = re.sub(r"ExecStart=/opt/agentcom/bin/[a-z-]+", "ExecStart=/bin/true", unit.read_text())
    copy = tmp_path / unit.name
    copy.write_text(text)
    said = analyze("verify", "--man=no", "--recursive-errors=no", str(copy))
    assert [line for line in said.stderr.splitlines() if "agentcom" in line] == []


@needs_systemd
@pytest.mark.parametrize("name", ["hub", "dashboard"])
def test_services_of_the_system_are_confined(name: str):
    said = analyze("security", "--offline=yes", "--no-pager", str(UNITS / f"agentcom-{name}.service"))
    level = re.search(r"exposure level for .*: ([\d.]+)", said.stdout + said.stderr)
    assert level is not None, said
    assert float(level[1]) <= EXPOSURE_MAX


def test_the_unit_for_other_tools_says_what_the_one_of_agent_add_says():
    ours = service.unit_text("%i", ["x"], {"PATH": "y"}).splitlines()
    theirs = (UNITS / "agentcom-sidecar@.service").read_text().splitlines()
    own = ("#", "ExecStart=", "Environment=", "")

    def rules(lines: list[str]) -> list[str]:
        return [line for line in lines if line and not line.startswith(own[:3])]

    assert rules(ours) == rules(theirs)


@pytest.mark.parametrize("name", ["hub", "dashboard"])
def test_a_built_file_may_unpack_itself_where_everything_else_is_read_only(name: str):
    text = (UNITS / f"agentcom-{name}.service").read_text()
    assert "ProtectSystem=strict" in text
    assert f"CacheDirectory=agentcom/{name}\n" in text


def test_what_no_start_can_mend_is_not_started_again():
    codes = f"RestartPreventExitStatus={sidecar_main.EXIT_USAGE} {sidecar_main.EXIT_REFUSED}"
    assert codes in (UNITS / "agentcom-sidecar@.service").read_text()
    assert "RestartPreventExitStatus=2" in (UNITS / "agentcom-hub.service").read_text()
    assert hub_main.main(["--config", "/nowhere/hub.toml"]) == 2
