"""Settings of what people are told, and how. Secrets are read from files, so that none stands in a configuration."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hub.core.notices import digest
from kit import channel, errors
from kit.config import setting

URL_CHARS_MAX: Final = 1_000
ADDRESSES_MAX: Final = 50
"""Recipients of one e-mail; a list of the mail server serves more."""

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?P<path>/[!-~]*)?"
)
_ADDRESS: Final = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,255}")


@dataclass(frozen=True)
class WebhookConfig:
    """A POST with JSON, signed as Standard Webhooks has it."""

    #: Where to; absent: there is no webhook. It may be a secret by itself: then set it by the environment.
    url: str | None = setting(None, high=URL_CHARS_MAX, secret=True)
    #: File with the key of the signature: "whsec_" and base64, or any text of 16 to 512 bytes. Absent: not signed.
    secret_file: Path | None = setting(None)
    #: Does the digest go there, too?
    digest: bool = setting(True)

    def __post_init__(self) -> None:
        if self.url is not None:
            check_url("url", self.url)


@dataclass(frozen=True)
class NtfyConfig:
    """A topic of ntfy.sh or of an ntfy server of your own."""

    #: "https://ntfy.sh/TOPIC"; whoever knows a topic can read it. Absent: there is none.
    url: str | None = setting(None, high=URL_CHARS_MAX, secret=True)
    #: File with an access token of the server. Absent: the topic is open.
    token_file: Path | None = setting(None)
    #: Does the digest go there, too?
    digest: bool = setting(True)

    def __post_init__(self) -> None:
        if self.url is None:
            return
        found = check_url("url", self.url)
        if not re.fullmatch(r"(?:/[!-~]*)?/[-_A-Za-z0-9]{1,64}", found["path"] or ""):
            raise errors.Invalid("url does not end with /TOPIC: up to 64 letters, digits, dashes and underscores")
        if self.token_file is not None and found["scheme"] == "http" and not _is_loopback(found["host"]):
            raise errors.Invalid("token_file is set and url begins with http://: the token would be open to see")


@dataclass(frozen=True)
class EmailConfig:
    """E-mail by SMTP."""

    #: Name of the mail server. Absent: no e-mail.
    host: str | None = setting(None, high=255)
    port: int = setting(587, low=1, high=65_535)
    #: "starttls" (usual with port 587), "tls" (465) or "none" (25; without a password, or on the loopback).
    security: str = setting("starttls", choices=("starttls", "tls", "none"))
    #: Absent: the server wants no login.
    user: str | None = setting(None, high=255)
    password_file: Path | None = setting(None)
    #: Whom it comes from.
    sender: str | None = setting(None, high=320)
    #: Whom it goes to.
    to: tuple[str, ...] = setting((), high=ADDRESSES_MAX)
    #: Does the digest go there, too?
    digest: bool = setting(True)

    def __post_init__(self) -> None:
        if self.host is None:
            return
        if not re.fullmatch(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+", self.host):
            raise errors.Invalid(f"host {self.host!r} is not the name of a host")
        if self.sender is None or not self.to:
            raise errors.Invalid("host is set, and sender or to is not")
        for address in (self.sender, *self.to):
            if not _ADDRESS.fullmatch(address):
                raise errors.Invalid(f"{address!r} is not an address of the form name@host")
        if (self.user is None) != (self.password_file is None):
            raise errors.Invalid("user and password_file must be set both or not at all")
        if self.user is not None and self.security == "none" and not _is_loopback(self.host):
            raise errors.Invalid("security is none and a user is set: the password would be open to see")


@dataclass(frozen=True)
class WebpushConfig:
    """Notifications of browsers, which people ask for on the alerts page of the dashboard."""

    enabled: bool = setting(False)
    #: Whom a push service can write to about us: "mailto:..." or "https://...". Required when enabled.
    contact: str | None = setting(None, high=320)
    #: Let in addresses that are not public, for a push service of your own.
    private: bool = setting(False)
    #: Does the digest go there, too?
    digest: bool = setting(False)

    def __post_init__(self) -> None:
        good = self.contact is not None and re.fullmatch(r"(mailto:|https://)[!-~]+", self.contact)
        if self.enabled and not good:
            raise errors.Invalid("enabled is true, and contact is not of the form mailto:... or https://...")


@dataclass(frozen=True)
class NotifyConfig:
    """What people are told (docs/notifications.md). No sink is used unless it is set, but for the log."""

    #: When the digest goes out, by the hub's own clock: "HH:MM".
    digest_at: str = setting("08:00")
    #: Instead, so often: at least an hour. 0: once a day at digest_at.
    digest_every_s: float = setting(0.0, low=0.0, high=30 * 86_400.0)
    #: What needs a person within so long is one notice.
    gather_s: float = setting(10.0, low=0.0, high=600.0)
    #: Urgent notices to one sink; five go out at once, those beyond the rate as one. 0: no bound.
    rate_per_h: float = setting(20.0, low=0.0, high=3_600.0)
    #: One try to tell one sink.
    timeout_s: float = setting(10.0, low=0.1, high=60.0)
    #: URL of the dashboard, for links in notices, for example "https://agents.example.com". Absent: no links.
    link: str | None = setting(None, high=URL_CHARS_MAX)
    #: PEM of one more authority that the sinks' certificates are checked with, besides those of the system.
    ca_file: Path | None = setting(None)
    webhook: WebhookConfig = dataclasses.field(default_factory=WebhookConfig)
    ntfy: NtfyConfig = dataclasses.field(default_factory=NtfyConfig)
    email: EmailConfig = dataclasses.field(default_factory=EmailConfig)
    webpush: WebpushConfig = dataclasses.field(default_factory=WebpushConfig)

    def __post_init__(self) -> None:
        digest.parse_clock(self.digest_at)
        if 0.0 < self.digest_every_s < 3_600.0:
            raise errors.Invalid(f"digest_every_s is {self.digest_every_s:g}, must be 0 or at least 3600")
        if self.link is not None:
            check_url("link", self.link)

    @property
    def active(self) -> bool:
        """Is anybody told by anything but the log?"""
        return bool(self.webhook.url or self.ntfy.url or self.email.host or self.webpush.enabled)


def check_url(key: str, url: str) -> re.Match[str]:
    """Raise Invalid for what is no address of the web, or holds a password. Says nothing of what it is."""
    found = _URL.fullmatch(url)
    if found is None:
        raise errors.Invalid(f"{key} is not of the form http(s)://host/path without user name and password")
    return found


def _is_loopback(host: str) -> bool:
    return channel.parse_address(f"{host}:1").is_loopback
