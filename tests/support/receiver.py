"""Those who are told, on this machine: a server for webhooks, ntfy and push messages, one for mail, and a browser.

The browser opens what it is sent with an implementation of RFC 8291 and 8292 of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.server
import json
import os
import queue
import ssl
import struct
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: A bound for failures, never a pace.
PATIENCE_S = 30.0


class Request(NamedTuple):
    """What came."""

    path: str
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes


class Receiver:
    """A server that keeps what it is sent and answers as the test says."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._came: queue.Queue[Request] = queue.Queue()
        #: Answers for the next requests: a status, headers and a body; then 200.
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        #: While it is set every request is answered with it.
        self.always: int | None = None
        #: Set: nothing is answered until it is cleared.
        self.silent = threading.Event()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer the next request with this."""
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, body))

    async def next(self) -> Request:
        """The next request that came."""
        return await asyncio.to_thread(self._came.get, timeout=PATIENCE_S)

    def rest(self) -> list[Request]:
        """Those that came and were not taken yet."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._came.get_nowait())
        return found

    def handle(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        """Keep it; what to answer."""
        self._came.put(request)
        if self.always is not None:
            return self.always, {}, b""
        return self.answers.pop(0) if self.answers else (200, {}, b"")


@contextlib.contextmanager
def receiving(certificate: tuple[Path, Path] | None = None) -> Iterator[Receiver]:
    """A receiver; by https with a certificate and its key."""
    made: Receiver

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, content = made.handle(Request(self.path, headers, body))
            while made.silent.is_set() and not stopped.wait(0.01):
                pass
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that breaks off is what these tests are about."""

    stopped = threading.Event()
    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        made = Receiver(f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            stopped.set()
            server.shutdown()
            thread.join(PATIENCE_S)


class Post:
    """A mail server that keeps what it is handed."""

    def __init__(self) -> None:
        self.port = 0
        self.came: asyncio.Queue[tuple[Envelope, EmailMessage]] = asyncio.Queue()
        self.logins: list[tuple[str, str]] = []
        #: What is said at the end of the next messages in the place of "250 OK".
        self.answers: list[str] = []

    async def next(self) -> tuple[Envelope, EmailMessage]:
        """The next message with its envelope."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.came.get()

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        if self.answers:
            return self.answers.pop(0)
        message = message_from_bytes(cast("bytes", envelope.content), policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.came.put_nowait((envelope, message))
        return "250 OK"

    def login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=data.password == b"right-password-0123", handled=False)


@contextlib.asynccontextmanager
async def post_office(certificate: tuple[Path, Path] | None = None, *, login: bool = False) -> AsyncIterator[Post]:
    """A mail server on this loop; with a certificate it wants STARTTLS."""
    made = Post()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    options: dict[str, Any] = {"tls_context": context, "require_starttls": context is not None, "enable_SMTPUTF8": True}
    if login:
        options |= {"authenticator": made.login, "auth_required": True, "auth_require_tls": context is not None}
    loop = asyncio.get_running_loop()

    def answer() -> SMTP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a login without TLS is unwise: it is what is tried here
            return SMTP(made, hostname="mail.example", loop=loop, **options)

    server = await loop.create_server(answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


class Browser:
    """One that subscribed."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)
        self.public_key = _point(self._key.public_key())

    def open(self, body: bytes) -> dict[str, Any]:
        """What a push message says."""
        salt, (size, length) = body[:16], struct.unpack(">IB", body[16:21])
        sender, sealed = body[21 : 21 + length], body[21 + length :]
        assert len(body) <= 4096 == size
        shared = self._key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender))
        first = HKDF(hashes.SHA256(), 32, self.auth, b"WebPush: info\0" + self.public_key + sender).derive(shared)
        key = HKDF(hashes.SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(first)
        nonce = HKDF(hashes.SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(first)
        text = AESGCM(key).decrypt(nonce, sealed, None).rstrip(b"\0")
        assert text.endswith(b"\x02")
        opened: dict[str, Any] = json.loads(text[:-1])
        return opened


def vapid_claims(authorization: str, public_key: bytes) -> dict[str, Any]:
    """The claims of a push service's request, its signature checked with the key of the hub."""
    scheme, _, rest = authorization.partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    assert scheme == "vapid" and unpadded(parts["k"]) == public_key
    signed, _, signature = parts["t"].rpartition(".")
    raw = unpadded(signature)
    assert len(raw) == 64
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    halves = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    key.verify(encode_dss_signature(*halves), signed.encode(), ec.ECDSA(hashes.SHA256()))
    head, claims = (json.loads(unpadded(part)) for part in signed.split("."))
    assert head == {"typ": "JWT", "alg": "ES256"}
    made: dict[str, Any] = claims
    return made


def unpadded(text: str) -> bytes:
    """Base64 as the web has it."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
