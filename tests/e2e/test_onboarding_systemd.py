"""`agentcom agent add` with a real systemd of the user: the unit starts, comes back after a crash, and goes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from kit import errors
from tests.support import userd
from tests.support.fleet import Fleet

missing = userd.why_not()
pytestmark = pytest.mark.skipif(bool(missing), reason=f"no systemd to be had here: {missing}")

#: $1 the agents' folder, the rest the command line. A blank and a percent sign in the folder are meant.
SCENE = """
set -e
base="$1"; shift
step() { echo "== $1"; }
is_active() { systemctl --user is-active --quiet agentcom-ada; }
until_active() { n=0; until is_active; do n=$((n+1)); test $n -lt 300; sleep 0.1; done; }
step add; "$@" add ada --dir "$base" --service systemd
step main; pid=$(systemctl --user show -p MainPID --value agentcom-ada); tr '\\0' '\\n' < /proc/$pid/environ
step crash; kill -9 $pid
n=0; until new=$(systemctl --user show -p MainPID --value agentcom-ada) && test "$new" != 0 && test "$new" != $pid
do n=$((n+1)); test $n -lt 300; sleep 0.1; done; until_active
step resume; "$@" add ada --dir "$base" --resume
step rejoin; "$@" add ada --dir "$base" --rejoin --yes
step stopped; systemctl --user stop agentcom-ada; "$@" add ada --dir "$base" --resume; until_active
step remove; "$@" remove ada --dir "$base" --purge
step left; ls -A "$base"; ls -A "$HOME/.config/systemd/user"; systemctl --user is-active agentcom-ada || true
"""


async def test_a_unit_of_the_users_systemd_keeps_an_agent(fleet: Fleet, tmp_path: Path):
    await fleet.start_hub()
    base = tmp_path / "age nts 5%"
    cli = (sys.executable, "-m", "cli", "--hub", fleet.address, "agent")
    done = await asyncio.to_thread(userd.run, tmp_path / "home", "sh", "-c", SCENE, "sh", str(base), *cli)
    parts = dict(part.split("\n", 1) for part in done.stdout.split("== ")[1:])
    assert done.returncode == 0, done
    assert "agentcom-ada.service" in parts["add"]
    assert "AGENTCOM_" not in parts["main"]
    assert list(parts) == ["add", "main", "crash", "resume", "rejoin", "stopped", "remove", "left"]
    assert parts["left"].split() == ["inactive"], "neither folder nor unit nor link is left"
    with pytest.raises(errors.NotFound):
        await fleet.agent("ada")
