"""Configuration of the hub: what may be set, within which limits, and what the defaults are.

From a TOML file and the environment (AGENTCOM_HUB_SERVER_LISTEN, AGENTCOM_HUB_STORE_KIND, ...), see `kit.config`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hub.engine.live.context import EngineSettings
from kit import channel, config, errors, wire
from kit.config import setting

PREFIX = "AGENTCOM_HUB"
MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class ServerConfig:
    """Where the hub listens, and how it ends."""

    #: "host:port"; port 0 lets the system choose, the real one is logged and written to <data>/hub.addr.
    listen: str = setting(wire.ADDRESS_DEFAULT)
    #: PEM files; both or none. A client authority makes TLS mutual.
    tls_certificate: Path | None = setting(None)
    tls_key: Path | None = setting(None)
    tls_client_ca: Path | None = setting(None)
    #: What is still open this long after a stop was asked for is cut.
    stop_grace_s: float = setting(5.0, low=0.0, high=300.0)
    #: "auto" takes uvloop where it is installed.
    event_loop: str = setting("auto", choices=("auto", "asyncio", "uvloop"))


@dataclass(frozen=True)
class StoreConfig:
    """Where the hub keeps what it knows."""

    #: "memory" forgets everything at the end: for trials.
    kind: str = setting("lmdb", choices=("lmdb", "memory"))
    #: The map grows by itself from the first size to the last. At least 16 MiB of the last are kept for results, so
    #: half of the smallest is left for work.
    map_first_bytes: int = setting(64 * MIB, low=MIB, high=1024 * GIB)
    map_max_bytes: int = setting(64 * GIB, low=32 * MIB, high=16 * 1024 * GIB)
    #: Skips the fsync: a power cut may then lose or break what was acknowledged. For trials only.
    lose_data_on_power_cut: bool = setting(False)

    def __post_init__(self) -> None:
        if self.map_first_bytes > self.map_max_bytes:
            raise errors.Invalid(
                f"map_first_bytes {self.map_first_bytes} is more than map_max_bytes {self.map_max_bytes}"
            )


@dataclass(frozen=True)
class AuthConfig:
    """Who is let in."""

    #: Must every caller show a token? Absent: yes, unless the hub listens on the loopback only. A token that is shown
    #: is verified in any case, and its scope holds.
    required: bool | None = setting(None)


@dataclass(frozen=True)
class EngineConfig:
    """The pace of the engine; the meaning of each is beside it in `engine.context`."""

    lease_s: float = setting(30.0, low=0.5, high=3_600.0)
    heartbeat_s: float = setting(10.0, low=0.1, high=1_200.0)
    accept_timeout_s: float = setting(60.0, low=1.0, high=3_600.0)
    sweep_s: float = setting(30.0, low=0.1, high=600.0)
    stuck_s: float = setting(300.0, low=1.0, high=86_400.0)
    request_window_s: float = setting(86_400.0, low=60.0, high=30 * 86_400.0)
    queue_max: int = setting(5_000_000, low=1, high=100_000_000)
    age_step_s: float = setting(600.0, low=1.0, high=86_400.0)
    outbox_max: int = setting(512, low=8, high=65_536)

    def __post_init__(self) -> None:
        if self.heartbeat_s > self.lease_s / 2:
            raise errors.Invalid(f"heartbeat_s {self.heartbeat_s:g} is more than half of lease_s {self.lease_s:g}")

    def settings(self) -> EngineSettings:
        """As the engine wants it."""
        return EngineSettings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})


@dataclass(frozen=True)
class IntakeConfig:
    """The watched folder for goal files."""

    #: Whoever may write into it may file goals. Absent: none is watched.
    folder: Path | None = setting(None)
    look_s: float = setting(2.0, low=0.05, high=3_600.0)


@dataclass(frozen=True)
class LogConfig:
    """What the process says on stderr."""

    level: str = setting("info", choices=("debug", "info", "warning", "error"))
    form: str = setting("auto", choices=("auto", "json", "text"))


@dataclass(frozen=True)
class Config:
    """Everything."""

    #: Folder of the store, the admin token and the address file.
    data: Path = setting(Path(".agentcom/hub"))
    server: ServerConfig = dataclasses.field(default_factory=ServerConfig)
    store: StoreConfig = dataclasses.field(default_factory=StoreConfig)
    auth: AuthConfig = dataclasses.field(default_factory=AuthConfig)
    engine: EngineConfig = dataclasses.field(default_factory=EngineConfig)
    intake: IntakeConfig = dataclasses.field(default_factory=IntakeConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)

    @property
    def address(self) -> channel.Address:
        """Where it listens."""
        address = channel.parse_address(self.server.listen, field="server.listen")
        return dataclasses.replace(address, tls=self.server.tls_certificate is not None)

    @property
    def token_required(self) -> bool:
        """Must every caller show a token?"""
        return not self.address.is_loopback if self.auth.required is None else self.auth.required


def load(file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Config:
    """The configuration of this process. Raises Invalid with one line that names file, key and limit."""
    # A shell that talks to a hub (`agentcom`) may well start one, too.
    own = {name: value for name, value in environment.items() if name != wire.ADDRESS_VARIABLE}
    made = config.load(Config, file=file, environment=own, prefix=PREFIX, overrides=overrides)
    wrong = _contradiction(made)
    if wrong:
        where = file.name if file is not None else "the configuration"
        raise errors.Invalid(f"{where}: {wrong}", reason="BAD_CONFIGURATION")
    return made


def _contradiction(made: Config) -> str:
    """What two keys together must not say; empty: nothing is wrong."""
    server = made.server
    if (server.tls_certificate is None) != (server.tls_key is None):
        return "server.tls_certificate and server.tls_key must be set both or not at all"
    if server.tls_client_ca is not None and server.tls_certificate is None:
        return "server.tls_client_ca needs server.tls_certificate and server.tls_key"
    if made.address.is_loopback:
        return ""
    if made.auth.required is False:
        return f"auth.required is false, which is for the loopback only, and server.listen is {server.listen}"
    if server.tls_certificate is None:
        beyond = f"server.listen is {server.listen}, beyond the loopback"
        return f"{beyond}, and needs TLS: set server.tls_certificate and server.tls_key"
    return ""
