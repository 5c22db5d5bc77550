"""The board and the desk: what is raised is written down once, what people say is kept; both outlive the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from hub.core.alerts import alert
from hub.core.alerts import rule as alert_rule
from hub.core.alerts.alert import MUTES_MAX, Mute, Severity
from hub.core.alerts.facts import Facts, Work
from hub.core.event import EVENT_TYPES, Event
from hub.engine.alerts.board import LOOK_S, SOON_S, UNTOLD_MAX, Board
from hub.engine.alerts.desk import AlertDesk
from hub.engine.script import alerting
from hub.store.base import Txn
from kit import errors
from tests.support.stage import Stage

FAILED = "backup-failed"
WHO = "tokens/anna"


class Boarded(Stage):
    """A stage with a board whose facts the test says."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.facts = Facts(now=0.0, work=Work())
        self.again()

    def again(self) -> None:
        """As after a restart."""
        self.board = Board(self.ctx, lambda now: self.facts._replace(now=now))
        self.board.work = lambda _now: self.facts.work
        self.desk = AlertDesk(self.ctx, self.board)

    async def look(self, after_s: float = 15.0, **facts: Any) -> None:
        self.clock.advance(after_s)
        self.facts = self.facts._replace(**facts)
        await self.board.run_once(self.clock.now())

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.board.alerts]

    def log(self, subject: str = f"alerts/{FAILED}") -> list[Event]:
        return self.see(lambda reader: reader.events_of(subject, limit=100))

    def writes(self) -> int:
        return self.store.facts().writes


@pytest.fixture
async def stage() -> AsyncIterator[Boarded]:
    made = Boarded()
    yield made
    await made.close()


def types(events: list[Event]) -> list[str]:
    assert {one.type for one in events} <= set(EVENT_TYPES)
    return [one.type for one in events]


async def test_what_is_raised_and_cleared_is_in_the_log_once_with_all_that_a_reader_needs(stage: Boarded):
    await stage.look()
    assert stage.writes() == 0
    for _ in range(3):
        await stage.look(backup_failure="no room")
    (raised,) = stage.log()
    assert raised.type == "alert.raised" and raised.fields == {
        "rule": FAILED, "severity": "WARNING", "message": "the last backup failed: no room", "told": "true",
        "advice": "mend the cause, then run `agentcom hub backup`",
    }  # fmt: skip
    await stage.look(backup_failure="")
    _, cleared = stage.log()
    assert cleared.type == "alert.cleared" and (cleared.fields["told"], cleared.fields["acked"]) == ("true", "false")
    assert stage.writes() == 2


async def test_a_board_that_begins_anew_tells_nothing_again(stage: Boarded):
    await stage.look(backup_failure="no room")
    since, writes = stage.board.alerts[0].since, stage.writes()
    stage.again()
    assert stage.ids == [FAILED]
    await stage.look()
    assert stage.writes() == writes and stage.board.alerts[0].since == since
    await stage.look(backup_failure="")
    stage.again()
    await stage.look(backup_failure="no room")
    assert [one.fields["told"] for one in stage.log()] == ["true", "true", "false"]
    assert stage.log()[-1].fields["untold_why"] == "cooldown"


async def test_what_the_log_does_not_take_is_told_when_it_does(stage: Boarded, monkeypatch: pytest.MonkeyPatch):
    async def full(*_args: object, **_options: object) -> None:
        raise errors.Exhausted("the disk is full", reason="STORE_FULL")

    with monkeypatch.context() as patched:
        patched.setattr(stage.store, "write", full)
        await stage.look(backup_failure="no room")
        await stage.look(backup_failure="")
    assert stage.log() == []
    await stage.look()
    assert types(stage.log()) == ["alert.raised", "alert.cleared"]


async def test_what_waits_for_the_log_has_a_bound(stage: Boarded):
    stage.ctx.gate.damage = "broken"
    for turn in range(UNTOLD_MAX + 10):
        await stage.look(after_s=5_000.0, backup_failure="no room" if turn % 2 else "")
    assert len(stage.board._untold) == UNTOLD_MAX and stage.log() == []


async def test_another_problem_of_the_store_is_the_loops_to_report(stage: Boarded, monkeypatch: pytest.MonkeyPatch):
    async def broken(*_args: object, **_options: object) -> None:
        raise errors.Invalid.of("x", "no")

    monkeypatch.setattr(stage.store, "write", broken)
    with pytest.raises(errors.Invalid):
        await stage.look(backup_failure="no room")
    stage.ctx.gate.damage = "met by this very write"
    await stage.look()


# What people say


async def test_an_acknowledgement_is_kept_with_its_alert_and_ends_with_it(stage: Boarded):
    await stage.look(backup_failure="no room")
    shown = await stage.desk.ack(FAILED, "on it", actor=WHO)
    assert shown.alert.ack is not None and (shown.alert.ack.principal, shown.alert.ack.note) == (WHO, "on it")
    acked = stage.log()[-1]
    assert (acked.type, acked.actor, acked.fields["note"]) == ("alert.acked", WHO, "on it")
    stage.again()
    await stage.look()
    assert stage.board.alerts[0].is_acked
    await stage.look(backup_failure="")
    assert stage.log()[-1].fields["acked"] == "true"
    await stage.look(backup_failure="again", after_s=10_000.0)
    assert not stage.board.alerts[0].is_acked


async def test_what_is_not_raised_cannot_be_acknowledged(stage: Boarded):
    with pytest.raises(errors.NotFound) as caught:
        await stage.desk.ack(FAILED, "", actor=WHO)
    assert caught.value.reason == "ALERT_NOT_FOUND" and stage.writes() == 0


async def test_acknowledgements_of_what_has_ended_are_forgotten_with_the_next(stage: Boarded):
    await stage.look(backup_failure="no room", late_loops=("sweep",))
    await stage.desk.ack(FAILED, "", actor=WHO)
    await stage.look(backup_failure="")
    await stage.desk.ack("loops-late", "", actor=WHO)
    assert set(stage.board.said.acks) == {"loops-late"}


async def test_a_mute_keeps_people_from_being_told_until_its_time(stage: Boarded):
    made = await stage.desk.mute(f"alerts/{FAILED}", 100.0, "known", actor=WHO)
    assert (made.principal, made.expires_at - made.at) == (WHO, 100.0)
    await stage.look(backup_failure="no room")
    assert not stage.board.alerts[0].is_told
    assert stage.desk.alerts()[0].mute == made and stage.desk.mutes() == (made,)
    stage.again()
    await stage.look()
    assert not stage.board.alerts[0].is_told and stage.desk.mutes() == (made,)
    await stage.look(after_s=80.0)
    assert types(stage.log()) == ["alert.muted", "alert.raised", "alert.unmuted", "alert.told"]
    ended = stage.log()[2]
    assert (ended.actor, ended.fields) == ("hub", {"rule": FAILED, "ended": "expired"})
    assert stage.desk.mutes() == () and stage.board.said.mutes == ()


async def test_a_mute_of_a_rule_holds_for_all_its_alerts_and_can_be_ended(stage: Boarded):
    target = f"alertRules/{FAILED}"
    await stage.desk.mute(target, 100.0, "", actor=WHO)
    second = await stage.desk.mute(target, 500.0, "longer", actor=WHO)
    await stage.look(backup_failure="no room")
    assert stage.desk.mutes() == (second,) and stage.desk.alerts()[0].mute == second
    assert {one.rule.id for one in stage.desk.rules() if one.mute is not None} == {FAILED}
    assert await stage.desk.unmute(target, actor=WHO) == second
    assert stage.log(target)[-1].fields == {"rule": FAILED, "ended": "asked"}
    assert stage.board.alerts[0].is_told
    with pytest.raises(errors.NotFound) as caught:
        await stage.desk.unmute(target, actor=WHO)
    assert caught.value.reason == "MUTE_NOT_FOUND"


async def test_a_mute_names_a_rule_that_there_is_and_there_is_a_bound(stage: Boarded):
    for target in ("alerts/nonsense.anna", "alertRules/nonsense"):
        with pytest.raises(errors.NotFound):
            await stage.desk.mute(target, 10.0, "", actor=WHO)
    now = stage.clock.now()
    many = tuple(
        Mute(target=f"alerts/agent-offline.a{n}", principal="p", at=now, expires_at=now + 1e6) for n in range(MUTES_MAX)
    )
    await stage.do(lambda txn: txn.set_meta(alerting.MUTES_KEY, msgspec.msgpack.encode(many)))
    with pytest.raises(errors.Exhausted) as caught:
        await stage.desk.mute(f"alerts/{FAILED}", 10.0, "", actor=WHO)
    assert caught.value.reason == "MUTES_MAX"
    await stage.desk.mute(many[0].target, 10.0, "", actor=WHO)


# Rules


async def edit(stage: Boarded, rule: str, etag: str = "", **wanted: Any) -> Any:
    fields = {own: field for field, own in alert_rule.FIELDS.items()}
    return await stage.desk.update_rule(rule, wanted, [fields[own] for own in wanted], actor=WHO, etag=etag)


async def test_an_edited_rule_is_in_force_at_once_and_after_a_restart(stage: Boarded):
    await stage.look(used_bytes=50, size_max_bytes=100)
    assert stage.ids == []
    shown = await edit(stage, "store-full", threshold=0.4, severity=2)
    assert (shown.revision, shown.updated_at, shown.alert_count) == (1, stage.clock.now(), 1)
    assert stage.ids == ["store-full"] and types(stage.log("alerts/store-full")) == ["alert.raised"]
    (told,) = stage.log("alertRules/store-full")
    assert told.actor == WHO and told.fields == {
        "fields": "threshold,severity", "threshold": "0.4", "severity": "CRITICAL"
    }  # fmt: skip
    stage.again()
    await stage.look()
    assert stage.ids == ["store-full"] and stage.board.alerts[0].severity is Severity.CRITICAL
    assert next(one for one in stage.desk.rules() if one.rule.id == "store-full").alert_count == 1
    back = await stage.desk.reset_rule("store-full", actor=WHO, etag="1")
    assert (back.setting, back.revision, back.updated_at) == (back.rule.default, 2, None)
    assert stage.log("alertRules/store-full")[-1].fields == {"reset": "true"}
    assert stage.ids == []


async def test_an_event_of_a_rule_with_a_unit_says_what_was_measured(stage: Boarded):
    await stage.look(used_bytes=90, size_max_bytes=100)
    (raised,) = stage.log("alerts/store-full")
    assert {key: raised.fields[key] for key in ("value", "threshold", "unit")} == {
        "value": "0.9", "threshold": "0.8", "unit": "share"
    }  # fmt: skip


async def test_an_edit_with_an_old_etag_or_a_bad_value_changes_nothing(stage: Boarded):
    await edit(stage, "disk-low", hold_s=5.0)
    before = stage.writes()
    for etag in ("0", "7", "x"):
        with pytest.raises(errors.Conflict):
            await edit(stage, "disk-low", etag, hold_s=6.0)
        with pytest.raises(errors.Conflict):
            await stage.desk.reset_rule("disk-low", actor=WHO, etag=etag)
    with pytest.raises(errors.Invalid):
        await edit(stage, "disk-low", threshold=-1.0)
    with pytest.raises(errors.NotFound):
        await edit(stage, "nonsense", threshold=1.0)
    assert len(stage.log("alertRules/disk-low")) == 1 and stage.board.settings["disk-low"].hold_s == 5.0
    assert stage.writes() >= before
    await edit(stage, "disk-low", "1", enabled=False)


async def test_an_edit_whose_caller_has_gone_is_in_force_all_the_same(stage: Boarded):
    call = asyncio.create_task(edit(stage, "disk-low", hold_s=7.0))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await stage.do(lambda _txn: None)  # behind the edit, which runs
    await stage.look()
    assert stage.board.settings["disk-low"].hold_s == 7.0


async def test_a_reset_of_what_was_never_edited_is_nothing(stage: Boarded):
    shown = await stage.desk.reset_rule("disk-low", actor=WHO, etag="0")
    assert shown.revision == 0 and stage.log("alertRules/disk-low") == []


async def test_edits_that_come_at_once_are_all_kept(stage: Boarded):
    await asyncio.gather(*(edit(stage, rule.id, hold_s=7.0) for rule in alert_rule.CATALOGUE))
    assert {one.hold_s for one in stage.board.settings.values()} == {7.0}


# What is stored may be of another hub, or damaged


async def test_what_cannot_be_understood_or_is_of_no_rule_is_left_out(stage: Boarded):
    await edit(stage, "disk-low", hold_s=5.0)

    def spoil(txn: Txn) -> None:
        txn.set_meta(alerting.MUTES_KEY, b"\xc1")
        txn.set_meta(alerting.RULES_KEY, msgspec.msgpack.encode({"gone": {"revision": 3}, "disk-low": {"revision": 4}}))
        course = {"raised": [{"id": "gone", "rule": "gone"}, {"id": FAILED, "rule": FAILED}]}
        txn.set_meta(alerting.COURSE_KEY, msgspec.msgpack.encode(course))

    await stage.do(spoil)
    stage.again()
    assert stage.ids == [FAILED] and set(stage.board.said.edited) == {"disk-low"} and stage.board.said.mutes == ()
    await stage.look()
    assert stage.ids == []


async def test_a_store_that_cannot_be_read_leaves_the_rules_as_they_were_made(
    stage: Boarded, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_args: object) -> None:
        raise errors.DataLoss("it is damaged")

    await edit(stage, "store-full", threshold=0.4)
    monkeypatch.setattr(stage.store, "read", broken)
    stage.ctx.gate.damage = "it is damaged"
    stage.facts = stage.facts._replace(degraded="it is damaged", work=None)
    stage.again()
    await stage.look()
    assert stage.ids == ["store-degraded"] and stage.board.settings == alert_rule.settings({})


# When it looks again


async def test_it_looks_again_when_something_changes_by_time_alone(stage: Boarded):
    loop, wake = asyncio.get_running_loop(), stage.board.wake

    def in_s() -> float | None:
        return stage.board._timer.when() - loop.time() if stage.board._timer is not None else None

    await stage.look(backup_failure="no room")
    assert in_s() is None
    await stage.desk.mute(f"alerts/{FAILED}", 8.0, "", actor=WHO)
    wake.clear()
    await stage.look(after_s=1.0)
    first = in_s()
    assert first is not None and first <= 7.0
    stage.board.soon()
    sooner = in_s()
    assert sooner is not None and sooner <= SOON_S
    await asyncio.wait_for(wake.wait(), 10)
    await stage.look(after_s=LOOK_S)
    assert stage.desk.mutes() == ()


def test_every_target_of_a_mute_is_a_name_of_the_contract():
    assert (alert.COLLECTION, alert.RULES) == ("alerts", "alertRules")
