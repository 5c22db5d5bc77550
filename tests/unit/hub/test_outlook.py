"""What a new version will find on a store, and what the doctor says of clocks, in sentences."""

from __future__ import annotations

import pytest

from hub.core import diagnosis, outlook
from hub.core.backup import Backup, Trigger
from hub.core.diagnosis import MIB, Verdict


@pytest.mark.parametrize(
    ("found", "verdict", "says"),
    [
        (0, Verdict.OK, "there is no store in s yet; a new one gets schema 2"),
        (1, Verdict.OK, "the store has schema 1 and is brought to 2 at the start, after a copy to s.v1"),
        (2, Verdict.OK, "the store has schema 2, as this program has: both ways are open"),
        (3, Verdict.FAILED, "the store has schema 3, this program knows up to 2 and will not touch it"),
    ],
)
def test_the_schema(found, verdict, says):
    told = outlook.of_schema(found, 2, "s")
    assert (told.verdict, told.message) == (verdict, says)


@pytest.mark.parametrize(
    ("needed", "free", "verdict"),
    [(0, 0, Verdict.OK), (5 * MIB, 5 * MIB, Verdict.OK), (5 * MIB, 5 * MIB - 1, Verdict.FAILED)],
)
def test_room_is_needed_only_for_the_copy(needed, free, verdict):
    assert outlook.of_room(needed, free).verdict is verdict


def test_sidecars_that_would_be_refused_fail_the_check_and_those_one_minor_apart_do_not():
    same = [("a", "0.3.1"), ("b", ""), ("c", "scripted")]
    assert outlook.of_agents(same, "0.3.0") == outlook.Diagnosis(
        "sidecars", Verdict.OK, "none of 3 sidecars is of another minor than 0.3.0"
    )
    near = outlook.of_agents([*same, ("d", "0.2.0"), ("e", "0.4.0")], "0.3.0")
    assert (near.verdict, near.advice) == (Verdict.OK, "upgrade them after the hub")
    assert near.message == "2 sidecars are one minor apart from 0.3.0 and work on: d (0.2.0), e (0.4.0)"
    far = outlook.of_agents([*same, *((f"f{n}", "0.1.0") for n in range(7)), ("d", "0.2.0")], "0.3.0")
    assert far.verdict is Verdict.FAILED
    assert far.message.startswith("a hub 0.3.0 refuses 7 of 11 sidecars: f0 (0.1.0), ")
    assert far.message.endswith(" and 2 more")


def test_clocks_of_sidecars_are_told_when_they_are_off_the_furthest_first():
    assert diagnosis.of_agent_clocks({}).message == "no sidecar says its time"
    assert diagnosis.of_agent_clocks({"a": 5.0, "b": -5.0}).verdict is Verdict.OK
    told = diagnosis.of_agent_clocks({"a": 6.0, "b": -7_200.0, "c": 1.0, "d": 60.0, "e": -61.0, "f": 7.0})
    assert told.verdict is Verdict.WARNING
    assert told.message == "agents/b is 7200 s behind, agents/e is 61 s behind, agents/d is 60 s ahead and 2 more"


def backup(at: float) -> Backup:
    return Backup(
        id="01hgw2n8abcdefghjkmn", uid="u", generation_floor=0, schema_version=2, event_position=1, size_bytes=1,
        sha256="", trigger=Trigger.REQUEST, created_at=at, verified_at=at,
    )  # fmt: skip


def test_a_backup_should_be_younger_than_a_day():
    assert outlook.of_backup([], 0.0).verdict is Verdict.WARNING
    assert outlook.of_backup([backup(1_000.0)], 1_000.0 + outlook.BACKUP_AGE_WARN_S).verdict is Verdict.OK
    assert outlook.of_backup([backup(1_000.0)], 1_001.0 + outlook.BACKUP_AGE_WARN_S).verdict is Verdict.WARNING
