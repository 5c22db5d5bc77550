"""What alerts are derived from, and what each rule reads in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from hub.core.alerts.course import Found, Reading
from hub.core.alerts.rule import Setting

T = TypeVar("T")

KEPT_SHARE: Final = 0.8
"""What was raised ends only when it has come back this far from its threshold: what swings around it is raised once."""

LOOP_GRACE_S: Final = 120.0
"""A loop that has not succeeded for its period and this long is late: four sweeps, or a few restarts with backoff."""

ATTEMPTS_MIN: Final = 10
"""Ended attempts below which a rate says nothing: one failure of two is no rate."""

NAMED_MAX: Final = 5
"""Names in a sentence; of the others it says how many."""

SUBJECTS_MAX: Final = 20
"""Agents, or repos, with an alert of their own; the others share one. A person reads no more than that."""

PAUSED: Final = "the hub is paused: `agentcom hub resume` lets it assign again"
"""What to do about a queue that nobody is to work off: a pause that was forgotten looks like a hub that is stuck."""

WORK_RULES: Final = frozenset(
    {
        "queue-growing", "oldest-task", "stuck-tasks", "failure-rate", "no-agents", "agent-offline", "agent-isolated",
        "agent-refused", "main-red",
    }
)  # fmt: skip
"""Rules about work and agents; of a store that cannot be read they know nothing."""


class Offline(NamedTuple):
    """An agent that was online once, is not, and is not drained."""

    agent: str
    since: float
    how: str = ""
    """How its last session ended, as the event log has it; empty: not known."""
    at_least: bool = False
    """It is offline since before the hub started, which cannot know for how long."""


class Red(NamedTuple):
    """A repo whose default branch fails its checks."""

    repo: str
    why: str
    """A sentence; empty: it was found before the hub started, and the alert says why."""


class Work(NamedTuple):
    """How the work goes and who does it."""

    paused: bool = False
    """A person has paused the hub: nothing is assigned until it is resumed."""
    queued: int = 0
    growth: tuple[int, int] | None = (0, 0)
    """By how much the queue is longer than a window ago: in all, and if it grew in each third of it (0 if not). None:
    it was not watched for so long.
    """
    oldest_s: float | None = None
    """How long the oldest queued task has waited; None: none waits."""
    stuck: Sequence[str] = ()
    """Ids of tasks whose attempt shows no progress, or was taken back for that a short while ago."""
    ended: int = 0
    failed: int = 0
    """Of the attempts that ended within the window."""
    window_full: bool = True
    """The hub was there for the whole window."""
    agents: int = 0
    """That were online at any time and are not drained, or are online now."""
    online: int = 0
    offline: Sequence[Offline] = ()
    isolated: Sequence[str] = ()
    """Agents that failed too often in a row and get no work for a while."""
    red: Sequence[Red] = ()
    refused: Sequence[tuple[str, str]] = ()
    """Agents whose sidecar is of a version too far from the hub's, each with the sentence that it was told."""


class Facts(NamedTuple):
    """What alerts are derived from."""

    now: float
    degraded: str = ""
    """What is wrong with the store; empty: nothing."""
    remedy: str = ""
    """How the newest good backup is restored; only read when the store is degraded."""
    durable: bool = True
    """The store is on a disk."""
    used_bytes: int = 0
    size_max_bytes: int = 0
    disk_free_bytes: int = 0
    disk_reserve_bytes: int = 0
    """0: the disk is not known."""
    backup_every_s: float = 0.0
    """The interval of the schedule; 0: there is none."""
    backup_failure: str = ""
    """What the last try to make one failed of; empty: it did not."""
    backup_newest_at: float | None = None
    """When the newest good one was made; None: there is none."""
    started_at: float = 0.0
    late_loops: tuple[str, ...] = ()
    work: Work | None = None
    """None: it cannot be read."""


def look(facts: Facts, settings: Mapping[str, Setting]) -> Found:
    """What each rule reads in the facts, with these thresholds."""
    readings = [*_store(facts, settings), *_disk(facts, settings), *_backups(facts, settings), *_loops(facts)]
    if facts.work is None:
        return Found(readings, WORK_RULES)
    unknown = set()
    if facts.work.growth is None:
        unknown.add("queue-growing")
    if facts.work.ended < ATTEMPTS_MIN and (facts.work.ended or not facts.work.window_full):
        unknown.add("failure-rate")
    readings += [*_queue(facts.work, settings), *_attempts(facts.work, settings)]
    late, due_s = _offline(facts, facts.work, settings)
    readings += [*_agents(facts.work), *late, *_red(facts.work)]
    return Found(readings, frozenset(unknown), due_s)


def _store(facts: Facts, settings: Mapping[str, Setting]) -> Iterable[Reading]:
    if facts.degraded:
        message = f"the store is open for reading only: {facts.degraded}"
        return [Reading("store-degraded", message=message, advice=facts.remedy)]
    if not facts.size_max_bytes:
        return []
    share = facts.used_bytes / facts.size_max_bytes
    message = f"the store is {share:.0%} full of its limit"
    advice = "raise store.map_max_bytes, or keep finished work for a shorter time"
    return _above("store-full", share, settings, message, advice)


def _disk(facts: Facts, settings: Mapping[str, Setting]) -> Iterable[Reading]:
    if not facts.durable or not facts.disk_reserve_bytes:
        return []
    free, reserve, limit = facts.disk_free_bytes, facts.disk_reserve_bytes, settings["disk-low"].threshold
    if free >= limit / KEPT_SHARE:
        return []
    message = f"{free >> 20} MiB are free on the disk of the store; new work is refused below {reserve >> 20} MiB"
    advice = "make room on the disk, or move backups to another one"
    return [Reading("disk-low", "", free < limit, free, message, advice, urgent=free < reserve)]


def _backups(facts: Facts, settings: Mapping[str, Setting]) -> Iterable[Reading]:
    if not facts.durable:
        return
    if facts.backup_failure:
        message = f"the last backup failed: {facts.backup_failure}"
        yield Reading("backup-failed", message=message, advice="mend the cause, then run `agentcom hub backup`")
    if facts.backup_every_s:
        since = facts.started_at if facts.backup_newest_at is None else facts.backup_newest_at
        age_s = max(0.0, facts.now - since)
        none = facts.backup_newest_at is None
        state = "there is no good backup" if none else f"the newest good backup is {age_s:.0f} s old"
        message = f"{state}; one is due every {facts.backup_every_s:g} s"
        intervals = age_s / facts.backup_every_s
        yield from _above("backup-old", intervals, settings, message, "run `agentcom hub backup`")


def _loops(facts: Facts) -> Iterable[Reading]:
    if facts.late_loops:
        message = f"not succeeded for too long: {', '.join(facts.late_loops)}"
        advice = "look for loop.failed in the hub's log; restart the hub when it says nothing"
        yield Reading("loops-late", message=message, advice=advice)


def _queue(work: Work, settings: Mapping[str, Setting]) -> Iterable[Reading]:
    if work.growth is not None:
        in_all, steady = work.growth
        limit = settings["queue-growing"].threshold
        if in_all >= KEPT_SHARE * limit:
            message = f"{work.queued} tasks wait for an agent, {in_all} more than 15 minutes ago"
            advice = "add agents or slots, or see with `agentcom task explain` why none takes them"
            yield Reading("queue-growing", "", steady >= limit, in_all, message, PAUSED if work.paused else advice)
    if work.oldest_s is not None:
        message = f"the oldest queued task has waited for {_span(work.oldest_s)}"
        advice = "`agentcom task list --state queued`, then `agentcom task explain` the oldest: it says what is missing"
        yield from _above("oldest-task", work.oldest_s, settings, message, PAUSED if work.paused else advice)


def _attempts(work: Work, settings: Mapping[str, Setting]) -> Iterable[Reading]:
    if work.stuck:
        message = f"{_count(len(work.stuck), 'attempt')} without progress: {_names('tasks', work.stuck)}"
        advice = "read its log with `agentcom task log`; cancel it, or look after its agent"
        yield from _above("stuck-tasks", len(work.stuck), settings, message, advice)
    if work.ended >= ATTEMPTS_MIN:
        rate = work.failed / work.ended
        message = f"{work.failed} of the {work.ended} attempts of the last 30 minutes failed ({rate:.0%})"
        advice = "`agentcom hub history --type task.failed` shows by what; one agent or one repo is often behind all"
        yield from _above("failure-rate", rate, settings, message, advice)


def _agents(work: Work) -> Iterable[Reading]:
    if work.agents and not work.online:
        waits = f" while {_count(work.queued, 'task')} wait{'s' if work.queued == 1 else ''}" if work.queued else ""
        message = f"no agent is online, of {work.agents}{waits}"
        advice = "start a sidecar: nothing is done until one is back"
        yield Reading("no-agents", "", True, 0.0, message, advice, urgent=work.queued > 0)
    advice = "see what it failed of with `agentcom agent show`; `agentcom agent resume` gives it work at once"

    def read(agent: str) -> Reading:
        message = f"agents/{agent} failed too often in a row and gets no work for a while"
        return Reading("agent-isolated", f"agents/{agent}", message=message, advice=advice)

    def rest(others: Sequence[str]) -> Reading:
        message = f"{_count(len(others), 'more agent')} failed too often in a row: {_names('agents', others)}"
        return Reading("agent-isolated", message=message, advice=advice)

    yield from _bounded(sorted(work.isolated), read, rest)
    yield from _refused(work)


def _refused(work: Work) -> Iterable[Reading]:
    advice = "upgrade one of the two: docs/upgrade.md says in which order; the sidecar comes back by itself"

    def read(one: tuple[str, str]) -> Reading:
        return Reading("agent-refused", f"agents/{one[0]}", message=f"agents/{one[0]}: {one[1]}", advice=advice)

    def rest(others: Sequence[tuple[str, str]]) -> Reading:
        names = _names("agents", [agent for agent, _ in others])
        message = f"{_count(len(others), 'more sidecar')} of a version too far from the hub's: {names}"
        return Reading("agent-refused", message=message, advice=advice)

    yield from _bounded(sorted(work.refused), read, rest)


def _offline(facts: Facts, work: Work, settings: Mapping[str, Setting]) -> tuple[list[Reading], float | None]:
    """Those offline for longest first: who has an alert of its own keeps it. And when the next one will be late."""
    limit = settings["agent-offline"].threshold
    advice = "look at its machine and at its sidecar's log; `agentcom agent drain` says that it is to be away"
    absent = sorted(work.offline, key=lambda one: (one.since, one.agent))
    late = [one for one in absent if facts.now - one.since >= limit]
    waiting = absent[len(late) :]

    def read(one: Offline) -> Reading:
        age_s = facts.now - one.since
        how = " on purpose" if one.how == "goodbye" else ""
        message = f"agents/{one.agent} went offline{how} {_span(age_s)} ago"
        return Reading("agent-offline", f"agents/{one.agent}", True, age_s, message, advice)

    def rest(others: Sequence[Offline]) -> Reading:
        message = f"{_count(len(others), 'more agent')} offline: {_names('agents', [one.agent for one in others])}"
        return Reading("agent-offline", "", True, facts.now - others[0].since, message, advice)

    # What was raised before the hub started stays, although it counts from its start.
    kept = [Reading("agent-offline", f"agents/{one.agent}", False) for one in waiting if one.at_least]
    due_s = min((limit - (facts.now - one.since) for one in waiting), default=None)
    return [*_bounded(late, read, rest), *kept], due_s


def _red(work: Work) -> Iterable[Reading]:
    advice = "mend the default branch: a change that merges, or an update of the repo's checks, ends this alert"

    def read(one: Red) -> Reading:
        return Reading("main-red", f"repos/{one.repo}", bool(one.why), 0.0, one.why, advice if one.why else "")

    def rest(others: Sequence[Red]) -> Reading:
        names = _names("repos", [one.repo for one in others])
        message = f"the default branch of {_count(len(others), 'more repo')} fails its checks: {names}"
        return Reading("main-red", message=message, advice=advice)

    yield from _bounded(sorted(work.red, key=lambda one: one.repo), read, rest)


def _above(rule: str, value: float, settings: Mapping[str, Setting], message: str, advice: str) -> Iterable[Reading]:
    """The reading of a rule that is raised at or above its threshold; none when it is far enough below."""
    limit = settings[rule].threshold
    if value >= KEPT_SHARE * limit:
        yield Reading(rule, "", value >= limit, value, message, advice)


def _bounded(
    ones: Sequence[T], read: Callable[[T], Reading], rest: Callable[[Sequence[T]], Reading]
) -> Iterable[Reading]:
    """A reading for each, and one for all that are beyond the bound."""
    yield from (read(one) for one in ones[:SUBJECTS_MAX])
    if len(ones) > SUBJECTS_MAX:
        yield rest(ones[SUBJECTS_MAX:])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _names(collection: str, ids: Sequence[str]) -> str:
    named = ", ".join(f"{collection}/{id}" for id in ids[:NAMED_MAX])
    return f"{named} and {len(ids) - NAMED_MAX} more" if len(ids) > NAMED_MAX else named


def _span(seconds: float) -> str:
    minutes = int(seconds) // 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
