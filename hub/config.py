"""Configuration of the hub: what may be set, within which limits, and what the defaults are.

From a TOML file and the environment (AGENTCOM_HUB_SERVER_LISTEN, AGENTCOM_HUB_STORE_KIND, ...), see `kit.config`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hub.core.limit import Action, Limit
from hub.core.violation import Patience
from hub.engine.desk.conduct import Rules
from hub.engine.live.context import EngineSettings
from hub.engine.live.retention import DAY_S, Keep
from hub.notify.config import NotifyConfig
from kit import channel, config, errors, wire
from kit.config import setting
from kit.logs import LogConfig
from kit.telemetry import TelemetryConfig

PREFIX = "AGENTCOM_HUB"
MIB = 1024 * 1024
GIB = 1024 * MIB
FOR_EVER_S = 36_500 * DAY_S


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
    #: A watch whose reader takes nothing in for so long is ended; it can go on from the last position.
    reader_timeout_s: float = setting(wire.READER_TIMEOUT_S, low=0.1, high=3_600.0)
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
class LimitsConfig:
    """How often a caller may ask, for each token: a rate for ever and a burst at once; a rate of 0 is no limit. And how
    many bad requests of one caller are borne before all that it asks is refused for a while.
    """

    #: Do they hold for callers without a token on this machine, too?
    local: bool = setting(False)
    read_per_s: float = setting(500.0, low=0.0, high=1e6)
    read_burst: float = setting(5_000.0, low=1.0, high=1e7)
    write_per_s: float = setting(200.0, low=0.0, high=1e6)
    write_burst: float = setting(2_000.0, low=1.0, high=1e7)
    #: Tasks, by themselves, in a batch or as the plan of a goal.
    submit_per_s: float = setting(2_000.0, low=0.0, high=1e6)
    submit_burst: float = setting(20_000.0, low=1.0, high=1e7)
    #: Streams opened: a sidecar that comes back, a watch that is resumed.
    open_per_s: float = setting(10.0, low=0.0, high=1e6)
    open_burst: float = setting(200.0, low=1.0, high=1e7)
    #: By address: calls that do not say who they are, or with a token that is not known.
    auth_per_s: float = setting(5.0, low=0.0, high=1e6)
    auth_burst: float = setting(100.0, low=1.0, high=1e7)
    #: Bad requests borne in a window; 0: any number.
    violation_count_max: int = setting(300, low=0, high=1_000_000)
    violation_window_s: float = setting(60.0, low=1.0, high=3_600.0)
    #: The first refusal; each further one is twice as long, up to the last.
    refuse_s: float = setting(10.0, low=0.1, high=3_600.0)
    refuse_s_max: float = setting(600.0, low=0.1, high=86_400.0)

    def __post_init__(self) -> None:
        if self.refuse_s > self.refuse_s_max:
            raise errors.Invalid(f"refuse_s {self.refuse_s:g} is more than refuse_s_max {self.refuse_s_max:g}")

    def rules(self) -> Rules:
        """As the hub wants them."""
        limits = {
            action: Limit(getattr(self, f"{action.value}_per_s"), getattr(self, f"{action.value}_burst"))
            for action in Action
        }
        patience = Patience(
            count_max=self.violation_count_max,
            window_s=self.violation_window_s,
            refuse_s=self.refuse_s,
            refuse_s_max=self.refuse_s_max,
        )
        return Rules(limits, patience, local=self.local)


@dataclass(frozen=True)
class EngineConfig:
    """The pace of the engine; the meaning of each is beside it in `engine.context`."""

    lease_s: float = setting(30.0, low=0.5, high=3_600.0)
    heartbeat_s: float = setting(10.0, low=0.1, high=1_200.0)
    ack_timeout_s: float = setting(10.0, low=0.5, high=300.0)
    accept_timeout_s: float = setting(60.0, low=1.0, high=3_600.0)
    sweep_s: float = setting(30.0, low=0.1, high=600.0)
    stuck_s: float = setting(300.0, low=1.0, high=86_400.0)
    request_window_s: float = setting(86_400.0, low=1.0, high=30 * 86_400.0)
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
class RetentionConfig:
    """How long what is kept after its end. The largest age is a hundred years: for ever."""

    #: Tasks that succeeded or were cancelled, and changes. At least engine.request_window_s.
    tasks_s: float = setting(30 * DAY_S, low=1.0, high=FOR_EVER_S)
    #: Dead letters, and goals that failed: a person must see them, and may retry them.
    dead_s: float = setting(90 * DAY_S, low=1.0, high=FOR_EVER_S)
    #: Goals that succeeded or were cancelled. Tasks of a goal stay as long as it does.
    goals_s: float = setting(90 * DAY_S, low=1.0, high=FOR_EVER_S)
    #: What artefacts of tasks that succeeded or were cancelled contain. Those of dead letters stay with them.
    artifacts_s: float = setting(7 * DAY_S, low=1.0, high=FOR_EVER_S)
    #: Tokens that are revoked, used up or expired.
    tokens_s: float = setting(30 * DAY_S, low=1.0, high=FOR_EVER_S)
    #: Events; beyond so many the oldest go before their time. Five million are about one gigabyte.
    events_s: float = setting(90 * DAY_S, low=1.0, high=FOR_EVER_S)
    events_max: int = setting(5_000_000, low=1_000, high=1_000_000_000)
    #: How often to look for what has become old, and how often for what was old before and still needed.
    look_s: float = setting(60.0, low=0.1, high=86_400.0)
    again_s: float = setting(21_600.0, low=0.1, high=30 * 86_400.0)
    #: Nothing is forgotten before the clock has gone steadily for so long, since the start or a jump.
    settle_s: float = setting(600.0, low=0.0, high=86_400.0)

    def keep(self) -> Keep:
        """As the engine wants it."""
        return Keep(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})


@dataclass(frozen=True)
class BackupConfig:
    """When the store is copied, and how long copies are kept. The newest good one is never taken away."""

    #: 0: only when somebody asks.
    every_s: float = setting(21_600.0, low=0.0, high=30 * DAY_S)
    #: Absent: `backups` in the data folder. Another disk survives the death of this one.
    folder: Path | None = setting(None)
    keep_count: int = setting(8, low=1, high=1_000)
    keep_age_s: float = setting(14 * DAY_S, low=1.0, high=FOR_EVER_S)


@dataclass(frozen=True)
class IntakeConfig:
    """The watched folder for goal files."""

    #: Whoever may write into it may file goals. Absent: none is watched.
    folder: Path | None = setting(None)
    look_s: float = setting(2.0, low=0.05, high=3_600.0)


@dataclass(frozen=True)
class Config:
    """Everything."""

    #: Folder of the store, the admin token and the address file.
    data: Path = setting(Path(".agentcom/hub"))
    server: ServerConfig = dataclasses.field(default_factory=ServerConfig)
    store: StoreConfig = dataclasses.field(default_factory=StoreConfig)
    auth: AuthConfig = dataclasses.field(default_factory=AuthConfig)
    limits: LimitsConfig = dataclasses.field(default_factory=LimitsConfig)
    engine: EngineConfig = dataclasses.field(default_factory=EngineConfig)
    retention: RetentionConfig = dataclasses.field(default_factory=RetentionConfig)
    backup: BackupConfig = dataclasses.field(default_factory=BackupConfig)
    intake: IntakeConfig = dataclasses.field(default_factory=IntakeConfig)
    telemetry: TelemetryConfig = dataclasses.field(default_factory=TelemetryConfig)
    notify: NotifyConfig = dataclasses.field(default_factory=NotifyConfig)
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
    check(made, file.name if file is not None else "the configuration")
    return made


def check(made: Config, where: str = "the configuration") -> None:
    """Raise Invalid when two keys together say what no hub may do: a hub checks this before it opens anything."""
    wrong = _contradiction(made)
    if wrong:
        raise errors.Invalid(f"{where}: {wrong}", reason="BAD_CONFIGURATION")


def _contradiction(made: Config) -> str:
    """What two keys together must not say; empty: nothing is wrong."""
    server = made.server
    if (server.tls_certificate is None) != (server.tls_key is None):
        return "server.tls_certificate and server.tls_key must be set both or not at all"
    if server.tls_client_ca is not None and server.tls_certificate is None:
        return "server.tls_client_ca needs server.tls_certificate and server.tls_key"
    if made.retention.tasks_s < made.engine.request_window_s:
        return "retention.tasks_s is less than engine.request_window_s: a repeated request must find what it made"
    if made.address.is_loopback:
        return ""
    if made.auth.required is False:
        return f"auth.required is false, which is for the loopback only, and server.listen is {server.listen}"
    if server.tls_certificate is None:
        beyond = f"server.listen is {server.listen}, beyond the loopback"
        return f"{beyond}, and needs TLS: set server.tls_certificate and server.tls_key"
    return ""
