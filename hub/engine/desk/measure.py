"""What the metrics tell of the hub as it is now, read from what is there anyway when somebody asks."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from hub.core.alerts.alert import Severity
from hub.engine.alerts.board import Board
from hub.engine.desk.hubstate import State
from hub.engine.desk.stats import Stats
from hub.engine.live.context import Context
from hub.engine.live.sessions import Sessions
from kit import metrics
from kit.tally import Key
from kit.telemetry import Numbers as Numbers

_ALONE: Final[Key] = ()
"""The one series of a metric without attributes."""


class Seen(NamedTuple):
    """What is looked at."""

    ctx: Context
    stats: Stats
    sessions: Sessions
    board: Board
    state: State
    started_at: float
    loop_failures: int


def measure(seen: Seen) -> Numbers:
    """The gauges, and the counts that other parts keep."""
    made: Numbers = {}
    for part in (_queue(seen), _agents(seen), _store(seen), _hub(seen)):
        made |= part
    return made


def _queue(seen: Seen) -> Numbers:
    stats = seen.stats
    tasks = dict.fromkeys(metrics.TASKS.series, 0.0)
    tasks |= {(state.name.lower(), lane.name.lower()): float(count) for (state, lane), count in stats.tasks.items()}
    return {metrics.TASKS: tasks, metrics.OLDEST_AGE: {_ALONE: stats.oldest_queued_s or 0.0}}


def _agents(seen: Seen) -> Numbers:
    stats, now = seen.stats, seen.ctx.clock.monotonic()
    agents = dict.fromkeys(metrics.AGENTS.series, 0.0)
    agents |= {(state.name.lower(),): float(count) for state, count in stats.agents.items()}
    silent_s = [now - session.heard_at for session in seen.sessions if session.stream is not None]
    return {
        metrics.AGENTS: agents,
        metrics.SLOTS: {_ALONE: stats.slots},
        metrics.SLOTS_USED: {_ALONE: stats.slots_used},
        metrics.UTILISATION: {_ALONE: stats.slots_used / stats.slots if stats.slots else 0.0},
        metrics.SESSIONS: {_ALONE: seen.sessions.live_count},
        metrics.HEARTBEAT_AGE: {_ALONE: max(silent_s, default=0.0)},
        metrics.ADOPTED: {_ALONE: stats.adopted},
        metrics.LOST: {_ALONE: seen.ctx.figures.lost},
    }


def _store(seen: Seen) -> Numbers:
    facts, watched = seen.ctx.store.facts(), seen.board.facts
    made: Numbers = {
        metrics.COMMITS: {_ALONE: facts.commits},
        metrics.WRITES: {_ALONE: facts.writes},
        metrics.STORE_USED: {_ALONE: facts.used_bytes},
        metrics.STORE_LIMIT: {_ALONE: facts.size_max_bytes},
    }
    if watched is not None and watched.durable:
        made[metrics.DISK_FREE] = {_ALONE: watched.disk_free_bytes}
    if watched is not None and watched.backup_newest_at is not None:
        made[metrics.BACKUP_AGE] = {_ALONE: max(0.0, seen.ctx.clock.now() - watched.backup_newest_at)}
    return made


def _hub(seen: Seen) -> Numbers:
    alerts = Counter(alert.severity for alert in seen.board.alerts)
    by_rule = Counter(alert.rule for alert in seen.board.alerts)
    return {
        metrics.ALERTS: {(severity.name.lower(),): alerts[severity] for severity in Severity},
        metrics.ALERTS_BY_RULE: {key: by_rule[key[0]] for key in metrics.ALERTS_BY_RULE.series},
        metrics.INVALID: {_ALONE: seen.stats.refused_requests},
        metrics.THROTTLED: {_ALONE: seen.stats.throttled},
        metrics.LOOP_FAILURES: {_ALONE: seen.loop_failures},
        metrics.HUB_STATE_NOW: {(one.name.lower(),): float(one is seen.state) for one in State},
        metrics.STARTED: {_ALONE: seen.started_at},
    }
