"""The page of the rules for alerts, from the catalogue in hub/core/alerts/rule.py."""

from __future__ import annotations

from typing import Final

from hub.core.alerts import rule as alert_rule
from hub.core.alerts.rule import Rule

HEAD: Final = """# The rules for alerts

What each rule watches, and what it has until somebody edits it. Every threshold, time and severity can be edited at run
time: see [operations](operations.md#alerts).

- **threshold**: the alert is raised when what is measured is at or above it ("below": when it is below it). A rule
  without one raises when it is so.
- **held for**: how long it must be so before it is raised.
- **cooldown**: after people were told of an alert, or after it ended, how long they are not told of the same one again.
- **limits**: between which the threshold may be set. A hold time is at most 7 days, a cooldown at most 30 days.
"""


def page(note: str) -> str:
    """The whole page."""
    head = ("rule", "watches", "threshold", "held for", "cooldown", "severity", "limits")
    rows = [head, ("---",) * len(head), *(_row(rule) for rule in alert_rule.CATALOGUE)]
    return "\n".join([note, HEAD, *(f"| {' | '.join(row)} |" for row in rows), ""])


def _row(rule: Rule) -> tuple[str, ...]:
    default = rule.default
    threshold = _amount(rule.unit, default.threshold) if rule.unit else ""
    return (
        f"`{rule.id}`",
        rule.description,
        f"below {threshold}" if rule.below else threshold,
        _span(default.hold_s),
        _span(default.cooldown_s),
        default.severity.name.lower(),
        f"{_amount(rule.unit, rule.low)} to {_amount(rule.unit, rule.high)}" if rule.unit else "",
    )


def _amount(unit: str, value: float) -> str:
    match unit:
        case alert_rule.SECONDS:
            return _span(value)
        case alert_rule.SHARE:
            return f"{value:.0%}"
        case alert_rule.BYTES:
            return f"{value / 2**20:.0f} MiB" if value < 2**40 else f"{value / 2**40:.0f} TiB"
        case _:
            return f"{value:,.12g} {unit if value != 1 else unit.removesuffix('s')}"


def _span(seconds: float) -> str:
    for size, name in ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
