"""The very bytes of every record of version 1 of the schema, which are on people's disks.

`kept/v1/bytes.json` was written by the program of that version. A field may be added, when it has a default; none may
change its name, type or default without a new version of its record and a step in migrate.py. What a record is encoded
to is compared, too: an older hub of the same schema must be able to read what a newer one wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hub.core import agent, goal, task
from hub.store import codec
from tests.store.kept.records import RECORDS

WRITTEN = json.loads((Path(__file__).parent / "kept" / "v1" / "bytes.json").read_text())
NESTED = (
    agent.Offer,
    goal.Assertion,
    goal.PlanTask,
    task.ArtifactInfo,
    task.Check,
    task.DiffStat,
    task.Failure,
    task.Receipt,
    task.Requirement,
    task.Result,
)
KINDS: tuple[type[Any], ...] = (*(type(record) for _, record in RECORDS.values()), *NESTED)
TYPES = {kind.__name__: kind for kind in KINDS}
#: Written since version 2.
ANCHOR = "792239c79182a8706f736974696f6e07a468617368c41068686868686868686868686868686868"


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_of_version_1_is_read_as_what_it_was(name):
    kind, record = RECORDS[name]
    assert kind.decode(bytes.fromhex(WRITTEN["records"][name]), b"key") == record


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_written_as_version_1_wrote_it(name):
    kind, record = RECORDS[name]
    assert kind.encode(record).hex() == WRITTEN["records"][name]


@pytest.mark.parametrize("name", WRITTEN["defaults"])
def test_no_default_has_changed(name):
    """What has its default is not on the disk: it would be read as the new one."""
    now = {
        field.name: repr(field.default_factory() if field.default is msgspec.NODEFAULT else field.default)
        for field in msgspec.structs.fields(TYPES[name])
        if not field.required
    }
    before = WRITTEN["defaults"][name]
    assert {field: now.get(field) for field in before} == before


def test_every_sort_of_record_is_here():
    kinds = {value for value in vars(codec).values() if isinstance(value, codec.Codec)}
    assert kinds == {kind for kind, _ in RECORDS.values()} | {codec.ANCHOR}


def test_the_anchor_of_version_2_is_read_and_written_as_it_was():
    anchor = codec.Anchor(position=7, hash=b"h" * 16)
    assert codec.ANCHOR.decode(bytes.fromhex(ANCHOR), b"key") == anchor
    assert codec.ANCHOR.encode(anchor).hex() == ANCHOR
