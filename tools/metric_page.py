"""Writes docs/metrics.md from the catalogue of metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kit import metrics
from kit.metrics import Kind, Metric

_HEAD: Final = """# Metrics

The hub tells these numbers in two ways, both off unless set (section `[telemetry]` of
[configuration.md](configuration.md)):

- **Prometheus** scrapes a page: `prometheus_listen = "127.0.0.1:9464"`, then `GET /metrics`. It asks for no token and
  holds no id and no text of anybody; a page beyond the loopback must be asked for with `prometheus_public = true`.
- **OpenTelemetry**: `otlp_endpoint = "http://127.0.0.1:4317"` pushes the same numbers every `otlp_every_s` seconds, by
  gRPC or HTTP (`otlp_protocol`). Headers, such as a key of the collector, come from `OTEL_EXPORTER_OTLP_HEADERS`.

Both need the extra: `pip install 'agentcom[telemetry]'`. `deploy/prometheus/` has a scrape configuration and alert
rules, `deploy/collector/` a configuration of a collector.

With `otlp_traces = true` spans go to the collector, too: one for a goal, its tasks and their attempts, each when it has
ended, all in one trace; an attempt after the first is linked to the one before it. The ids of trace and span follow
from the ids of the goal, the task and the attempt, so they are the same after a restart, and a sidecar is told the span
of its attempt with the assignment (`traceparent`). At most 4,096 ended spans wait for the push, then the oldest go.

What it costs: a few additions for each event (some 3 µs a task), and nothing at all when neither is set; spans cost
ten times as much, and are for a fleet whose tasks take longer than that. A collector that is away, slow
or wrong has no effect on work: pushes are made by a thread of their own, the newest numbers replace those that wait, a
failure is logged once a minute at most, and the end of the hub waits one second for the last push.

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
    ("Alerts and callers", "agentcom.alert", "agentcom.request", "agentcom.caller", "agentcom.telemetry"),
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
            "| metric | for Prometheus | kind | unit | by | meaning |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        parts += [_row(one) for one in found]
        parts.append("")
    assert not left, f"no group has {[one.name for one in left]}"
    return "\n".join([*parts, *_values(), "", *_bounds(), ""])


def _row(metric: Metric) -> str:
    suffix = "_total" if metric.kind is Kind.COUNTER else ""
    by = ", ".join(f"`{attribute.name}`" for attribute in metric.attributes)
    unit = metric.unit.strip("{}")
    return (
        f"| `{metric.name}` | `{metric.prometheus}{suffix}` | {metric.kind.value} | {unit} | {by} | {metric.meaning} |"
    )


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
