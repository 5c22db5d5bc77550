"""A small hand for drawings in SVG: boxes, arrows, lanes. Readable on light and dark pages, without a script or a font.

Coordinates are pixels from the upper left corner. Colours are classes, so that one style serves both schemes.
"""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

STYLE: Final = """
  .page { fill: #ffffff; stroke: #d0d7de }
  .box { fill: #f6f8fa; stroke: #57606a }
  .hub { fill: #ddf4ff; stroke: #0969da }
  .work { fill: #dafbe1; stroke: #1a7f37 }
  .end { fill: #ffebe9; stroke: #cf222e }
  .wait { fill: #fff8c5; stroke: #9a6700 }
  .group { fill: none; stroke: #57606a; stroke-dasharray: 5 4 }
  .line { fill: none; stroke: #57606a; stroke-width: 1.4 }
  .lost { fill: none; stroke: #cf222e; stroke-width: 1.4; stroke-dasharray: 3 4 }
  .tip { fill: #57606a; stroke: none }
  text { fill: #1f2328; font: 13px system-ui, 'DejaVu Sans', sans-serif }
  .title { font-weight: 600 }
  .small { font-size: 11px; fill: #57606a }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d }
    .box { fill: #161b22; stroke: #8b949e }
    .hub { fill: #0c2d6b; stroke: #58a6ff }
    .work { fill: #04260f; stroke: #3fb950 }
    .end { fill: #490202; stroke: #f85149 }
    .wait { fill: #341a00; stroke: #d29922 }
    .group, .line { stroke: #8b949e }
    .tip { fill: #8b949e }
    text { fill: #e6edf3 }
    .small { fill: #9da7b1 }
  }
"""
TIP: Final = 7
LINE: Final = 15


class Box(NamedTuple):
    """A rectangle on the page; arrows begin and end at its sides."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    def side(self, towards: Box) -> tuple[float, float]:
        """The middle of the side that looks at the other box."""
        (x, y), (other_x, other_y) = self.middle, towards.middle
        if abs(other_x - x) * self.height > abs(other_y - y) * self.width:
            return (self.x + self.width if other_x > x else self.x), y
        return x, (self.y + self.height if other_y > y else self.y)


class Drawing:
    """A page that is drawn on."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._width, self._height, self._title = width, height, title
        self._parts: list[str] = []

    def box(self, box: Box, title: str, *lines: str, kind: str = "box") -> Box:
        """A box with a title and small lines below it."""
        self._parts.append(
            f'<rect class="{kind}" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="6"/>'
        )
        x, y = box.middle
        top = y - LINE * len(lines) / 2 + 4.5
        self.text(x, top, title, kind="title", anchor="middle")
        for number, line in enumerate(lines, 1):
            self.text(x, top + number * LINE, line, kind="small", anchor="middle")
        return box

    def group(self, box: Box, title: str) -> Box:
        """A frame around boxes, with its name in its upper left corner."""
        self._parts.append(
            f'<rect class="group" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="8"/>'
        )
        self.text(box.x + 10, box.y + 18, title, kind="title")
        return box

    def join(
        self, one: Box, other: Box, label: str = "", *, at: float = 0.5, shift: float = 0, kind: str = "line"
    ) -> None:
        """An arrow from side to side; `shift` moves it sideways, `at` says where on it the label stands."""
        (x1, y1), (x2, y2) = one.side(other), other.side(one)
        if abs(x2 - x1) > abs(y2 - y1):
            y1, y2 = y1 + shift, y2 + shift
        else:
            x1, x2 = x1 + shift, x2 + shift
        self.arrow([(x1, y1), (x2, y2)], label, at=at, kind=kind)

    def arrow(self, points: list[tuple[float, float]], label: str = "", *, at: float = 0.5, kind: str = "line") -> None:
        """An arrow along points; the label stands over its longest piece."""
        path = " L".join(f"{x:g} {y:g}" for x, y in points)
        self._parts.append(f'<path class="{kind}" d="M{path}"/>')
        self._tip(points[-2], points[-1])
        if label:
            pieces = list(itertools.pairwise(points))
            (x1, y1), (x2, y2) = max(
                pieces, key=lambda piece: abs(piece[1][0] - piece[0][0]) + abs(piece[1][1] - piece[0][1])
            )
            x, y = x1 + (x2 - x1) * at, y1 + (y2 - y1) * at
            if abs(x2 - x1) >= abs(y2 - y1):
                self.text(x, y - 5, label, kind="small", anchor="middle")
            else:
                self.text(x + 6, y + 4, label, kind="small")

    def line(self, points: list[tuple[float, float]], *, kind: str = "line") -> None:
        """A line without a tip."""
        self._parts.append(f'<path class="{kind}" d="M{" L".join(f"{x:g} {y:g}" for x, y in points)}"/>')

    def text(self, x: float, y: float, text: str, *, kind: str = "", anchor: str = "start") -> None:
        """Words; y is their base line."""
        name = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text{name} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def svg(self) -> str:
        """The file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self._width} {self._height}" '
            f'width="{self._width}" height="{self._height}" role="img">\n'
            f"<!-- Generated by `make docs`. Do not edit. -->\n<title>{escape(self._title)}</title>\n"
            f"<style>{STYLE}</style>\n"
            f'<rect class="page" x="0.5" y="0.5" width="{self._width - 1}" height="{self._height - 1}" rx="8"/>\n'
        )
        return head + "\n".join(self._parts) + "\n</svg>\n"

    def _tip(self, before: tuple[float, float], end: tuple[float, float]) -> None:
        (x1, y1), (x2, y2) = before, end
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5 or 1
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        back = x2 - ux * TIP, y2 - uy * TIP
        wide = TIP * 0.55
        points = [(x2, y2), (back[0] - uy * wide, back[1] + ux * wide), (back[0] + uy * wide, back[1] - ux * wide)]
        shown = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polygon class="tip" points="{shown}"/>')
