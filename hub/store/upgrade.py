"""Opening a store: made when it is new, brought forward when it is older, with a copy of it kept aside first.

Theory. A migration that is wrong is noticed days later, so the store as the older program left it is copied before the
first byte is changed: beside the store's folder, under the version that it has (`store.v1`). Only when the copy is on
the disk the steps run, all in one transaction: killed at any point, the store is the older one or the newer one, and
the next start finds out which. A copy that was made before is made anew, for the store may have lived on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Protocol

from hub.store import codec, folder, keys, migrate
from hub.store.ordered import Ordered, ReadOrdered
from kit import errors, logs

log = logs.get(__name__)


class Environment(Protocol):
    """What is needed of the place where the store is."""

    path: Path
    full_errors: tuple[type[BaseException], ...]

    def snapshot(self) -> contextlib.AbstractContextManager[ReadOrdered]:
        """The map as it is."""

    def begin(self) -> Ordered:
        """A write transaction."""

    def commit(self) -> None:
        """Make it durable."""

    def abort(self) -> None:
        """Drop it."""

    def grow(self) -> bool:
        """Make the map larger; False when it is as large as it may get."""

    def copy(self, target: Path) -> None:
        """A consistent copy into an empty folder."""


def prepare(environment: Environment) -> None:
    """Check and bring forward the schema; give a new store its uid. A refused store is not touched.

    Raises IllegalState for a store that this hub must not touch, Unavailable when there is no room for the copy that is
    kept aside.
    """
    with environment.snapshot() as kv:
        version = migrate.found(kv)
    if version == migrate.VERSION:
        return
    if version is None:
        _transaction(environment, new=True)
    else:
        log.warning("store.older", version_before=version, version=migrate.VERSION, path=str(environment.path))
        began = time.monotonic()
        aside = _keep_aside(environment, version)
        _transaction(environment, new=False)
        took_s = round(time.monotonic() - began, 1)
        log.info("store.brought_forward", version_before=version, version=migrate.VERSION, kept=str(aside), s=took_s)
    folder.sync(environment.path)


def aside_folder(store: Path, version: int) -> Path:
    """Where the store is kept as it was before it was brought forward from this version."""
    return store.with_name(f"{store.name}.v{version}")


def _transaction(environment: Environment, *, new: bool) -> None:
    """Everything in one transaction, again in a larger map when it was too small."""
    while True:
        try:
            kv = environment.begin()
            migrate.bring(kv)
            if new:
                kv.put(keys.meta("uid"), codec.seal(codec.CONTENT_TAG, secrets.token_hex(8).encode()))
            return environment.commit()
        except environment.full_errors as cause:
            environment.abort()
            if not environment.grow():
                raise errors.Exhausted(
                    "the store is full: it cannot be brought forward; raise store.map_max_bytes", reason="STORE_FULL"
                ) from cause
        except BaseException:
            environment.abort()
            raise


def _keep_aside(environment: Environment, version: int) -> Path:
    target = aside_folder(environment.path, version)
    partial = target.with_name(f"{target.name}.partial")
    try:
        for leftover in (partial, target):
            if leftover.exists():
                shutil.rmtree(leftover)
        partial.mkdir(mode=0o700)
        environment.copy(partial)
        with open(partial / "data.mdb", "rb") as file:
            os.fsync(file.fileno())
        folder.sync(partial)
        partial.rename(target)
        folder.sync(target.parent)
    except Exception as cause:
        shutil.rmtree(partial, ignore_errors=True)
        raise errors.Unavailable(
            f"the store has schema version {version} and could not be copied to {target} before it is brought "
            f"forward: {cause}",
            reason="NO_COPY_BEFORE_MIGRATION",
        ) from cause
    return target
