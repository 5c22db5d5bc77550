"""E-mail by SMTP, one connection a message. Its Message-ID is made from the id of the notice: the same at every try."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from typing import NamedTuple

import aiosmtplib

from hub.core.notices import notice as notices
from hub.core.notices.notice import Notice
from kit import secrecy


class Server(NamedTuple):
    """Where mail is handed in."""

    host: str
    port: int
    security: str
    """"starttls", "tls" or "none"."""
    user: str | None
    password: str | None


class Email:
    """Some addresses that are told."""

    def __init__(
        self,
        server: Server,
        *,
        sender: str,
        to: tuple[str, ...],
        link: str,
        timeout_s: float,
        context: ssl.SSLContext,
        now: Callable[[], float],
    ) -> None:
        self._server = server
        self._sender = sender
        self._to = to
        self._link = link
        self._timeout_s = timeout_s
        self._context = context
        self._now = now
        #: For people.
        self.target = f"{len(to)} by {server.host}"

    async def send(self, notice: Notice) -> None:
        """Send it once. Raises Failed."""
        server, tls = self._server, self._server.security == "tls"
        message = compose(notice, sender=self._sender, to=self._to, link=self._link, at=self._now())
        try:
            async with asyncio.timeout(self._timeout_s):
                await aiosmtplib.send(
                    message,
                    sender=self._sender,
                    recipients=list(self._to),
                    hostname=server.host,
                    port=server.port,
                    username=server.user,
                    password=server.password,
                    use_tls=tls,
                    # Never "if it offers it": whoever stands between could say that it does not.
                    start_tls=server.security == "starttls",
                    tls_context=None if server.security == "none" else self._context,
                    timeout=self._timeout_s,
                )
        except (TimeoutError, aiosmtplib.SMTPTimeoutError) as error:
            raise notices.Failed(f"{server.host} did not answer within {self._timeout_s:g} s") from error
        except aiosmtplib.SMTPDataError as error:
            kind = notices.Refused if 500 <= error.code < 600 else notices.Failed
            raise kind(_said(server.host, error)) from error
        except (aiosmtplib.SMTPException, OSError, ssl.SSLError) as error:
            raise notices.Failed(_said(server.host, error)) from error


def compose(notice: Notice, *, sender: str, to: tuple[str, ...], link: str, at: float) -> EmailMessage:
    """The message."""
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Subject"] = notice.title
    message["Date"] = format_datetime(datetime.fromtimestamp(at, UTC))
    message["Message-ID"] = f"<{notice.id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # nobody's "I am away" is wanted
    message["X-AgentCom-Notice"] = notice.kind.name.lower()
    message.set_content(f"{notice.text}\n\n{link}{notice.path}\n" if link else f"{notice.text}\n")
    return message


def _said(host: str, error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{host} answered {error.code} {secrecy.hide(error.message)}"
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return f"{host} refuses the recipients"
    return f"{host}: {secrecy.hide(str(error)) or type(error).__name__}"
