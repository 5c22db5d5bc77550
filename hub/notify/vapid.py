"""The hub's own key for push services (RFC 8292): made once, kept in the data folder, and what is signed with it.

Browsers subscribe under the public half. With another key every subscription would be void, so the file outlives
restarts, upgrades and restored stores; whoever moves a hub moves it along.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hub import data
from hub.notify import sealing
from kit import errors

FILE: Final = "vapid.key"
FILE_BYTES_MAX: Final = 4_096
GOOD_FOR_S: Final = 6 * 3_600.0
"""Of a signature; push services take up to 24 hours, and clocks differ."""


class Vapid:
    """Signs requests to push services."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, contact: str, now: Callable[[], float]) -> None:
        self._key = key
        self._contact = contact
        self._now = now
        #: What browsers subscribe under.
        self.public_key = sealing.point(key.public_key())

    def authorization(self, origin: str) -> str:
        """The header of a request to this origin ("https://host")."""
        claims = {"aud": origin, "exp": int(self._now() + GOOD_FOR_S), "sub": self._contact}
        signed = ".".join(encode(msgspec.json.encode(part)) for part in ({"typ": "JWT", "alg": "ES256"}, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = encode(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        return f"vapid t={signed}.{signature}, k={encode(self.public_key)}"


def load(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The key of a data folder, made when there is none. Raises Invalid for a file that holds something else."""
    file = folder / FILE
    if not file.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        data.write(file, pem.decode(), mode=0o600)
        return made
    try:
        with file.open("rb") as opened:
            found = serialization.load_pem_private_key(opened.read(FILE_BYTES_MAX), None)
    except OSError as error:
        raise _bad(file, error.strerror or "it cannot be read") from error
    except (ValueError, TypeError) as error:
        raise _bad(file, "it holds no key") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey) or not isinstance(found.curve, ec.SECP256R1):
        raise _bad(file, "its key is not of P-256")
    return found


def encode(data: bytes) -> str:
    """Base64 as JWT has it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bad(file: Path, why: str) -> errors.Invalid:
    return errors.Invalid(f"notify.webpush: {file}: {why}", reason="BAD_CONFIGURATION")
