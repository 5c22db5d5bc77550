"""What the first page shows over time: the hub's samples as panels, each a drawing with its legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from agentcom.v1 import history_pb2, hub_pb2, task_pb2
from dashboard import format, plot
from dashboard.plot import Line, Part


class Span(NamedTuple):
    """How far back."""

    word: str
    start: str
    """The left end of the axis."""
    step: history_pb2.Sample.Step.ValueType
    step_s: int
    steps: int


SPANS: Final = (
    Span("hour", "an hour ago", history_pb2.Sample.STEP_MINUTE, 60, 60),
    Span("day", "a day ago", history_pb2.Sample.STEP_HOUR, 3600, 24),
    Span("week", "a week ago", history_pb2.Sample.STEP_HOUR, 3600, 168),
)
LANES: Final = (task_pb2.LANE_URGENT, task_pb2.LANE_HIGH, task_pb2.LANE_NORMAL, task_pb2.LANE_LOW)

Sample = history_pb2.Sample
Grid = Sequence[Sample | None]


class Key(NamedTuple):
    """A line of a legend: how it is drawn, what it means, and its figure over the whole time."""

    shape: str
    text: str
    figure: str = ""


class Panel(NamedTuple):
    """One drawing."""

    title: str
    svg: Markup
    top: str
    """What the upper edge stands for."""
    keys: tuple[Key, ...]


def panels(history: history_pb2.History, span: Span, now: float) -> list[Panel]:
    """All of them; a time that the hub knows nothing of is a band."""
    steps = grid(history.samples, span, now)
    return [_throughput(steps, span), _depth(steps, span), _waits(steps, span), _slots(steps, span)]


def grid(samples: Sequence[Sample], span: Span, now: float) -> list[Sample | None]:
    """One place for each step up to now; None where the hub told nothing."""
    last = int(now // span.step_s)
    found = {one.start_time.seconds // span.step_s: one for one in samples}
    if found and 0 < max(found) - last <= 1:  # the hub's clock is a little ahead of ours
        last = max(found)
    return [found.get(index) for index in range(last - span.steps + 1, last + 1)]


def _throughput(steps: Grid, span: Span) -> Panel:
    columns = [_ended(one) for one in steps]
    filed: list[float | None] = [float(one.submitted_count) if one is not None else None for one in steps]
    totals = {name: sum(int(getattr(one, f"{name}_count")) for one in steps if one is not None) for name in _COUNTS}
    titles = _titles(
        steps, span, lambda one: f"{one.succeeded_count} done, {one.failed_count} failed, {one.submitted_count} filed"
    )
    drawn = plot.draw(columns, [Line("filed", filed)], titles, label=f"Throughput: {_say(totals)}")
    keys = (
        Key("fill-good", "done", format.about(totals["succeeded"])),
        Key("fill-bad", "attempts failed", format.about(totals["failed"])),
        Key("line-filed", "filed", format.about(totals["submitted"])),
        Key("", "merged", format.about(totals["merged"])),
    )
    return Panel(f"Throughput a {_word(span)}", drawn.svg, format.about(round(drawn.top)), keys)


def _depth(steps: Grid, span: Span) -> Panel:
    seen = [one if one is not None and one.observed else None for one in steps]
    columns = [
        None if one is None else [Part(f"lane-{lane}", float(_of_lane(one, lane))) for lane in reversed(LANES)]
        for one in seen
    ]
    titles = _titles(
        seen,
        span,
        lambda one: ", ".join(f"{item.count} {format.word('lane', item.lane)}" for item in one.lanes) or "none waited",
    )
    most = max((sum(item.count for item in one.lanes) for one in seen if one is not None), default=0)
    drawn = plot.draw(columns, [], titles, label=f"Waiting for an agent: at most {most}")
    keys = tuple(Key(f"fill-lane-{lane}", format.word("lane", lane)) for lane in LANES)
    return Panel("Waiting, by lane", drawn.svg, format.about(round(drawn.top)), keys)


def _waits(steps: Grid, span: Span) -> Panel:
    def of(one: Sample | None, which: str, share: str) -> float | None:
        if one is None or not one.HasField(which):  # type: ignore[arg-type]  # the name of a field, chosen at run time
            return None
        told: hub_pb2.Stats.Percentiles = getattr(one, which)
        length = getattr(told, share)
        return float(length.seconds + length.nanos / 1e9)

    seen = [one if one is not None and one.observed else None for one in steps]
    columns: list[list[Part] | None] = [None if one is None else [] for one in seen]
    lines = [
        Line("p50", [of(one, "queue_wait", "p50") for one in seen]),
        Line("p99", [of(one, "queue_wait", "p99") for one in seen]),
        Line("run", [of(one, "run", "p50") for one in seen]),
    ]

    def told(one: Sample) -> str:
        found = [
            f"{name} p50 {format.duration(spread.p50)}, p99 {format.duration(spread.p99)}"
            for name, spread in (("waited", one.queue_wait), ("ran", one.run))
            if spread.count
        ]
        return "; ".join(found) or "nothing was assigned"

    drawn = plot.draw(columns, lines, _titles(seen, span, told), label="Time from queued to assigned, and run time")
    some = any(value is not None for line in lines for value in line.values)
    keys = (
        Key("line-p50", "wait p50", _last(lines[0])),
        Key("line-p99", "wait p99", _last(lines[1])),
        Key("line-run", "run p50", _last(lines[2])),
    )
    return Panel("Latency", drawn.svg, format.seconds(drawn.top) if some else "–", keys)


def _slots(steps: Grid, span: Span) -> Panel:
    seen = [one if one is not None and one.observed else None for one in steps]
    columns = [None if one is None else [Part("busy", one.slots_used)] for one in seen]
    offered: list[float | None] = [float(one.slots) if one is not None else None for one in seen]
    titles = _titles(seen, span, lambda one: f"{one.slots_used:.1f} of {one.slots} slots in use")
    drawn = plot.draw(columns, [Line("slots", offered)], titles, label="Slots in use")
    used, all_of = (
        sum(value(one) for one in seen if one is not None)
        for value in (lambda one: one.slots_used, lambda one: float(one.slots))
    )
    keys = (
        Key("fill-busy", "in use", f"{format.percent(used, all_of)} %" if all_of else ""),
        Key("line-slots", "offered"),
    )
    return Panel("Slots", drawn.svg, format.about(round(drawn.top)), keys)


_COUNTS: Final = ("submitted", "succeeded", "failed", "merged")


def _ended(one: Sample | None) -> list[Part] | None:
    if one is None:
        return None
    return [Part("good", float(one.succeeded_count)), Part("bad", float(one.failed_count))]


def _of_lane(one: Sample, lane: int) -> int:
    return sum(item.count for item in one.lanes if item.lane == lane)


def _titles(steps: Grid, span: Span, tell: Callable[[Sample], str]) -> list[str]:
    """What a pointer is told of each step: when, and what."""
    found = []
    for index, one in enumerate(steps):
        past = (len(steps) - 1 - index) * span.step_s
        when = f"{format.seconds(past)} ago" if past else f"this {_word(span)}"
        found.append(f"{when}: {tell(one) if one is not None else 'nothing is known'}")
    return found


def _say(totals: dict[str, int]) -> str:
    return f"{totals['succeeded']} done, {totals['failed']} failed, {totals['submitted']} filed"


def _last(line: Line) -> str:
    value = next((value for value in reversed(line.values) if value is not None), None)
    return "" if value is None else format.seconds(value)


def _word(span: Span) -> str:
    return "minute" if span.step_s == 60 else "hour"
