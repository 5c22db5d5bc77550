"""Backups, audits and diagnoses: from the records to the wire."""

from __future__ import annotations

from agentcom.v1 import backup_pb2, hub_pb2, hub_service_pb2
from hub.core.alerts.facts import Facts
from hub.core.backup import Backup
from hub.core.diagnosis import Diagnosis, Findings
from hub.rpc import translate


def write_backup(backup: Backup, into: backup_pb2.Backup) -> None:
    """Fill a backup."""
    into.name = f"backups/{backup.id}"
    translate.write_time(backup.created_at, into.create_time)
    into.size_bytes = backup.size_bytes
    into.event_position = backup.event_position
    into.schema_version = backup.schema_version
    into.uid = backup.uid
    into.trigger = backup.trigger  # type: ignore[assignment]  # the numbers are the same
    translate.write_time(backup.verified_at, into.verify_time)
    into.problem = backup.problem


def write_findings(findings: Findings, into: hub_service_pb2.VerifyStoreResponse) -> None:
    """Fill what an audit found."""
    into.record_count = findings.records
    into.index_entry_count = findings.index_entries
    into.event_count = findings.events
    into.problems.extend(findings.problems)


def write_diagnosis(diagnosis: Diagnosis, into: hub_pb2.Diagnosis) -> None:
    """Fill one thing that was looked at."""
    into.probe = diagnosis.probe
    into.verdict = diagnosis.verdict  # type: ignore[assignment]  # the numbers are the same
    into.message = diagnosis.message
    into.advice = diagnosis.advice


def write_figures(facts: Facts | None, alert_count: int, into: hub_pb2.Stats) -> None:
    """Fill what the figures of the hub say of its store."""
    into.alert_count = alert_count
    if facts is not None:
        into.store_degraded = bool(facts.degraded)
        translate.write_time(facts.backup_newest_at, into.backup_time)
