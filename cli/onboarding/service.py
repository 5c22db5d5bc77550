"""What keeps a sidecar running on this machine: a unit of the user's systemd, or a plain process where there is none.

Both are asked the same things, and each may be asked twice: to install what is installed changes nothing, to start what
runs changes nothing, to stop what has stopped is done at once. Calls block; they run in a thread.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cli.onboarding import plain_process
from cli.onboarding.folder import AgentFolder, ServiceKind
from kit import errors, program

SYSTEMCTL_TIMEOUT_S = 20.0
# Longer than the sidecar's own three bounds together (600 s to finish, 90 s to stop, 15 s for last words).
STOP_S = 720.0
TAIL_LINES = 20

UNIT = """\
# Written by `agentcom agent add {name}`; `agentcom agent remove {name}` takes it away.
[Unit]
Description=AgentCom sidecar {name}
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
ExecStart={command}
{environment}
Restart=on-failure
RestartSec=5
# 2: the configuration is wrong. 3: the hub does not want it any more. Starting it again is no help.
RestartPreventExitStatus=2 3
# One TERM lets it finish what it holds; its children are its own business until the end.
KillMode=mixed
TimeoutStopSec={stop_s:.0f}
UMask=0077
NoNewPrivileges=yes
LimitCORE=0
OOMPolicy=continue
# Namespaces, mounts and system calls stay open: the sandbox of each command is made with them, and is much narrower.

[Install]
WantedBy=default.target
"""


class Service(Protocol):
    """Keeps one sidecar running."""

    kind: ServiceKind

    def install(self) -> str:
        """Make it known; returns what was done."""
        ...

    def environment(self) -> dict[str, str]:
        """What the sidecar will find in its environment."""
        ...

    def start(self) -> str:
        """Let it run; returns what was done. Raises Unavailable."""
        ...

    def is_running(self) -> bool: ...

    def stop(self, *, hurry: bool) -> None:
        """End it: it finishes what it holds first, or, with `hurry`, saves it. Raises Unavailable."""
        ...

    def uninstall(self) -> None:
        """Forget it; it has stopped."""
        ...

    def tail(self) -> str:
        """The end of what it logged."""
        ...


class Systemd:
    """A unit of the user's systemd."""

    kind: ServiceKind = "systemd"

    def __init__(self, folder: AgentFolder) -> None:
        self._folder = folder
        self.unit = f"agentcom-{folder.name}.service"
        home = os.environ.get("XDG_CONFIG_HOME", "")
        self.path = (Path(home) if home.startswith("/") else Path.home() / ".config") / "systemd" / "user" / self.unit

    def install(self) -> str:
        text = unit_text(self._folder.name, command(self._folder), _variables())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._folder.replace(self.path, text.encode())
        except OSError as error:
            raise errors.Unavailable(f"{self.path} cannot be written: {error.strerror}") from error
        _systemctl("daemon-reload")
        _systemctl("enable", "--quiet", self.unit)
        return f"unit {self.path}{'' if lingers() else ', ' + LINGER_HINT}"

    def environment(self) -> dict[str, str]:
        pairs = (line.split("=", 1) for line in _said("systemctl", "--user", "show-environment").splitlines())
        # What has a quote of the shell's around it is nothing that a sidecar needs.
        told = {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and not pair[1].startswith("$'")}
        return {**environment(told), **_variables()}

    def start(self) -> str:
        # A unit that failed too often is not started again until that is forgotten.
        _systemctl("reset-failed", self.unit, check=False)
        _systemctl("start", self.unit)
        return f"systemd user unit {self.unit}"

    def is_running(self) -> bool:
        return _systemctl("is-active", "--quiet", self.unit, check=False) == 0

    def stop(self, *, hurry: bool) -> None:
        if hurry:
            _systemctl("kill", "--kill-whom=main", "--signal=TERM", self.unit, check=False)
        _systemctl("stop", self.unit, check=False, timeout_s=STOP_S + SYSTEMCTL_TIMEOUT_S)
        if self.is_running():
            raise errors.Unavailable(f"the unit {self.unit} does not stop; see systemctl --user status {self.unit}")

    def uninstall(self) -> None:
        if self.path.exists():
            _systemctl("disable", "--quiet", self.unit, check=False)
            self.path.unlink(missing_ok=True)
        _systemctl("daemon-reload")
        _systemctl("reset-failed", self.unit, check=False)

    def tail(self) -> str:
        return _said(
            "journalctl", "--user", f"--unit={self.unit}", f"--lines={TAIL_LINES}", "--no-pager", "--output=cat"
        )


class Plain:
    """A process of its own session, found again by the file in which it wrote its number."""

    kind: ServiceKind = "process"

    def __init__(self, folder: AgentFolder) -> None:
        self._folder = folder
        self._process = plain_process.PlainProcess(folder.pid, folder.log, mark=str(folder.config))

    def install(self) -> str:
        return f"a plain process; after a reboot: agentcom agent add {self._folder.name} --resume"

    def environment(self) -> dict[str, str]:
        return environment(os.environ)

    def start(self) -> str:
        if self.is_running():
            return f"process {self._process.pid()} runs already"
        pid = self._process.start(command(self._folder), cwd=self._folder.path, environment=self.environment())
        return f"process {pid}, log {self._folder.log}"

    def is_running(self) -> bool:
        return self._process.pid() is not None

    def stop(self, *, hurry: bool) -> None:
        self._process.stop(hurry=hurry)

    def uninstall(self) -> None:
        self._folder.pid.unlink(missing_ok=True)

    def tail(self) -> str:
        return self._process.tail()


LINGER_HINT = "ends with your last login unless an admin allows it to stay: loginctl enable-linger"


def choose(wanted: str) -> ServiceKind:
    """`auto`: systemd where the user has one. Raises Invalid when systemd is wanted and is not there."""
    if wanted == "process":
        return "process"
    if has_systemd():
        return "systemd"
    if wanted == "systemd":
        raise errors.Invalid.of("--service", "`systemctl --user` does not work here; use --service process")
    return "process"


def of(kind: ServiceKind, folder: AgentFolder) -> Service:
    """The service of an agent."""
    return Systemd(folder) if kind == "systemd" else Plain(folder)


def has_systemd() -> bool:
    """Does this user's systemd answer?"""
    return shutil.which("systemctl") is not None and _systemctl("show-environment", check=False) == 0


def lingers() -> bool:
    """Does this user's systemd run when nobody is logged in? True where nobody can say."""
    return _said("loginctl", "show-user", getpass.getuser(), "--property=Linger", "--value").strip() != "no"


def unit_text(name: str, words: Sequence[str], variables: Mapping[str, str]) -> str:
    """The unit of a sidecar."""
    return UNIT.format(
        name=name,
        command=" ".join(map(_quoted, words)),
        environment="\n".join(
            f"Environment={_quoted(f'{key}={value}', expands=False)}" for key, value in variables.items()
        ),
        stop_s=STOP_S,
    )


def command(folder: AgentFolder) -> list[str]:
    """How this agent's sidecar is begun."""
    return [*program.node("sidecar"), "--config", str(folder.config)]


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Ours without what is AgentCom's: a token of the person who adds the agent is not the agent's to have, and what
    the sidecar is told stands in its configuration. But where its program finds Python is no matter of persons.
    """
    kept = program.VARIABLES
    return {name: value for name, value in ours.items() if name in kept or not name.startswith("AGENTCOM_")}


def _quoted(word: str, *, expands: bool = True) -> str:
    """A word for systemd: `%` starts a specifier everywhere, `$` a variable where the line `expands`."""
    if any(ord(character) < 32 for character in word):
        raise errors.Invalid.of("--dir", f"{word!r} has a control character in it")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped.replace("$", "$$") if expands else escaped}"'


def _variables() -> dict[str, str]:
    """What a unit needs of ours: systemd's own PATH knows no interpreter that a person installed."""
    ours = {name: os.environ[name] for name in program.VARIABLES if name in os.environ}
    return {"PATH": os.environ.get("PATH", os.defpath), **ours}


def _said(*words: str) -> str:
    """What a command of systemd prints; empty when it cannot be asked."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=SYSTEMCTL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def _systemctl(*words: str, check: bool = True, timeout_s: float = SYSTEMCTL_TIMEOUT_S) -> int:
    try:
        done = subprocess.run(
            ("systemctl", "--user", *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        if check:
            raise errors.Unavailable(f"systemctl --user {words[0]}: {error}") from error
        return -1
    if check and done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:500]
        raise errors.Unavailable(f"systemctl --user {words[0]}: {said or f'exit code {done.returncode}'}")
    return done.returncode
