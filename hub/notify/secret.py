"""Secrets of the sinks, each in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kit import errors

BYTES_MAX: Final = 512


def read(file: Path, key: str, *, bytes_min: int = 1) -> str:
    """What the file holds, without the white space around it. Raises Invalid that names `key`, never the secret."""
    try:
        with file.open("rb") as opened:
            data = opened.read(BYTES_MAX + 1)
    except OSError as error:
        raise _bad(f"{key}: {file} cannot be read: {error.strerror}") from error
    text = data.decode("utf-8", "replace").strip()
    if len(data) > BYTES_MAX or not text.isprintable() or not bytes_min <= len(text.encode()):
        raise _bad(f"{key}: {file} does not hold one line of {bytes_min} to {BYTES_MAX} bytes")
    return text


def _bad(text: str) -> errors.Invalid:
    return errors.Invalid(text, reason="BAD_CONFIGURATION")
