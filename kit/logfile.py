"""A log file that stays within a size: rotated by itself, and at peace with whoever else rotates it.

When the next record does not fit, `x.log` becomes `x.log.1`, `x.log.1` becomes `x.log.2`, and so on; the oldest beyond
the count goes. A logrotate that renames the file is noticed within a second, and a new file is begun; one that copies
and truncates (`copytruncate`) works, too, because every record is appended. No signal is needed for either.

One process writes to a file: it is locked, and a second process is refused at its start. A disk that is full, or any
other fault of it, never stops the process: records are dropped and counted, each further one is a new try, and the
first that is written again is preceded by one that tells how many are missing (`log.resumed`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
import time
from pathlib import Path
from typing import Final

from kit import errors

BYTES_DEFAULT: Final = 32 * 1024 * 1024
"""Some hundred thousand records: days of a small fleet."""

BYTES_MIN: Final = 64 * 1024
"""Holds the longest record some times over."""

COUNT_DEFAULT: Final = 5

LOOK_S: Final = 1.0
"""How often it is looked whether somebody else has taken the file away."""

MODE: Final = 0o600
"""Records hold no secret that is known to be one, and yet names, paths and errors that are nobody else's business."""


class LogFile:
    """The file, as a stream of text. Any thread may write."""

    def __init__(self, path: Path, *, bytes_max: int = BYTES_DEFAULT, count_max: int = COUNT_DEFAULT) -> None:
        """Open it, made with its folder where there is none. `count_max` old files are kept beside it.

        Raises Invalid when it cannot be written, IllegalState when another process writes to it.
        """
        self.path = path
        #: Records that could not be written, since the last that could.
        self.dropped = 0
        self._bytes_max = bytes_max
        self._count_max = count_max
        self._guard = threading.Lock()
        self._torn = False
        self._looked_at = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = self._open()
        except OSError as error:
            raise errors.Invalid.of("log.file", f"{path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise errors.IllegalState(
                f"log.file {path} is in use by another process; give this one its own",
                state="locked",
                reason="LOG_FILE_IN_USE",
            ) from error

    def isatty(self) -> bool:
        """It is no terminal."""
        return False

    def write(self, text: str) -> int:
        """Append whole records, or drop them when that cannot be done."""
        data = text.encode(errors="replace")
        with self._guard:
            try:
                self._put(data)
            except OSError:
                self.dropped += 1
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """End it."""
        with self._guard:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _put(self, data: bytes) -> None:
        now = time.monotonic()
        if self._file < 0 or now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._look()
        if self._size and self._size + len(data) > self._bytes_max:
            self._rotate()
        if self.dropped:
            data = self._resumed() + data
        if self._torn:
            data = b"\n" + data
        view = memoryview(data)
        while view:
            written = os.write(self._file, view)
            self._size += written
            self._torn = written < len(view) or not data.endswith(b"\n")
            view = view[written:]
        self.dropped = 0

    def _resumed(self) -> bytes:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        return (
            f'{{"time":"{at}Z","level":"error","event":"log.resumed","module":"{__name__}","dropped":{self.dropped}}}\n'
        ).encode()

    def _look(self) -> None:
        """See whether the name still leads to our file, and how long that is."""
        try:
            named = self.path.stat()
        except FileNotFoundError:
            named = None
        own = os.fstat(self._file) if self._file >= 0 else None
        if named is None or own is None or (named.st_dev, named.st_ino) != (own.st_dev, own.st_ino):
            self._begin()
        else:
            self._size = own.st_size

    def _rotate(self) -> None:
        # Where the file has gone already, a new one could not be begun before: the old ones must not go, one each try.
        for number in range(self._count_max if self.path.exists() else 0, 0, -1):
            older = self._numbered(number - 1) if number > 1 else self.path
            with contextlib.suppress(FileNotFoundError):
                older.replace(self._numbered(number))
        self._begin()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _begin(self) -> None:
        """Go on in a new file."""
        old, self._file = self._file, self._open()
        with contextlib.suppress(OSError):  # whoever else has it began after us; the next start tells
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if old >= 0:
            os.close(old)

    def _open(self) -> int:
        # Not blocking: a pipe that nobody reads would hold up the open. It is refused then, like any device: to give it
        # the mode of a log file would take it away from everybody else.
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, MODE)
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, "it is no regular file")
        os.fchmod(file, MODE)
        self._size = found.st_size
        self._torn = False
        return file
