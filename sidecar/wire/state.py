"""The state folder: whose it is, and the few small files in it besides the journal.

One sidecar at a time owns it. The lock belongs to the process, so a killed one leaves none behind.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from kit import errors

LOCK = "lock"
IDENTITY = "identity.json"
#: An identity is a few hundred bytes; more is a mistaken path.
FILE_BYTES_MAX = 64 * 1024


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this sidecar is to its hub."""

    #: The bare id; empty: not enrolled yet.
    agent: str = ""
    token: str = ""
    #: Of the enrolment, kept from before the call: a lost reply then gives the same agent again.
    request_id: str = ""


class StateFolder:
    """A folder that this process owns until `close`."""

    def __init__(self, path: Path) -> None:
        """Make and lock it. Raises IllegalState when another process has it, Unavailable when it cannot be made."""
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise errors.Unavailable(
                f"the state folder {path} cannot be used: {error.strerror}", reason="STATE_FOLDER"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._lock)
            raise errors.IllegalState(
                f"the state folder {path} is in use by another sidecar (process {owner}); give this one its own",
                state="locked",
                reason="STATE_FOLDER_IN_USE",
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give it up."""
        os.close(self._lock)


def read_identity(folder: Path) -> Identity:
    """Who the folder says we are; an empty one when it does not say. Raises Invalid when it is damaged."""
    path = folder / IDENTITY
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Identity()
    try:
        return msgspec.json.decode(data[:FILE_BYTES_MAX], type=Identity)
    except msgspec.MsgspecError as error:
        raise errors.Invalid(
            f"{path} is damaged ({error}); remove it and enrol again", reason="DAMAGED_IDENTITY"
        ) from error


def write_identity(folder: Path, identity: Identity) -> None:
    """Keep it: readable by the owner only, whole or not at all, on the disk before this returns."""
    replace_file(folder / IDENTITY, msgspec.json.encode(identity))


def replace_file(path: Path, data: bytes) -> None:
    """Write a file under its name in one step, durably, with mode 0600."""
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
    sync_folder(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything or raise OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(path: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
