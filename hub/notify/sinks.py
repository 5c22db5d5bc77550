"""The sinks that a configuration asks for, put together; their libraries are loaded only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from hub.engine.notify.notifier import Pusher, Sink
from hub.notify import secret
from hub.notify.config import EmailConfig, NotifyConfig, NtfyConfig, WebhookConfig, WebpushConfig
from kit import errors

if TYPE_CHECKING:
    from hub.notify.smtp import Email


class Sinks(NamedTuple):
    """What the notifier is given."""

    fixed: Mapping[str, Sink]
    push: Pusher | None
    digests: frozenset[str]
    """Sinks that take the digest."""


def build(config: NotifyConfig, data: Path, now: Callable[[], float]) -> Sinks:
    """Raises Unavailable when a library is missing, Invalid when a secret or a key cannot be read."""
    if not config.active:
        return Sinks({}, None, frozenset())
    try:
        return _build(config, data, now)
    except ImportError as error:
        raise errors.Unavailable(
            f"[notify] needs {error.name}, which is not installed: pip install 'agentcom[notify]'",
            reason="NOT_INSTALLED",
        ) from error


def _build(config: NotifyConfig, data: Path, now: Callable[[], float]) -> Sinks:
    from hub.notify import http, ntfy, vapid, webhook, webpush

    fixed: dict[str, Sink] = {}
    link = (config.link or "").rstrip("/")
    poster = http.Poster(timeout_s=config.timeout_s, ca_file=config.ca_file)
    if config.webhook.url:
        hook = config.webhook
        key = None
        if hook.secret_file is not None:
            text = secret.read(hook.secret_file, "notify.webhook.secret_file", bytes_min=webhook.KEY_BYTES_MIN)
            key = webhook.key_of(text)
        fixed["webhook"] = webhook.Webhook(
            poster, config.webhook.url, host=_host(config.webhook.url), key=key, link=link, now=now
        )
    if config.ntfy.url:
        file = config.ntfy.token_file
        token = secret.read(file, "notify.ntfy.token_file") if file is not None else None
        fixed["ntfy"] = ntfy.Ntfy(poster, config.ntfy.url, host=_host(config.ntfy.url), token=token, link=link)
    if config.email.host:
        fixed["email"] = _email(config, config.email, link, now)
    push = None
    if config.webpush.enabled:
        signer = vapid.Vapid(vapid.load(data), config.webpush.contact or "", now)
        private = config.webpush.private
        open_poster = http.Poster(timeout_s=config.timeout_s, ca_file=config.ca_file, public=not private)
        push = webpush.Webpush(open_poster, signer, private=private)
    parts: dict[str, WebhookConfig | NtfyConfig | EmailConfig | WebpushConfig]
    parts = {"webhook": config.webhook, "ntfy": config.ntfy, "email": config.email, "webpush": config.webpush}
    return Sinks(fixed, push, frozenset(name for name, part in parts.items() if part.digest))


def _email(config: NotifyConfig, email: EmailConfig, link: str, now: Callable[[], float]) -> Email:
    from hub.notify import http, smtp

    file = email.password_file
    password = secret.read(file, "notify.email.password_file") if file is not None else None
    server = smtp.Server(email.host or "", email.port, email.security, email.user, password)
    return smtp.Email(
        server,
        sender=email.sender or "",
        to=email.to,
        link=link,
        timeout_s=config.timeout_s,
        context=http.tls_context(config.ca_file),
        now=now,
    )


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
