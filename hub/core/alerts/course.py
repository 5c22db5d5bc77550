"""The course of an alert, from what is measured to what people are told: pending, raised, told, cleared.

    nothing --holds--> pending --held for hold_s--> raised --gone--> cleared
                          |                           |
                       no more                        +-- told, once: unless muted, cooling down or acknowledged; later
                                                          when that is over; again when it becomes more urgent

What is measured swings, and people stop reading what cries often. Three things keep it quiet. A reading that is past
its threshold must stay so for the rule's hold time. One that has come back over the threshold, but not by far, neither
raises nor clears (`Reading.holds` is False): it keeps what is. And within the cooldown after people were told of an
alert, or after it ended, they are not told of it again, however often it is raised; the cooldown of an alert that
nobody was told of does not count, or one that swings faster than its cooldown would never be told.

Everything here is pure: a step takes the course so far and the readings of one look, and gives the course after it and
what there is to write down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from hub.core.alerts import alert
from hub.core.alerts import rule as alert_rule
from hub.core.alerts.alert import RAISED_MAX, Ack, Alert, Severity
from hub.core.alerts.rule import Setting

QUIET_MAX: Final = 1_000
"""Alerts whose cooldown is remembered: those of a fleet of a thousand agents."""

MUTED: Final = "muted"
COOLDOWN: Final = "cooldown"


class Reading(NamedTuple):
    """What one look found about one thing. A thing without a reading is well."""

    rule: str
    subject: str = ""
    holds: bool = True
    """It is past its threshold. False: not any more, or not known; one that is raised stays."""
    value: float = 0.0
    message: str = ""
    """Empty: nothing new is known of it, what is raised stays as it is."""
    advice: str = ""
    urgent: bool = False
    """It is critical, whatever its rule says."""

    @property
    def id(self) -> str:
        """The id of the alert that it may raise."""
        return alert.id_of(self.rule, self.subject)


class Found(NamedTuple):
    """What one look found."""

    readings: list[Reading]
    unknown: frozenset[str] = frozenset()
    """Rules of which nothing could be measured: their alerts stay as they are."""
    due_s: float | None = None
    """In how long something will be past its threshold by the passing of time alone; None: nothing will."""


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """When people were told of an alert last, or when it ended after that, and how urgent it was."""

    at: float
    severity: Severity


class Course(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where all alerts are. What is pending is not stored: after a restart it must hold again for its time."""

    raised: tuple[Alert, ...] = ()
    """The most urgent first."""
    quiet: dict[str, Quiet] = {}
    pending: dict[str, float] = {}
    """Since when it holds, by the id of the alert that will be raised."""


class News(NamedTuple):
    """Something to write down."""

    type: str
    """Of the event: alert.raised, alert.told or alert.cleared."""
    alert: Alert
    untold_why: str = ""
    """Why people are not told of one that is raised: MUTED or COOLDOWN."""


class Given(NamedTuple):
    """What people have said, for one step."""

    settings: Mapping[str, Setting]
    acks: Mapping[str, Ack]
    """By the id of the alert."""
    muted: Collection[str]
    """Targets of the mutes in force."""


def step(before: Course, found: Found, given: Given, now: float) -> tuple[Course, list[News]]:
    """One look: the course after it, and what there is to write down, in order."""
    raised = {one.id: one for one in before.raised}
    after: dict[str, Alert] = {}
    pending: dict[str, float] = {}
    quiet, news = _still_cooling(before.quiet, given.settings, now), list[News]()
    for reading in found.readings:
        setting = given.settings[reading.rule]
        if not setting.enabled:
            continue
        known = raised.get(reading.id)
        if known is None:
            if not reading.holds:
                continue
            begun = min(before.pending.get(reading.id, now), now)  # the clock may have been set back
            if now - begun < setting.hold_s or len(after) >= RAISED_MAX:
                pending[reading.id] = begun
                continue
            known = Alert(id=reading.id, rule=reading.rule, subject=reading.subject, since=begun)
            one, why = _tell(_updated(known, reading, setting, given), quiet, given, now)
            news.append(News("alert.raised", one, why))
        else:
            one = _told_now(_updated(known, reading, setting, given), quiet, given, now, news)
        after[one.id] = one
    for one in before.raised:
        if one.id in after:
            continue
        setting = given.settings[one.rule]
        if one.rule in found.unknown and setting.enabled:
            kept = msgspec.structs.replace(one, ack=given.acks.get(one.id), threshold=setting.threshold)
            after[one.id] = _told_now(kept, quiet, given, now, news)
        else:
            news.append(News("alert.cleared", one))
            if one.is_told:
                quiet[one.id] = Quiet(at=now, severity=Severity(one.told))
    return Course(raised=ordered(after.values()), quiet=_bounded(quiet), pending=pending), news


def join(course: Course, acks: Mapping[str, Ack]) -> Course:
    """The same course, with what people have said about each alert by now."""
    raised = tuple(msgspec.structs.replace(one, ack=_ack(one, acks)) for one in course.raised)
    return msgspec.structs.replace(course, raised=raised)


def next_look(course: Course, found: Found, settings: Mapping[str, Setting], now: float) -> float | None:
    """In how many seconds something changes by the passing of time alone: what is pending, what will be past its
    threshold, what has cooled down. None: nothing does.
    """
    due = [begun + settings[alert.rule_of(id)].hold_s - now for id, begun in course.pending.items()]
    if found.due_s is not None:
        due.append(found.due_s)
    for one in course.raised:
        quiet = course.quiet.get(one.id)
        if not one.is_told and quiet is not None:
            due.append(quiet.at + settings[one.rule].cooldown_s - now)
    return min((max(0.0, one) for one in due), default=None)


def ordered(alerts: Iterable[Alert]) -> tuple[Alert, ...]:
    """The most urgent first, then by id."""
    return tuple(sorted(alerts, key=lambda one: (-one.severity, one.id)))


def _updated(one: Alert, reading: Reading, setting: Setting, given: Given) -> Alert:
    """The alert as this look finds it."""
    if not reading.message:
        return msgspec.structs.replace(one, ack=_ack(one, given.acks), threshold=setting.threshold)
    after = msgspec.structs.replace(
        one,
        severity=max(setting.severity, Severity.CRITICAL) if reading.urgent else setting.severity,
        message=reading.message,
        advice=reading.advice,
        unit=alert_rule.BY_ID[reading.rule].unit,
        value=reading.value,
        threshold=setting.threshold,
    )
    return msgspec.structs.replace(after, ack=_ack(after, given.acks))


def _ack(one: Alert, acks: Mapping[str, Ack]) -> Ack | None:
    """The acknowledgement that holds for it: of this very alert, and not less urgent than it is now."""
    with_it = msgspec.structs.replace(one, ack=acks.get(one.id))
    return with_it.ack if with_it.is_acked else None


def _told_now(one: Alert, quiet: dict[str, Quiet], given: Given, now: float, news: list[News]) -> Alert:
    """Tell of one that was raised before, when there is something to tell and nothing against it."""
    if one.severity <= one.told or one.is_acked:
        return one
    after, why = _tell(one, quiet, given, now)
    if not why:
        news.append(News("alert.told", after))
    return after


def _tell(one: Alert, quiet: dict[str, Quiet], given: Given, now: float) -> tuple[Alert, str]:
    """The alert, told if nothing is against it; and what is."""
    if alert.is_muted(one.id, given.muted):
        return one, MUTED
    if _cools(quiet.get(one.id), given.settings[one.rule], now, one.severity):
        return one, COOLDOWN
    quiet[one.id] = Quiet(at=now, severity=one.severity)
    return msgspec.structs.replace(one, told=int(one.severity)), ""


def _cools(quiet: Quiet | None, setting: Setting, now: float, severity: Severity) -> bool:
    return quiet is not None and severity <= quiet.severity and 0 <= now - quiet.at < setting.cooldown_s


def _still_cooling(quiet: Mapping[str, Quiet], settings: Mapping[str, Setting], now: float) -> dict[str, Quiet]:
    """Without those whose cooldown has passed, and those of a rule that there is no more."""
    found = {}
    for id, one in quiet.items():
        setting = settings.get(alert.rule_of(id))
        if setting is not None and _cools(one, setting, now, Severity.WARNING):
            found[id] = one
    return found


def _bounded(quiet: dict[str, Quiet]) -> dict[str, Quiet]:
    if len(quiet) <= QUIET_MAX:
        return quiet
    newest = sorted(quiet.items(), key=lambda item: item[1].at)[-QUIET_MAX:]
    return dict(newest)
