"""A push message that only the browser can read: RFC 8291 over RFC 8188 (aes128gcm), one record.

A key of one use and the browser's key agree on a secret (ECDH on P-256); with the browser's `auth` and a salt it
becomes the key and the nonce of one AES-128-GCM record. The header in front of it says the salt, the size of a record
and our key of one use.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kit import errors

RECORD_BYTES: Final = 4_096
"""What every push service takes (RFC 8291, section 4)."""
SALT_BYTES: Final = 16
TAG_BYTES: Final = 16
HEADER_BYTES: Final = SALT_BYTES + 4 + 1 + 65
TEXT_BYTES_MAX: Final = RECORD_BYTES - HEADER_BYTES - TAG_BYTES - 1
_LAST: Final = b"\x02"
"""Ends the text of the last record."""


def seal(text: bytes, public_key: bytes, auth: bytes) -> bytes:
    """The body of a push message. Raises Invalid for a key that is no point of the curve."""
    return sealed(text, public_key, auth, ec.generate_private_key(ec.SECP256R1()), os.urandom(SALT_BYTES))


def sealed(text: bytes, public_key: bytes, auth: bytes, own: ec.EllipticCurvePrivateKey, salt: bytes) -> bytes:
    """The same with a key and a salt that are given: both must never be used twice."""
    assert len(text) <= TEXT_BYTES_MAX
    shown = point(own.public_key())
    shared = own.exchange(ec.ECDH(), read_point(public_key))
    secret = _derived(shared, auth, b"WebPush: info\0" + public_key + shown, 32)
    key = _derived(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derived(secret, salt, b"Content-Encoding: nonce\0", 12)
    header = salt + struct.pack(">IB", RECORD_BYTES, len(shown)) + shown
    return header + AESGCM(key).encrypt(nonce, text + _LAST, None)


def point(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as browsers want it: 65 bytes, uncompressed."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def read_point(data: bytes) -> ec.EllipticCurvePublicKey:
    """The other way round. Raises Invalid."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data)
    except ValueError as error:
        raise errors.Invalid.of("public_key", "is not a point of P-256", reason="BAD_KEY") from error


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)
