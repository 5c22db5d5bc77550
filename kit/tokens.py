"""Secrets that callers show: made here, shown once, stored only as a hash."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

PREFIX = "act_"
SECRET_BYTES = 32  # 256 bits, 43 characters of url-safe base64
PATTERN = re.compile(r"act_[A-Za-z0-9_-]{43}")


def new_token() -> str:
    """A new random token. Whoever receives it must keep it: it cannot be shown again."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def is_token(text: str) -> bool:
    """Has this the form of a token?"""
    return PATTERN.fullmatch(text) is not None


def digest(token: str) -> str:
    """What is stored: SHA-256 in hex. No salt or stretching: 256 random bits cannot be guessed from it."""
    return hashlib.sha256(token.encode()).hexdigest()


def matches(token: str, stored_digest: str) -> bool:
    """Does the token belong to the stored hash? Takes the same time whatever the answer."""
    return hmac.compare_digest(digest(token), stored_digest)
