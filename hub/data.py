"""The data folder: made closed to others, and small files in it written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from kit import errors


def prepare(folder: Path) -> None:
    """Make the folder. Raises Invalid when it cannot be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from error


def write(file: Path, text: str, *, mode: int) -> None:
    """Write a file that nobody ever sees half written or with a wider mode. Raises Invalid when it cannot."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            os.fchmod(descriptor, mode)  # the umask, or an older draft, may have said otherwise
            os.write(descriptor, text.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(file)
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(path: Path, error: OSError) -> errors.Invalid:
    return errors.Invalid(f"data: {path} cannot be written: {error.strerror}", reason="BAD_CONFIGURATION")
