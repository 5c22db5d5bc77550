"""Figures over time, drawn on the server: columns and lines in SVG, with bands where nothing is known.

A drawing stretches to its place (its lines keep their width, by the style sheet); so there is no text in it but the
titles that a pointer finds. What the axes say stands beside it as text.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

WIDTH: Final = 600
HEIGHT: Final = 100
GAP: Final = 0.18
"""Room between columns, as a part of a step."""
_STEPS: Final = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
"""Where an axis may end, times a power of ten."""


class Part(NamedTuple):
    """A piece of a column."""

    tone: str
    value: float


class Line(NamedTuple):
    """Values over time; None: there is none at that time."""

    tone: str
    values: Sequence[float | None]


class Plot(NamedTuple):
    """A drawing, and the value at its upper edge."""

    svg: Markup
    top: float


def draw(columns: Sequence[Sequence[Part] | None], lines: Sequence[Line], titles: Sequence[str], *, label: str) -> Plot:
    """Stacked columns with lines over them, one step for each of `columns`; None there: nothing is known.

    `titles` are what a pointer is told of each step, `label` what a reader of the screen is.
    """
    step = WIDTH / max(1, len(columns))
    highest = [sum(part.value for part in column) for column in columns if column]
    highest += [value for line in lines for value in line.values if value is not None]
    top = ceiling(max(highest, default=0.0))
    drawn = _gaps(columns, step)
    drawn += [_column(column, index * step, step, top) for index, column in enumerate(columns) if column]
    drawn += [_line(line, step, top) for line in lines]
    drawn += [
        Markup('<rect class="hover" x="{:.2f}" y="0" width="{:.2f}" height="{}"><title>{}</title></rect>').format(
            index * step, step, HEIGHT, title
        )
        for index, title in enumerate(titles)
    ]
    svg = Markup(
        '<svg class="plot" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" aria-label="{t}">'
        '<path class="grid" d="M0 {m} H{w} M0 0.5 H{w}"/>{d}</svg>'
    ).format(w=WIDTH, h=HEIGHT, t=label, m=HEIGHT / 2, d=Markup("").join(drawn))
    return Plot(svg, top)


def ceiling(value: float) -> float:
    """The next round number at or above a value; 1 for none."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((power * step for step in _STEPS if power * step >= value * (1 - 1e-9)), power * 10)


def _gaps(columns: Sequence[Sequence[Part] | None], step: float) -> list[Markup]:
    """One band for each run of steps of which nothing is known."""
    found, start = [], 0
    for known, run in itertools.groupby(column is not None for column in columns):
        count = len(list(run))
        if not known:
            found.append(
                Markup('<rect class="gap" x="{:.2f}" y="0" width="{:.2f}" height="{}"/>').format(
                    start * step, count * step, HEIGHT
                )
            )
        start += count
    return found


def _column(parts: Sequence[Part], x: float, step: float, top: float) -> Markup:
    drawn, base = [], float(HEIGHT)
    for part in parts:
        if part.value <= 0:
            continue
        height = max(1.5, HEIGHT * part.value / top)
        base -= height
        drawn.append(
            Markup('<rect class="fill-{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>').format(
                part.tone, x + step * GAP / 2, max(0.0, base), step * (1 - GAP), height
            )
        )
    return Markup("").join(drawn)


def _line(line: Line, step: float, top: float) -> Markup:
    """Broken where there is no value; a value alone is a short dash."""
    pieces: list[str] = []
    for index, value in enumerate(line.values):
        if value is None:
            continue
        y = HEIGHT - (HEIGHT - 2) * value / top
        before = line.values[index - 1] if index else None
        after = line.values[index + 1] if index + 1 < len(line.values) else None
        if before is None:
            pieces.append(f"M{index * step + (step * 0.2 if after is None else step / 2):.2f} {y:.2f}")
        if before is None and after is None:
            pieces.append(f"h{step * 0.6:.2f}")
        elif before is not None:
            pieces.append(f"L{index * step + step / 2:.2f} {y:.2f}")
    return Markup('<path class="line line-{}" d="{}"/>').format(line.tone, " ".join(pieces)) if pieces else Markup("")
