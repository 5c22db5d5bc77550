"""The folder of one agent on this machine: what is in it, how far its set-up has come, and who works on it now.

    <base>/<name>/add.json       how far `agent add` has come; nothing secret
                  sidecar.toml   the sidecar's configuration
                  token          the agent's token
                  state/         the sidecar's journal and lock
                  work/          clones and working trees
                  sidecar.log, sidecar.pid   where a plain process is the service

Everything here is for its owner only. Files are replaced in one step, so that a crash leaves the old or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from kit import errors, ids

RECORD = "add.json"
#: A record is some hundred bytes; more is a mistaken path.
RECORD_BYTES_MAX = 64 * 1024

Step = Literal["configure", "preflight", "enrol", "install", "start", "idle", "test"]
#: In this order.
STEPS: tuple[Step, ...] = ("configure", "preflight", "enrol", "install", "start", "idle", "test")
ServiceKind = Literal["systemd", "process"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What its configuration is written from."""

    slots: int = 1
    executors: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    display_name: str = ""
    sandbox: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and what of it is done."""

    name: str
    hub: str
    service: ServiceKind
    #: Of the enrolment, from before the call: when its answer is lost, the next try gets the same agent again.
    request_id: str
    #: Of the test tasks, and when they were first filed: a try that was cut off is not filed twice.
    trial_id: str = ""
    trial_begun_at: int = 0
    asked: Asked = Asked()
    #: It exists at the hub and gets a new token, instead of being enrolled.
    rejoin: bool = False
    #: A name that we made up: another one will do as well.
    invented: bool = False
    #: Repositories that it is tried with: "repos/notes".
    repos: tuple[str, ...] = ()
    done: tuple[Step, ...] = ()

    @property
    def is_finished(self) -> bool:
        return set(self.done) == set(STEPS)

    def after(self, step: Step) -> Record:
        """The record when this step is done, too."""
        return self if step in self.done else msgspec.structs.replace(self, done=(*self.done, step))


class AgentFolder:
    """Where one agent of this machine is kept."""

    def __init__(self, base: Path, name: str) -> None:
        """Raises Invalid for a name that is no id."""
        if not ids.is_slug(name):
            raise errors.Invalid.of("NAME", f"{name!r} is not an id: a-z, 0-9 and dashes, at most 63 characters")
        self.name = name
        self.path = base / name
        self.config = self.path / "sidecar.toml"
        self.token = self.path / "token"
        self.state = self.path / "state"
        self.work = self.path / "work"
        self.log = self.path / "sidecar.log"
        self.pid = self.path / "sidecar.pid"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Work on it alone. Makes the folder; one that is empty at the end is removed. Raises IllegalState."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The folder itself is locked: a lock file would have to be removed, and somebody may wait for it then.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise errors.Invalid.of("--dir", f"{error.filename}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise errors.IllegalState(
                    f"another agentcom works on {self.path} just now", state="locked", reason="AGENT_FOLDER_IN_USE"
                ) from error
            yield
        finally:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            os.close(descriptor)

    def read(self) -> Record | None:
        """How far it has come; None: nothing was begun here. Raises Invalid when the record is damaged."""
        path = self.path / RECORD
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(data[:RECORD_BYTES_MAX], type=Record)
        except msgspec.MsgspecError as error:
            raise errors.Invalid.of("--dir", f"{path} is damaged: {error}") from error

    def write(self, record: Record) -> None:
        """Keep how far it has come."""
        self.replace(self.path / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2))

    def replace(self, path: Path, data: bytes) -> None:
        """Write a file under its name in one step, durably, for its owner only."""
        fresh = path.with_name(f"{path.name}.new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def clear(self, *, purge: bool) -> None:
        """Remove what is ours, the record last: what is left half-way is known. The work stays unless `purge`."""
        last = self.path / RECORD
        for entry in sorted(self.path.iterdir()):
            if entry == last or (entry == self.work and not purge):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        last.unlink(missing_ok=True)


def base_default() -> Path:
    """Where agents are kept unless somebody says otherwise."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "agentcom" / "agents"


def unfinished(base: Path) -> list[str]:
    """Names whose set-up was begun here and did not come to its end."""
    records = ((path.parent.name, AgentFolder(base, path.parent.name).read()) for path in base.glob(f"*/{RECORD}"))
    return sorted(name for name, record in records if record is not None and not record.is_finished)
