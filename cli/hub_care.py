"""`agentcom hub` about its store: alerts, backups, verify, compact, doctor; and restore, for a hub that is stopped."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from agentcom.v1 import backup_pb2, hub_pb2, hub_service_pb2
from cli import alert, output, words
from cli.command import command, ending
from cli.session import Session
from kit import errors, program

WHOLE_S = 3600.0
"""For what takes as long as the store is large: hundreds of gigabytes."""
MIB = 1024 * 1024

WARNING_CODE = 1
BROKEN_CODE = 2

BACKUPS: list[output.Column[backup_pb2.Backup]] = [
    ("BACKUP", lambda one: words.short_name(one.name)),
    ("MADE", lambda one: words.time_text(one.create_time)),
    ("SIZE", lambda one: f"{one.size_bytes / MIB:.1f} MiB"),
    ("EVENTS", lambda one: str(one.event_position)),
    ("WHY", lambda one: words.enum_word(backup_pb2.Backup.Trigger, one.trigger, "TRIGGER_")),
    ("IS", lambda one: one.problem or ("good" if one.HasField("verify_time") else "not verified")),
]

DIAGNOSES: list[output.Column[hub_pb2.Diagnosis]] = [
    ("PROBE", lambda one: one.probe),
    ("IS", lambda one: words.enum_word(hub_pb2.Diagnosis.Verdict, one.verdict, "VERDICT_")),
    ("FOUND", lambda one: one.message),
    ("DO", lambda one: one.advice),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the group of the hub."""
    for name, function in (
        ("alerts", alerts), ("backup", backup), ("backups", backups), ("verify", verify), ("compact", compact),
        ("doctor", doctor),
    ):  # fmt: skip
        command(app, name)(function)
    app.command("restore")(restore)


async def alerts(session: Session) -> None:
    """Show what a person should look at now, the most urgent first."""
    reply = await session.call(session.hub.ListAlerts, hub_service_pb2.ListAlertsRequest())
    session.output.many(list(reply.alerts), alert.ALERTS, empty="nothing")


async def backup(session: Session) -> None:
    """Copy the store while the hub works, and read the copy through."""
    ask = hub_service_pb2.CreateBackupRequest()
    reply = await session.call(session.hub.CreateBackup, ask, again=False, at_least_s=WHOLE_S)
    session.output.one(reply.backup, lambda one: output.table([one], BACKUPS))


async def backups(
    session: Session, limit: Annotated[int, typer.Option("--limit", min=1, help="how many at most")] = 100
) -> None:
    """List the backups, newest first."""

    async def fetch(size: int, token: str) -> tuple[list[backup_pb2.Backup], str]:
        ask = hub_service_pb2.ListBackupsRequest(page_size=size, page_token=token)
        reply = await session.call(session.hub.ListBackups, ask)
        return list(reply.backups), reply.next_page_token

    session.output.many(await session.pages(fetch, limit), BACKUPS, empty="there are none")


async def verify(
    session: Session,
    backup: Annotated[str, typer.Argument(metavar="[BACKUP]", help="a backup; none: the hub's own store")] = "",
) -> int:
    """Read the store, or a backup, through: every record, index entry and event. Exit code 2: something is wrong."""
    ask = hub_service_pb2.VerifyStoreRequest(backup=words.full_name("backups", backup) if backup else "")
    reply = await session.call(session.hub.VerifyStore, ask, at_least_s=WHOLE_S)
    session.output.one(reply, lambda reply: output.cell(_findings(reply)))
    return BROKEN_CODE if reply.problems else 0


async def compact(session: Session) -> None:
    """Give the space of what was deleted back to the disk. Writes wait meanwhile."""
    ask = hub_service_pb2.CompactStoreRequest()
    reply = await session.call(session.hub.CompactStore, ask, again=False, at_least_s=WHOLE_S)
    session.output.one(
        reply,
        lambda one: output.cell(f"{one.before_bytes / MIB:.1f} MiB before, {one.after_bytes / MIB:.1f} MiB after"),
    )


async def doctor(session: Session) -> int:
    """Look at everything that the hub needs. Exit code 0: all is well, 1: a warning, 2: something does not work."""
    ask = hub_service_pb2.DiagnoseHubRequest()
    try:
        reply = await session.call(session.hub.DiagnoseHub, ask, at_least_s=WHOLE_S)
    except errors.Unavailable as problem:
        raise errors.Unavailable(
            f"{problem.message}\nWhere its data is, this looks at a hub that is stopped: "
            "agentcom-hub doctor --data FOLDER",
            reason=problem.reason,
        ) from problem
    session.output.many(list(reply.diagnoses), DIAGNOSES)
    verdicts = {one.verdict for one in reply.diagnoses}
    if hub_pb2.Diagnosis.VERDICT_FAILED in verdicts:
        return BROKEN_CODE
    return WARNING_CODE if verdicts - {hub_pb2.Diagnosis.VERDICT_OK} else 0


def restore(
    backup: Annotated[str, typer.Argument(metavar="BACKUP", help="its id, or its file")],
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="data folder of the hub, on this machine")],
    force: Annotated[bool, typer.Option("--force", help="also when the store has what the backup has not")] = False,
) -> None:
    """Put a backup in the place of the store of a hub that is stopped; the old store is kept aside."""
    words = ["restore", backup.removeprefix("backups/"), "--data", str(data), *(["--force"] if force else [])]
    ending(lambda: subprocess.run([*program.node("hub"), *words], check=False).returncode)


def _findings(reply: hub_service_pb2.VerifyStoreResponse) -> str:
    if reply.problems:
        return "\n".join(reply.problems)
    return (
        f"{reply.record_count} records, {reply.index_entry_count} index entries and {reply.event_count} events are good"
    )
