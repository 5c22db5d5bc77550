"""Configuration of the dashboard, from a TOML file and the environment (AGENTCOM_DASHBOARD_LISTEN, ...)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kit import channel, config, errors, wire
from kit.config import setting
from kit.logs import LogConfig

PREFIX = "AGENTCOM_DASHBOARD"
LISTEN_DEFAULT = "127.0.0.1:7421"


@dataclass(frozen=True)
class HubConfig:
    """Where the hub is."""

    #: "host:port", grpcs:// for TLS.
    address: str = setting(wire.ADDRESS_DEFAULT)
    #: PEM of the authority that signed the hub's certificate; absent: those of the system.
    ca: Path | None = setting(None)
    #: PEM of the dashboard's own certificate and key, for mutual TLS.
    certificate: Path | None = setting(None)
    key: Path | None = setting(None)
    #: How long one read may take before the page shows what was last known.
    timeout_s: float = setting(5.0, low=0.1, high=60.0)
    #: Let tokens go to a hub beyond loopback without TLS (a VPN does the encryption).
    plaintext: bool = setting(False)


@dataclass(frozen=True)
class LiveConfig:
    """Pages that follow what happens."""

    #: Pages that are told at once; each holds a thread. Those beyond it ask again every few seconds instead.
    pages_max: int = setting(32, low=0, high=512)
    #: A page is told at most this often; beyond eight of them each less often, so that they load the hub no more.
    pace_s: float = setting(1.0, low=0.1, high=60.0)


@dataclass(frozen=True)
class Config:
    """All of it."""

    #: "host:port" of the pages.
    listen: str = setting(LISTEN_DEFAULT)
    #: Names under which a browser reaches the dashboard, besides the loopback's; others are refused.
    hosts: tuple[str, ...] = setting(())
    #: Must everybody log in? Absent: yes, unless the dashboard listens on the loopback only.
    login: bool | None = setting(None)
    #: The pages are reached through https (by a proxy in front): cookies are sent over it only.
    https: bool = setting(False)
    hub: HubConfig = HubConfig()
    live: LiveConfig = LiveConfig()
    log: LogConfig = setting(LogConfig)

    @property
    def address(self) -> channel.Address:
        """Where it listens."""
        return channel.parse_address(self.listen, field="listen")

    @property
    def login_required(self) -> bool:
        """Must a browser show a token?"""
        return self.login if self.login is not None else not self.address.is_loopback

    def __post_init__(self) -> None:
        if self.address.tls:
            raise errors.Invalid("listen takes host:port; for https put a proxy in front and set https = true")


def load(file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Config:
    """Read it. Raises Invalid."""
    return config.load(Config, file=file, environment=environment, prefix=PREFIX, overrides=overrides)
