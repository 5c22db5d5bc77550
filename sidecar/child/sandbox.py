"""The sandbox: commands that come from a repository or a task run under bubblewrap, where the machine has it.

What a command sees inside, and nothing else of the machine:

    read-only    the system's programs and libraries, a short list of /etc, the interpreters in PATH, `readable`
    read-write   its working tree (without `.git`), a private git folder in place of the tree's own (repo/box.py), and
                 the declared caches
    private      /tmp, /var/tmp, the home folder: empty at each start, gone at its end; /proc, /dev, its own loopback
    hidden       the sidecar's state (token, journal), the other working trees, /run, /sys, the rest of /home and /etc

It has its own process numbers, so what leaves its process group dies with it; no capability, and no way to gain one;
and no network unless the task's policy grants it. bubblewrap dies with the sidecar (`--die-with-parent`).

The private folders are new for each command: mount points are made in them, and a link that an earlier command had
planted there would have bubblewrap make them elsewhere.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit import logs
from sidecar.child import environment, process
from sidecar.core.selftest import Finding

log = logs.get(__name__)

SandboxMode = Literal["auto", "required", "off"]

PROGRAM = "bwrap"
PROBE = "sandbox"
PROBE_TIMEOUT_S = 10.0

_FLAGS = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
    "--die-with-parent", "--new-session", "--cap-drop", "ALL",
)  # fmt: skip
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store")
# What programs look up to run at all. Not /etc as a whole: it holds keys, and a sidecar may run as root.
_ETC = (
    "passwd", "group", "nsswitch.conf", "hosts", "host.conf", "localtime", "timezone", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "alternatives", "ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "pki/tls", "pki/ca-trust",
    "ca-certificates", "ca-certificates.conf", "mime.types", "magic", "protocols", "services", "terminfo", "inputrc",
    "fonts", "perl", "python3", "python3.11", "python3.12", "python3.13", "os-release", "debian_version", "lsb-release",
)  # fmt: skip
_ETC_FOR_NETWORK = ("resolv.conf", "gai.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """How commands of repositories and tasks are confined. Every path is absolute and resolved."""

    #: "auto": where it works. "required": nothing runs without it. "off": never.
    mode: SandboxMode = "auto"
    #: Folders that commands may write to besides their tree, shared by all of them.
    caches: tuple[Path, ...] = ()
    #: Folders that commands may read besides the system.
    readable: tuple[Path, ...] = ()
    #: Never seen inside, even below a readable folder: the sidecar's own.
    hidden: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A path of the machine that is seen inside, perhaps under another name."""

    source: Path
    target: Path
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The inside of the sandbox for one command."""

    tree: Path
    #: An empty folder for this command alone: /tmp and the home folder lie in it.
    private: Path
    network: bool = False
    #: In this order, after everything else.
    mounts: tuple[Mount, ...] = ()


class Sandbox:
    """How this sidecar confines commands. Whether it works is tried once, at the start: it is never given up later."""

    def __init__(self, settings: SandboxSettings, work_dir: Path) -> None:
        self.settings = settings
        self._work_dir = work_dir.resolve()
        self._program = shutil.which(PROGRAM) if settings.mode != "off" else None
        self._tried = False
        #: Commands are confined. False until `start`.
        self.is_on = False

    async def start(self, launcher: process.Launcher) -> None:
        """Try it, once, and make the caches."""
        if not self._tried:
            wrong = await self._try(launcher)
            self.is_on = not wrong
            if wrong and self.settings.mode != "off":
                log.warning("sandbox.missing", mode=self.settings.mode, reason=wrong)
            self._tried = True

    async def probe(self, launcher: process.Launcher) -> Finding:
        """Does it still do what was found at the start? One that worked and does not now fails the self-test."""
        mode = self.settings.mode
        if mode == "off":
            return Finding(probe=PROBE, passed=True, message="turned off by sandbox.mode: commands run unconfined")
        wrong = await self._try(launcher)
        if not wrong:
            return Finding(probe=PROBE, passed=True, message="confines commands")
        if mode == "required":
            message = f"sandbox.mode is required, and it does not work: {wrong}"
            return Finding(probe=PROBE, passed=False, message=message)
        if self.is_on:
            return Finding(probe=PROBE, passed=False, message=f"it worked at the start and does not now: {wrong}")
        return Finding(probe=PROBE, passed=True, message=f"none, commands run unconfined: {wrong}")

    def prefix(self, cell: Cell, variables: Mapping[str, str]) -> tuple[str, ...]:
        """bubblewrap and its options, for Order.sandbox."""
        assert self._program is not None
        options = [self._program, *_FLAGS]
        if not cell.network:
            options.append("--unshare-net")
        options += _system(cell.network)
        options += self._private(cell, variables)
        for path in self._readable(variables.get("PATH", "")):
            options += ("--ro-bind", str(path), str(path))
        options += self._masks()
        for cache in self.settings.caches:
            options += ("--bind", str(cache), str(cache))
        options += ("--bind", str(cell.tree), str(cell.tree))
        for mount in cell.mounts:
            options += ("--bind" if mount.writable else "--ro-bind", str(mount.source), str(mount.target))
        return (*options, "--chdir", str(cell.tree))

    def _private(self, cell: Cell, variables: Mapping[str, str]) -> list[str]:
        temporary, home = cell.private / "tmp", cell.private / "home"
        temporary.mkdir(mode=0o700, parents=True)
        home.mkdir(mode=0o700)
        options = ["--bind", str(temporary), "/tmp", "--bind", str(temporary), "/var/tmp", "--dir", "/run"]
        own = Path(variables.get("HOME", ""))
        if own.is_absolute() and own != Path("/") and not _within(own, map(Path, _SYSTEM)):
            options += ("--bind", str(home), str(own))
        return options

    def _readable(self, path: str) -> list[Path]:
        """Beyond the system: the interpreters in PATH and of this process, and what the configuration declares."""
        home = Path.home()
        candidates = [Path(sys.prefix), Path(sys.base_prefix)]
        for entry in map(Path, path.split(os.pathsep)):
            if entry.is_absolute():
                candidates += _installation(entry, home)
        found: list[Path] = []
        for candidate in (*candidates, *self.settings.readable):
            if candidate.exists() and candidate != Path("/") and not _within(candidate, (*map(Path, _SYSTEM), *found)):
                found.append(candidate)
        # A home folder is never readable as a whole by accident: only where the configuration names it.
        return [path for path in found if not home.is_relative_to(path) or path in self.settings.readable]

    def _masks(self) -> list[str]:
        """Over what was made readable: the sidecar's own."""
        options: list[str] = []
        for path in dict.fromkeys((self._work_dir, *self.settings.hidden)):
            if path.is_dir():
                options += ("--tmpfs", str(path))
            elif path.exists():
                options += ("--ro-bind", os.devnull, str(path))
        return options

    async def _try(self, launcher: process.Launcher) -> str:
        """Really run a command in it; what is wrong, or empty."""
        if self._program is None:
            return f"there is no {PROGRAM} in PATH: install bubblewrap" if self.settings.mode != "off" else "turned off"
        for cache in self.settings.caches:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self._work_dir / "boxes" / "probe"
        discarded = ("rm", "-rf", "--", str(folder))
        variables = environment.for_child()
        await launcher.run(_plain(discarded, variables))
        (folder / "tree").mkdir(parents=True)
        (folder / "outside").touch()
        try:
            cell = Cell(tree=folder / "tree", private=folder / "private")
            # It must run, write to its tree, and neither see what lies around it nor write to the system.
            script = "touch here && test ! -e ../outside && ! touch /usr/here 2>/dev/null && echo ready"
            order = process.Order(
                argv=("sh", "-c", script),
                cwd=folder / "tree",
                environment=variables,
                timeout_s=PROBE_TIMEOUT_S,
                sandbox=self.prefix(cell, variables),
            )
            ended = await launcher.run(order)
        finally:
            await launcher.run(_plain(discarded, variables))
        if ended.succeeded and ended.output.text == "ready\n":
            return ""
        said = " ".join(ended.output.text.split())[:300]
        return f"{PROGRAM} ended with {ended.exit_code}: {said or 'it said nothing'}"


def _installation(entry: Path, home: Path) -> list[Path]:
    """What a folder of PATH needs around it: programs in `x/bin` live off `x`, and shims off what they choose from.

    Not where the folder around it holds other things: credentials in ~/.cargo, the rest of a life in ~ and ~/.local.
    """
    root = entry.parent
    if entry.name not in ("bin", "shims") or root in (home, home / ".local"):
        return [entry]
    if root == home / ".cargo":
        return [entry, home / ".rustup"]
    return [root, (entry / "python").resolve().parent.parent] if (root / "pyvenv.cfg").is_file() else [root]


def _plain(argv: tuple[str, ...], variables: Mapping[str, str]) -> process.Order:
    return process.Order(argv=argv, cwd=Path("/"), environment=variables, timeout_s=PROBE_TIMEOUT_S)


def _system(network: bool) -> list[str]:
    options: list[str] = []
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink() and not path.readlink().is_absolute():
            options += ("--symlink", str(path.readlink()), name)
        elif path.is_dir():
            options += ("--ro-bind", name, name)
    # Settings of the kernel: bubblewrap leaves them to the file's owner, and that is us when the sidecar is root.
    options += ("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys")
    if os.geteuid() == 0:
        options += ("--remount-ro", "/proc")
    options += ("--dev", "/dev")
    for name in (*_ETC, *(_ETC_FOR_NETWORK if network else ())):
        options += ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
    return options


def _within(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
