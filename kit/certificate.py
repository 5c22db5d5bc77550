"""Certificates of a server: read from their files, looked at, and read again when the files change.

gRPC asks for the certificates at each handshake, from a thread of its own. `Keeper.fetch` then looks at the files
(three `stat` calls) and reads them when one has changed. What was read is taken only when it is whole: certificate and
key parse and belong together, the authority parses. Otherwise the old ones stay in use, it is logged once, and `state`
tells of it. Streams that are open keep the certificates of their handshake.

The dates are read by a few lines of DER below, because no library that nodes already need reads a certificate.
"""

from __future__ import annotations

import dataclasses
import datetime
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from kit import errors, logs

log = logs.get(__name__)

BYTES_MAX: Final = 1024 * 1024
"""A bundle of a few hundred certificates; more is a mistaken path."""

WARN_S: Final = 14 * 86_400.0
"""A certificate that ends sooner is worth a warning: the renewal of most authorities is due at 30 days."""

QUIET_S: Final = 1.0
"""New certificates are handed over when no handshake has begun for so long. What must not be disturbed takes some
microseconds of a thread; a busy machine may hold a thread up for a few hundred milliseconds."""

PATIENCE_S: Final = 60.0
QUIET_LEAST_S: Final = 0.1
"""Where such a pause does not come in that time, a shorter one must do. Where not even that comes, peers hammer at the
port, and the old certificates serve on: better than a crash."""

READ_COUNT_MAX: Final = 3
"""A pair that is being replaced is read again; each file is replaced in a moment."""


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files. With a `client_ca` every client must show a certificate that this authority signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Pems:
    """Their content."""

    certificate: bytes
    key: bytes = dataclasses.field(repr=False)
    client_ca: bytes | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What a person should know. Times are seconds since the epoch."""

    not_before: float
    not_after: float
    #: When what is in use was read.
    read_at: float
    #: Why the files are not what is in use; empty: they are.
    problem: str = ""


class Keeper:
    """The certificates of one server."""

    def __init__(
        self, files: Files, now: Callable[[], float], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Read them. Raises Invalid, naming the file and what is wrong with it."""
        self._files = files
        self._now = now
        self._monotonic = monotonic
        #: Of the last handshake; monotonic.
        self._asked_at = 0.0
        #: Since when there are others than gRPC was given; monotonic, None: there are none.
        self._waiting_from: float | None = None
        # gRPC's threads come in at any time.
        self._lock = threading.Lock()
        self._signature = _signature(files)
        pems = read(files)
        self._state = _state_of(pems, now())
        self._made = _configuration(pems)
        self._given = self._made

    def credentials(self) -> grpc.ServerCredentials:
        """For a port. Every handshake from now on asks `fetch`."""
        made: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._made,
            self._fresh,  # type: ignore[arg-type]  # the stub does not know of None: unchanged
            require_client_authentication=self._files.client_ca is not None,
        )
        return made

    def fetch(self) -> grpc.ServerCertificateConfiguration:
        """What the next handshake uses. Never raises: gRPC would refuse every handshake."""
        with self._lock:
            try:
                signature = _signature(self._files)
                if signature != self._signature:
                    self._signature = signature
                    self._reload()
            except Exception as error:
                self._refuse(str(error))
            return self._made

    def _fresh(self) -> grpc.ServerCertificateConfiguration | None:
        """What is new, in a quiet moment; None otherwise: go on with what there is.

        What gRPC is given replaces what it has, and frees it, while a handshake on another thread that has just begun
        may not have taken hold of it yet (grpcio 1.85.1: SIGSEGV, within seconds where each handshake was given some).
        So nothing is given unless it is new, and not so soon after another handshake has begun.
        """
        made, now = self.fetch(), self._monotonic()
        with self._lock:
            quiet_s, self._asked_at = now - self._asked_at, now
            if made is self._given:
                self._waiting_from = None
                return None
            if self._waiting_from is None:
                self._waiting_from = now
            if quiet_s < (QUIET_S if now - self._waiting_from < PATIENCE_S else QUIET_LEAST_S):
                return None
            self._given, self._waiting_from = made, None
            return made

    @property
    def state(self) -> State:
        """As of the last look."""
        return self._state

    async def run_once(self, now: float) -> None:
        """Look whether there are new ones, although nobody shakes hands, and say when they end soon."""
        self.fetch()
        left_s = self._state.not_after - now
        if left_s <= 0:
            log.error("certificate.expired", file=str(self._files.certificate), not_after=_date(self._state.not_after))
        elif left_s < WARN_S:
            log.warning("certificate.ends_soon", file=str(self._files.certificate), days_left=round(left_s / 86_400, 1))

    def _reload(self) -> None:
        try:
            pems = read(self._files)
        except errors.Invalid as problem:
            self._refuse(problem.message)
            return
        self._made, self._state = _configuration(pems), _state_of(pems, self._now())
        log.info("certificate.read", file=str(self._files.certificate), not_after=_date(self._state.not_after))

    def _refuse(self, problem: str) -> None:
        if problem != self._state.problem:
            self._state = dataclasses.replace(self._state, problem=problem)
            log.error("certificate.refused", file=str(self._files.certificate), problem=problem)


def read(files: Files) -> Pems:
    """The content of the files, once it fits together. Raises Invalid."""
    for left in reversed(range(READ_COUNT_MAX)):
        pems = _content(files)
        try:
            _check(files, pems)
        except errors.Invalid:
            if not left and _content(files) == pems:
                raise
            continue
        if _content(files) == pems:  # what was checked by its path is what was read
            return pems
    raise errors.Invalid(f"server: {files.certificate} and {files.key} keep changing", reason="BAD_CERTIFICATE")


def oddities(files: Files, now: float) -> list[str]:
    """What a person should know about the files as they are now, one phrase each; empty: all is well."""
    try:
        first, last = dates(read(files).certificate)
    except errors.Invalid as problem:
        return [problem.message]
    if now >= last:
        return [f"{files.certificate} expired at {_date(last)}"]
    if now < first:
        return [f"{files.certificate} is not valid before {_date(first)}"]
    if last - now < WARN_S:
        return [f"{files.certificate} ends in {(last - now) / 86_400:.1f} days"]
    return []


def dates(pem: bytes) -> tuple[float, float]:
    """From when to when the first certificate of a PEM text is valid. Raises ValueError."""
    begin, end = pem.find(b"-----BEGIN CERTIFICATE-----"), pem.find(b"-----END CERTIFICATE-----")
    if begin < 0 or end < begin:
        raise ValueError("no certificate in it")
    der = ssl.PEM_cert_to_DER_cert(pem[begin : end + len(b"-----END CERTIFICATE-----")].decode("ascii"))
    # Certificate > TBSCertificate > [version], serial, signature, issuer, validity.
    fields = _children(_children(der)[0][1])
    _tag, inner = fields[0]
    body = _children(inner)
    validity = body[4 if body[0][0] == 0xA0 else 3][1]
    first, last = _children(validity)[:2]
    return _time(*first), _time(*last)


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """The elements (tag, content) of a DER text, one after the other."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + size > len(data):
            raise ValueError("the certificate is cut off")
        found.append((tag, data[at : at + size]))
        at += size
    return found


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of the year, 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp()


def _state_of(pems: Pems, now: float) -> State:
    first, last = dates(pems.certificate)
    return State(not_before=first, not_after=last, read_at=now)


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    made: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
        [(pems.key, pems.certificate)], root_certificates=pems.client_ca
    )
    return made


def _signature(files: Files) -> tuple[object, ...]:
    """Changes when a file does."""
    found: list[object] = []
    for path in (files.certificate, files.key, files.client_ca):
        if path is not None:
            try:
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError as error:
                found.append(error.errno)
    return tuple(found)


def _content(files: Files) -> Pems:
    return Pems(
        _bytes(files.certificate), _bytes(files.key), _bytes(files.client_ca) if files.client_ca is not None else None
    )


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from error
    if len(data) > BYTES_MAX:
        raise _wrong(path, f"is larger than {BYTES_MAX} bytes")
    return data


def _check(files: Files, pems: Pems) -> None:
    try:
        dates(pems.certificate)
    except (ValueError, IndexError) as error:
        raise _wrong(files.certificate, f"is no PEM certificate: {error}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key would else ask the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _wrong(files.key, f"is no key (without a password) of {files.certificate}") from error
    if files.client_ca is not None and pems.client_ca is not None:
        try:
            context.load_verify_locations(cadata=pems.client_ca.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise _wrong(files.client_ca, "holds no PEM certificate of an authority") from error


def _wrong(path: Path, what: str) -> errors.Invalid:
    return errors.Invalid(f"server: {path} {what}", reason="BAD_CERTIFICATE")


def _date(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
