"""A systemd of a user's own, real and apart from the machine's: in namespaces, with a cgroup that is gone afterwards.

Only where we are root and the machine has the parts (cgroup hierarchy `name=systemd`, unshare, dbus); `why_not` says
what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

SYSTEMD = Path("/usr/lib/systemd/systemd")
HIERARCHY = Path("/sys/fs/cgroup/systemd")
PROGRAMS = ("unshare", "dbus-daemon", "systemctl", "mount")
TIMEOUT_S = 240
#: A cgroup can be removed when the kernel has done with the last process in it.
EMPTY_S = 10.0

# $1: the home folder; the rest: a command. An own /run makes systemd believe that the machine was booted with one.
SCRIPT = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p -m 700 /run/systemd/system /run/user/0
umount /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
export HOME="$1" XDG_RUNTIME_DIR=/run/user/0 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/0/bus
unset XDG_CONFIG_HOME XDG_STATE_HOME
shift
dbus-daemon --session --address="$DBUS_SESSION_BUS_ADDRESS" --nofork --nopidfile --syslog-only >/dev/null 2>&1 &
/usr/lib/systemd/systemd --user --log-target=null >/dev/null 2>&1 &
tries=0
until systemctl --user show-environment >/dev/null 2>&1; do
    tries=$((tries + 1)); test $tries -lt 100 || { echo "systemd did not come up" >&2; exit 99; }
    sleep 0.1
done
"$@"
"""


def why_not() -> str:
    """What is missing for one; empty: nothing."""
    if os.geteuid():
        return "not root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    missing += [str(path) for path in (SYSTEMD, HIERARCHY / "cgroup.procs") if not path.exists()]
    return f"no {', '.join(missing)}" if missing else ""


def run(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command where `systemctl --user` speaks to a systemd that lives as long as the command."""
    home.mkdir(parents=True, exist_ok=True)
    group = HIERARCHY / f"agentcom-test-{os.getpid()}"
    group.mkdir()
    enter = f'echo $$ > {group}/cgroup.procs; exec unshare -m -C -p -f --mount-proc --kill-child sh -c "$0" sh "$@"'
    try:
        return subprocess.run(
            ["sh", "-c", enter, SCRIPT, str(home), *words], env={**os.environ, **environment},
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    end = time.monotonic() + EMPTY_S
    while group.exists():
        try:
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                folder.rmdir()
            group.rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
