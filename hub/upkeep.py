"""The upkeep of a hub's store put together: guard, keeper, care, alerts and doctor; and what is odd about a machine."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hub.config import Config
from hub.core.alerts import facts as alert_facts
from hub.core.token import Scope
from hub.engine.alerts.board import Board
from hub.engine.alerts.watch import Watch
from hub.engine.care.desk import Care
from hub.engine.care.doctor import Doctor
from hub.engine.live.context import Context
from hub.engine.live.fleet import Fleet
from hub.engine.live.sessions import Sessions
from hub.engine.script import tokens
from hub.store import folder
from hub.store.base import Store
from hub.store.care import errand
from hub.store.care.guard import Guarded
from hub.store.care.keeper import Keeper, Policy
from kit import certificate, errors, ids, logs
from kit import clock as clocks
from kit import tokens as secrets

log = logs.get(__name__)

STORE_FOLDER: Final = "store"
BACKUP_FOLDER: Final = "backups"
ADMIN_TOKEN_FILE: Final = "admin.token"


class Upkeep:
    """Everything that looks after the store of one hub."""

    def __init__(
        self, ctx: Context, store: Guarded, config: Config, *, late: Callable[[float, float], Sequence[str]]
    ) -> None:
        """`late` names the loops that are late at a time, beyond some grace."""
        self._ctx = ctx
        self._late = late
        keeper = keeper_of(store, config)
        self.care = Care(ctx, keeper, found=store.found)
        self.board = Board(ctx, lambda now: self.care.facts(now, self._late_loops(now)))
        self.doctor = Doctor(ctx, self.care, late=self._late_loops, oddities=lambda: oddities(config))
        store.remedy = self._remedy
        store.on_damage = lambda: self._damaged(store.damage)
        if store.damage:
            self._damaged(store.damage)

    def watch(self, fleet: Fleet, sessions: Sessions) -> None:
        """Have the alerts look at the work, too, and the doctor at the sessions; once, when there is something to
        watch.
        """
        watch = Watch(self._ctx, fleet, sessions, soon=self.board.soon)
        watch.start(self.board.alerts)
        self.board.work = watch.work
        self.doctor.agent_clocks = sessions.clock_offsets

    @property
    def desks(self) -> tuple[Care, Board, Doctor]:
        """What HubService asks."""
        return self.care, self.board, self.doctor

    def _remedy(self) -> str:
        """As of the last look of the board: many may be refused, and each is told."""
        facts = self.board.facts
        return facts.remedy if facts is not None and facts.remedy else self.care.remedy()

    def _damaged(self, damage: str) -> None:
        self._ctx.gate.damage = damage
        self.board.wake.set()

    def _late_loops(self, now: float) -> tuple[str, ...]:
        # A backup takes as long as the store is large; its own alert tells when there is none for too long.
        return tuple(name for name in self._late(now, alert_facts.LOOP_GRACE_S) if name != "backup")


def keeper_of(store: Guarded, config: Config) -> Keeper | None:
    """Who keeps this store; None for one in memory."""
    settings = config.backup
    policy = Policy(settings.every_s, settings.keep_count, settings.keep_age_s)
    return Keeper.of(store, config.data / STORE_FOLDER, backup_folder(config), policy)


def backup_folder(config: Config) -> Path:
    """Where the backups are."""
    return config.backup.folder or config.data / BACKUP_FOLDER


async def guard(config: Config, opens: Callable[[Config], Store], *, crashed: bool) -> Guarded:
    """The store behind its guard. One that is damaged is an empty one that says so; any other refusal is raised.

    After a crash the file is read through first, by another process: it may be what ended the last hub.
    """
    file = config.data / STORE_FOLDER / folder.DATA_NAME
    if crashed and config.store.kind != "memory" and file.exists():
        report = await errand.run("check", str(file))
        log.warning("store.suspected", problems=len(report.problems), records=report.records)
        if report.problems:
            return Guarded.around_nothing(file.parent, report.problems[0])
    try:
        return Guarded(opens(config))
    except errors.Problem as problem:
        if not isinstance(problem, errors.DataLoss) and problem.reason != "STORE_UNKNOWN":
            raise
        log.error("store.broken", problem=problem.message)
        return Guarded.around_nothing(config.data / STORE_FOLDER, problem.message)


async def admit_operator(store: Guarded, config: Config, now: float, new: ids.IdSource) -> None:
    """Whoever can read the token in the data folder may look at a hub whose store, with all tokens, is not open."""
    try:
        secret = (config.data / ADMIN_TOKEN_FILE).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return
    if secrets.is_token(secret):
        token = tokens.new(new.new(now), secret, Scope.OPERATOR, now, display_name="of the data folder")
        await store.inner.write(lambda txn: tokens.create(txn, token, now, actor="hub"))


def oddities(config: Config) -> list[str]:
    """What may be configured or set up like this and should not be, one phrase each."""
    found = []
    if config.store.kind == "memory":
        found.append("the store is in memory and is forgotten at the end")
    if config.store.lose_data_on_power_cut:
        found.append("store.lose_data_on_power_cut is set: a power cut loses what was acknowledged")
    if not config.backup.every_s and config.store.kind != "memory":
        found.append("backup.every_s is 0: no backups are made by themselves")
    if config.auth.required is False:
        found.append("auth.required is false: whoever reaches the port may do everything")
    if not config.address.is_loopback and config.server.tls_certificate is None:
        found.append(f"server.listen is {config.server.listen}, beyond the loopback, and there is no TLS")
    server = config.server
    if server.tls_certificate is not None and server.tls_key is not None:
        files = certificate.Files(server.tls_certificate, server.tls_key, server.tls_client_ca)
        found += certificate.oddities(files, clocks.SystemClock().now())
    found += [text for path in (config.data, config.data / ADMIN_TOKEN_FILE) if (text := _open_to_others(path))]
    return found


def _open_to_others(path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ""
    return f"{path} has mode {mode:o}: others on this machine can read it" if mode & 0o077 else ""
