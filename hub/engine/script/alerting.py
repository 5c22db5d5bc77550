"""What people say about alerts, inside transactions: rules edited, alerts acknowledged and muted; and the course of the
alerts, as the board writes it down.

All of it is a few small facts of the store's own (`Txn.meta`): one for the rules, one for the mutes, one for the
acknowledgements, one for the course. Each has a bound, each is read and written whole, and none is looked up by
anything but its name. The first three are changed by the verbs here only, the last by the board only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from hub.core.alerts import alert
from hub.core.alerts import rule as alert_rule
from hub.core.alerts.alert import MUTES_MAX, Ack, Alert, Mute
from hub.core.alerts.course import Course, News
from hub.core.alerts.rule import Edited, Setting
from hub.store.base import Reader, Txn
from kit import errors, ids, logs

log = logs.get(__name__)

RULES_KEY: Final = "alerts.rules"
MUTES_KEY: Final = "alerts.mutes"
ACKS_KEY: Final = "alerts.acks"
COURSE_KEY: Final = "alerts.course"

T = TypeVar("T")


class Said(NamedTuple):
    """What people have said."""

    edited: Mapping[str, Edited] = MappingProxyType({})
    """Rules that were edited, by id."""
    mutes: tuple[Mute, ...] = ()
    """In the order of their ends."""
    acks: Mapping[str, Ack] = MappingProxyType({})
    """By the id of the alert."""


def said(reader: Reader) -> Said:
    """As it is stored."""
    known = _known(_read(reader, RULES_KEY, dict[str, Edited], {}))
    mutes = _read(reader, MUTES_KEY, tuple[Mute, ...], ())
    return Said(known, mutes, _read(reader, ACKS_KEY, dict[str, Ack], {}))


def course(reader: Reader) -> Course:
    """The alerts as the board left them; without those of rules that this hub does not know."""
    found = _read(reader, COURSE_KEY, Course, Course())
    raised = tuple(one for one in found.raised if one.rule in alert_rule.BY_ID)
    return msgspec.structs.replace(found, raised=raised)


def edit(
    txn: Txn, rule_id: str, wanted: Mapping[str, Any], mask: Iterable[str], now: float, *, actor: str, etag: str = ""
) -> Edited:
    """Set the fields of the mask; `wanted` has them by the names of the setting."""
    rule = alert_rule.found(rule_id)
    edited = said(txn).edited
    before = _unchanged(rule, edited, etag)
    fields = alert_rule.masked(rule, mask)
    setting = alert_rule.edit(rule, alert_rule.in_force(rule, before), wanted, fields)
    told = {field: _text(getattr(setting, alert_rule.FIELDS[field])) for field in fields}
    return _put_rule(txn, rule, edited, setting, now, actor, {"fields": ",".join(fields), **told})


def reset(txn: Txn, rule_id: str, now: float, *, actor: str, etag: str = "") -> Edited | None:
    """Give a rule its defaults back. Nothing happens to one that was never edited."""
    rule = alert_rule.found(rule_id)
    edited = said(txn).edited
    before = _unchanged(rule, edited, etag)
    if before is None or before.setting is None:
        return before
    return _put_rule(txn, rule, edited, None, now, actor, {"reset": "true"})


def ack(txn: Txn, one: Alert, note: str, now: float, *, actor: str, raised: frozenset[str]) -> Ack:
    """A person looks after an alert. Of those not raised any more nothing is kept."""
    acks = {id: known for id, known in said(txn).acks.items() if id in raised}
    acks[one.id] = made = Ack(since=one.since, severity=one.severity, principal=actor, at=now, note=note)
    _write(txn, ACKS_KEY, acks)
    fields = {"rule": one.rule, "severity": one.severity.name, "message": one.message}
    fields |= _said_so(about=one.subject, note=note)
    txn.append(now, "alert.acked", ids.name(alert.COLLECTION, one.id), actor=actor, **fields)
    return made


def mute(txn: Txn, target: str, duration_s: float, reason: str, now: float, *, actor: str) -> Mute:
    """Tell nobody of an alert, or of a rule, for a time; a mute of the same is replaced.

    Raises NotFound for a rule that there is not, Exhausted beyond the bound.
    """
    rule = alert_rule.found(alert.rule_of(target.partition("/")[2]))
    kept = [one for one in alert.part(said(txn).mutes, now).in_force if one.target != target]
    if len(kept) >= MUTES_MAX:
        raise errors.Exhausted(
            f"there are {MUTES_MAX} mutes already: end one, or disable a rule",
            reason="MUTES_MAX",
            metadata={"limit": MUTES_MAX},
        )
    made = Mute(target=target, principal=actor, at=now, expires_at=now + duration_s, reason=reason)
    _write(txn, MUTES_KEY, alert.part([*kept, made], now).in_force)
    until = f"{made.expires_at:.3f}"
    txn.append(now, "alert.muted", target, actor=actor, rule=rule.id, until=until, **_said_so(reason=reason))
    return made


def unmute(txn: Txn, target: str, now: float, *, actor: str) -> Mute:
    """End a mute before its time. Raises NotFound."""
    in_force = alert.part(said(txn).mutes, now).in_force
    found = next((one for one in in_force if one.target == target), None)
    if found is None:
        raise errors.NotFound(f"{target} is not muted", reason="MUTE_NOT_FOUND", metadata={"name": target})
    _write(txn, MUTES_KEY, tuple(one for one in in_force if one is not found))
    _unmuted(txn, found, now, "asked", actor)
    return found


def expire(txn: Txn, now: float) -> None:
    """Forget the mutes that have ended by their time."""
    in_force, over = alert.part(said(txn).mutes, now)
    if not over:
        return
    _write(txn, MUTES_KEY, in_force)
    for one in over:
        _unmuted(txn, one, now, "expired", "hub")


def put_course(txn: Txn, after: Course) -> None:
    """Write down where the alerts are. What people said is not a part of it, nor what is pending."""
    raised = tuple(msgspec.structs.replace(one, ack=None) for one in after.raised)
    _write(txn, COURSE_KEY, msgspec.structs.replace(after, raised=raised, pending={}))


def tell(txn: Txn, at: float, news: News) -> None:
    """Append the event of something that happened to an alert."""
    one = news.alert
    fields = {"rule": one.rule, "severity": one.severity.name, "message": one.message, "told": _text(one.is_told)}
    fields |= _said_so(about=one.subject, untold_why=news.untold_why)
    if one.unit:
        fields |= {"value": _text(one.value), "threshold": _text(one.threshold), "unit": one.unit}
    if news.type == "alert.cleared":
        fields["acked"] = _text(one.is_acked)
    else:
        fields["advice"] = one.advice
    txn.append(at, news.type, ids.name(alert.COLLECTION, one.id), **fields)


def _put_rule(
    txn: Txn,
    rule: alert_rule.Rule,
    edited: Mapping[str, Edited],
    setting: Setting | None,
    now: float,
    actor: str,
    fields: Mapping[str, str],
) -> Edited:
    after = alert_rule.revised(rule, edited.get(rule.id), setting, now)
    _write(txn, RULES_KEY, {**edited, rule.id: after})
    txn.append(now, "alert_rule.updated", rule.name, actor=actor, **fields)
    return after


def _unchanged(rule: alert_rule.Rule, edited: Mapping[str, Edited], etag: str) -> Edited | None:
    """The rule's record; None: it was never edited. Raises Conflict when the etag is another one."""
    before = edited.get(rule.id)
    revision = alert_rule.revision(before)
    if etag and etag != str(revision):
        raise errors.Conflict(
            f"{rule.name} has changed: its etag is {revision}, not {etag}",
            reason="ETAG_MISMATCH",
            metadata={"name": rule.name, "etag": revision},
        )
    return before


def _unmuted(txn: Txn, one: Mute, now: float, ended: str, actor: str) -> None:
    rule = alert.rule_of(one.target.partition("/")[2])
    txn.append(now, "alert.unmuted", one.target, actor=actor, rule=rule, ended=ended)


def _known(edited: dict[str, Edited]) -> dict[str, Edited]:
    return {id: one for id, one in edited.items() if id in alert_rule.BY_ID}


def _said_so(**fields: str) -> dict[str, str]:
    """Those that say something."""
    return {name: text for name, text in fields.items() if text}


def _text(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case alert.Severity():
            return value.name
        case _:
            return f"{value:.12g}"


def _write(txn: Txn, key: str, value: object) -> None:
    txn.set_meta(key, msgspec.msgpack.encode(value))


def _read(reader: Reader, key: str, kind: type[T], none: T) -> T:
    """A fact of the store; `none` when there is none, or when this hub does not understand the one that wrote it."""
    raw = reader.meta(key)
    if raw is None:
        return none
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except (msgspec.MsgspecError, ValueError) as cause:
        log.warning("alerts.unreadable", key=key, problem=str(cause))
        return none
