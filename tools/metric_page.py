"""Writes docs/metrics.md from the catalogue of metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kit import metrics
from kit.metrics import Kind, Metric

_HEAD: Final = """# Metrics

The hub and each sidecar tell these numbers, to Prometheus or to an OpenTelemetry collector; how, and what it costs, is
in [telemetry.md](telemetry.md).

All counters and histograms begin at 0 with the process; no attribute is ever an id, so the number of series is fixed.
A value that is not in the list of its attribute is counted as `unknown`.
"""

_GROUPS: Final = (
    ("The queue", "agentcom.tasks", "agentcom.queue", "agentcom.task."),
    ("Attempts", "agentcom.attempt", "agentcom.report", "agentcom.holding", "agentcom.check"),
    ("Changes and goals", "agentcom.change", "agentcom.goal"),
    ("Agents", "agentcom.agent", "agentcom.slots", "agentcom.session", "agentcom.heartbeat"),
    ("The hub", "agentcom.hub", "agentcom.loop", "agentcom.dispatch"),
    ("The store", "agentcom.store", "agentcom.disk", "agentcom.backup"),
    ("Alerts, notices and callers", "agentcom.alert", "agentcom.notice", "agentcom.request", "agentcom.caller"),
    ("A sidecar", "agentcom.sidecar"),
    ("Telemetry itself", "agentcom.telemetry"),
)  # fmt: skip


def page(note: str) -> str:
    """The whole page."""
    left = list(metrics.CATALOGUE)
    parts = [note, _HEAD]
    for title, *heads in _GROUPS:
        found = [one for one in left if one.name.startswith(tuple(heads))]
        left = [one for one in left if one not in found]
        parts += [
            f"## {title}\n",
            "| metric | for Prometheus | node | kind | unit | by | meaning |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        parts += [_row(one) for one in found]
        parts.append("")
    assert not left, f"no group has {[one.name for one in left]}"
    return "\n".join([*parts, *_values(), "", *_bounds(), ""])


def _row(metric: Metric) -> str:
    suffix = "_total" if metric.kind is Kind.COUNTER else ""
    by = ", ".join(f"`{attribute.name}`" for attribute in metric.attributes)
    unit = metric.unit.strip("{}")
    name = f"`{metric.name}` | `{metric.prometheus}{suffix}`"
    return f"| {name} | {metric.node} | {metric.kind.value} | {unit} | {by} | {metric.meaning} |"


def _values() -> Iterator[str]:
    yield "## Attributes\n"
    yield "| metric | attribute | values |"
    yield "| --- | --- | --- |"
    for metric in metrics.CATALOGUE:
        for attribute in metric.attributes:
            yield f"| `{metric.name}` | `{attribute.name}` | {', '.join(attribute.values)} |"


def _bounds() -> Iterator[str]:
    yield "## Buckets\n"
    yield "| histogram | unit | upper bounds |"
    yield "| --- | --- | --- |"
    for metric in metrics.CATALOGUE:
        if metric.bounds:
            bounds = ", ".join(f"{bound:g}" for bound in metric.bounds)
            yield f"| `{metric.name}` | {metric.unit.strip('{}')} | {bounds} |"
