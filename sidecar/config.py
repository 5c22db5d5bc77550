"""The sidecar's configuration: a TOML file, AGENTCOM_SIDECAR_* variables, and flags, in that order of precedence.

agent = "builder-1"            # empty: the hub invents one at the first start
slots = 2
executors = ["shell"]
[sandbox]
caches = ["~/.cache/pip"]  # what commands may write to besides their working tree
[hub]
address = "grpcs://hub.example:7420"
join_key = "..."               # for the first start only
"""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kit import channel, config, errors, ids, wire
from kit.config import setting
from kit.logs import LogConfig
from kit.telemetry import TelemetryConfig
from sidecar.child.sandbox import SandboxMode, SandboxSettings
from sidecar.core.assignment import Kind
from sidecar.settings import RunnerSettings

PREFIX = "AGENTCOM_SIDECAR"
ADDRESS_DEFAULT = wire.ADDRESS_DEFAULT
MIB = 1024 * 1024
DAY_S = 86_400.0
KINDS: tuple[Kind, ...] = ("work", "verify", "merge")
#: A PEM bundle or a token; more is a mistaken path.
FILE_BYTES_MAX = MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSection:
    """Where the hub is and how we prove who we are."""

    address: str = setting(ADDRESS_DEFAULT, low=1, high=300)
    #: This agent's token; empty: from token_file, or from the enrolment kept in the state folder.
    token: str = setting("", high=200, secret=True)
    token_file: Path | None = None
    #: One-time key for the enrolment at the first start; empty: an open hub on this machine needs none.
    join_key: str = setting("", high=128, secret=True)
    #: The same, in a file.
    join_key_file: Path | None = None
    #: PEM files for grpcs://, read again for each connection; without ca_file the system's authorities are trusted.
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    #: True: send the token over a network without TLS (a tunnel does the encryption).
    plaintext: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutSection:
    """How long things may take, in seconds."""

    reconnect_base_s: float = setting(1.0, low=0.001, high=60)
    #: Everybody is back within so long of a hub that was away; a thousand of them are then 250 tries a second.
    reconnect_cap_s: float = setting(8.0, low=0.001, high=3600)
    #: A stream that held this long starts the backoff anew.
    healthy_s: float = setting(10.0, low=0, high=3600)
    welcome_s: float = setting(20.0, low=0.1, high=300)
    #: After the first SIGTERM: for what is held to be finished; then for it to be stopped; then for the last words.
    drain_s: float = setting(600.0, low=0, high=DAY_S)
    stop_s: float = setting(90.0, low=0.1, high=3600)
    farewell_s: float = setting(15.0, low=0.1, high=600)
    self_test_every_s: float = setting(300.0, low=1, high=DAY_S)
    kill_grace_s: float = setting(5.0, low=0.1, high=120)
    git_s: float = setting(120.0, low=1, high=3600)
    git_network_s: float = setting(600.0, low=1, high=7200)
    wip_s: float = setting(60.0, low=1, high=3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSection:
    """How commands of repositories and tasks are confined; docs/sandbox.md."""

    #: "auto": where it works. "required": this machine runs nothing without it. "off": never.
    mode: str = setting("auto", choices=("auto", "required", "off"))
    #: Folders that commands may write to besides their working tree, and share, such as ~/.cache/pip.
    caches: tuple[str, ...] = setting((), high=32)
    #: Folders that commands may read besides the system and the interpreters in PATH.
    readable: tuple[str, ...] = setting((), high=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a sidecar may be told."""

    hub: HubSection = setting(HubSection)
    timeout: TimeoutSection = setting(TimeoutSection)
    log: LogConfig = setting(LogConfig)
    sandbox: SandboxSection = setting(SandboxSection)
    telemetry: TelemetryConfig = setting(TelemetryConfig)
    #: The agent's id; empty: as enrolled, or invented by the hub.
    agent: str = setting("", high=63)
    display_name: str = setting("", high=100)
    #: Journal, lock and identity; one sidecar a folder.
    state_dir: Path = setting(Path("~/.local/state/agentcom/sidecar"))
    #: Clones and worktrees; None: "work" in the state folder.
    work_dir: Path | None = None
    #: Tasks held at once.
    slots: int = setting(1, low=0, high=256)
    capabilities: tuple[str, ...] = setting((), high=64)
    executors: tuple[str, ...] = setting(("shell",), low=1, high=16)
    kinds: tuple[str, ...] = setting(KINDS, low=1, choices=KINDS)
    #: Repositories that are worked on; empty: any.
    repos: tuple[str, ...] = setting((), high=128)
    #: Names of variables that children may see besides the built-in list.
    pass_environment: tuple[str, ...] = setting((), high=64)
    #: Less free disk than this makes the sidecar unavailable.
    disk_free_bytes_min: int = setting(512 * MIB, low=0)
    #: Rounds in which an executor may repair a red check.
    repair_round_count_max: int = setting(2, low=0, high=10)
    #: Larger files are not committed; a change as a whole may weigh so much, and have so many files.
    file_bytes_max: int = setting(100 * MIB, low=1)
    change_bytes_max: int = setting(512 * MIB, low=1)
    change_file_count_max: int = setting(20_000, low=1, high=100_000)

    def __post_init__(self) -> None:
        if self.agent and not ids.is_slug(self.agent):
            raise errors.Invalid.of("agent", f"{self.agent!r} is not an id: a-z, 0-9 and dashes, at most 63 characters")
        if self.timeout.reconnect_base_s > self.timeout.reconnect_cap_s:
            raise errors.Invalid.of("timeout.reconnect_base_s", "must not be longer than timeout.reconnect_cap_s")
        if (self.hub.certificate_file is None) != (self.hub.key_file is None):
            raise errors.Invalid.of("hub.certificate_file", "goes together with hub.key_file")
        channel.parse_address(self.hub.address, field="hub.address")
        self._check_caches()

    @property
    def state_path(self) -> Path:
        """The state folder, in full."""
        return self.state_dir.expanduser().resolve()

    def runner(self) -> RunnerSettings:
        """The runner's part."""
        work_dir = self._work_path
        return RunnerSettings(
            work_dir=work_dir,
            executors=self.executors,
            pass_environment=self.pass_environment,
            kill_grace_s=self.timeout.kill_grace_s,
            git_timeout_s=self.timeout.git_s,
            git_network_timeout_s=self.timeout.git_network_s,
            wip_timeout_s=self.timeout.wip_s,
            disk_free_bytes_min=self.disk_free_bytes_min,
            repair_round_count_max=self.repair_round_count_max,
            file_bytes_max=self.file_bytes_max,
            change_bytes_max=self.change_bytes_max,
            change_file_count_max=self.change_file_count_max,
            sandbox=SandboxSettings(
                mode=typing.cast("SandboxMode", self.sandbox.mode),
                caches=tuple(map(_resolved, self.sandbox.caches)),
                readable=tuple(map(_resolved, self.sandbox.readable)),
                hidden=self._hidden,
            ),
        )

    @property
    def _work_path(self) -> Path:
        return self.work_dir.expanduser().resolve() if self.work_dir is not None else self.state_path / "work"

    @property
    def _hidden(self) -> tuple[Path, ...]:
        """What no command may see: identity, journal, keys."""
        hub = self.hub
        files = (hub.token_file, hub.join_key_file, hub.ca_file, hub.certificate_file, hub.key_file)
        return (self.state_path, *(file.expanduser().resolve() for file in files if file is not None))

    def _check_caches(self) -> None:
        """Raise Invalid for a cache that would open what must stay shut, or where a mount could be led astray."""
        caches = list(map(_resolved, self.sandbox.caches))
        others = [*caches, *map(_resolved, self.sandbox.readable)]
        for given, cache in zip(self.sandbox.caches, caches, strict=True):
            shut = (Path.home(), Path("/etc"), Path("/usr"), Path("/tmp"), self._work_path, *self._hidden)
            if any(path.is_relative_to(cache) for path in shut) or cache.is_relative_to(self.state_path):
                why = "must be a folder of its own: not the home folder, the system's, the sidecar's, or around one"
                raise errors.Invalid.of("sandbox.caches", f"{given} {why}")
            if sum(path.is_relative_to(cache) for path in others) > 1:
                raise errors.Invalid.of("sandbox.caches", f"{given} has another cache or readable folder in it")

    def token(self) -> str:
        """The token that was configured; empty: none. Raises Invalid when its file cannot be read."""
        if self.hub.token or self.hub.token_file is None:
            return self.hub.token
        return _read(self.hub.token_file, "hub.token_file").decode("ascii", "replace").strip()

    def join_key(self) -> str:
        """The join key that was configured; empty: none. Raises Invalid when its file cannot be read."""
        if self.hub.join_key or self.hub.join_key_file is None:
            return self.hub.join_key
        return _read(self.hub.join_key_file, "hub.join_key_file").decode("ascii", "replace").strip()

    def tls(self) -> channel.Tls:
        """What TLS needs. Raises Invalid when a file cannot be read."""
        files = (self.hub.ca_file, self.hub.certificate_file, self.hub.key_file)
        names = ("hub.ca_file", "hub.certificate_file", "hub.key_file")
        ca, certificate, key = (_read(f, n) if f is not None else None for f, n in zip(files, names, strict=True))
        return channel.Tls(ca, certificate, key)


def load(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Read the configuration. Raises Invalid with one clear line."""
    return config.load(
        Settings,
        file=file,
        environment=os.environ if environment is None else environment,
        prefix=PREFIX,
        overrides=overrides,
    )


def _resolved(path: str) -> Path:
    return Path(path).expanduser().resolve()


def _read(path: Path, field: str) -> bytes:
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise errors.Invalid.of(field, f"{path} cannot be read: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise errors.Invalid.of(field, f"{path} is larger than {FILE_BYTES_MAX} bytes")
    return data
