"""Charts drawn on the server: plain numbers in, SVG out. No scripts, no inline styles: colours come from classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

BAR_WIDTH: Final = 400
BAR_HEIGHT: Final = 14
NODE_WIDTH: Final = 168
NODE_HEIGHT: Final = 46
GAP_X: Final = 44
GAP_Y: Final = 16
TEXT_CHARS_MAX: Final = 22
"""What fits into a node."""


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a stacked bar."""

    label: str
    count: int
    tone: str


def bar(parts: Sequence[Part], *, title: str) -> Markup:
    """A stacked bar; empty parts take no room, and any other is at least wide enough to be seen."""
    whole = sum(part.count for part in parts) or 1
    shown = [part for part in parts if part.count]
    pieces, x = [], 0.0
    for index, part in enumerate(shown):
        rest = BAR_WIDTH - x - 4 * (len(shown) - index - 1)
        width = rest if index == len(shown) - 1 else min(rest, max(4.0, BAR_WIDTH * part.count / whole))
        pieces.append(
            Markup(
                '<rect class="fill-{}" x="{:.1f}" y="0" width="{:.1f}" height="{}"><title>{}: {}</title></rect>'
            ).format(part.tone, x, max(1.0, width - 1), BAR_HEIGHT, part.label, part.count)
        )
        x += width
    label = title + ": " + (", ".join(f"{part.count} {part.label}" for part in shown) or "nothing")
    return Markup(
        '<svg class="bar" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="fill-track" x="0" y="0" width="{}" height="{}"/>{}</svg>'
    ).format(BAR_WIDTH, BAR_HEIGHT, label, BAR_WIDTH, BAR_HEIGHT, Markup("").join(pieces))


@dataclass(frozen=True, slots=True)
class Node:
    """One task of a plan."""

    id: str
    title: str
    state: str
    tone: str
    sign: str
    href: str
    depends_on: tuple[str, ...]


def layers(depends_on: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The column of each node: one behind the last of those that it depends on. What is in a cycle goes to 0."""
    depth: dict[str, int] = {}

    def of(id: str, path: frozenset[str]) -> int:
        if id not in depth:
            behind = [of(one, path | {id}) for one in depends_on.get(id, ()) if one in depends_on and one not in path]
            depth[id] = 1 + max(behind) if behind else 0
        return depth[id]

    for id in depends_on:
        of(id, frozenset({id}))
    return depth


def graph(nodes: Sequence[Node], *, title: str) -> Markup:
    """A plan as a drawing: dependencies to the left, arrows to what waits for them."""
    column = layers({node.id: node.depends_on for node in nodes})
    rows: dict[int, int] = {}
    place: dict[str, tuple[int, int]] = {}
    for node in nodes:
        x = column[node.id]
        place[node.id] = (x * (NODE_WIDTH + GAP_X) + 2, rows.get(x, 0) * (NODE_HEIGHT + GAP_Y) + 2)
        rows[x] = rows.get(x, 0) + 1
    width = (max(rows, default=0) + 1) * (NODE_WIDTH + GAP_X) - GAP_X + 4
    height = max(rows.values(), default=1) * (NODE_HEIGHT + GAP_Y) - GAP_Y + 4
    edges = [_edge(place[one], place[node.id]) for node in nodes for one in node.depends_on if one in place]
    boxes = [_box(node, *place[node.id]) for node in nodes]
    return Markup(
        '<svg class="graph" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="group" aria-label="{t}">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="arrow" d="M0 0 L8 4 L0 8 z"/></marker></defs>{e}{b}</svg>'
    ).format(w=width, h=height, t=title, e=Markup("").join(edges), b=Markup("").join(boxes))


def _edge(start: tuple[int, int], end: tuple[int, int]) -> Markup:
    x1, y1 = start[0] + NODE_WIDTH, start[1] + NODE_HEIGHT / 2
    x2, y2 = end[0], end[1] + NODE_HEIGHT / 2
    bend = max(GAP_X / 2, (x2 - x1) / 2)
    return Markup('<path class="edge" d="M{} {} C{} {} {} {} {} {}" marker-end="url(#arrow)"/>').format(
        x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2
    )


def _box(node: Node, x: int, y: int) -> Markup:
    title = node.title if len(node.title) <= TEXT_CHARS_MAX else node.title[: TEXT_CHARS_MAX - 1] + "…"
    return Markup(
        '<a class="node" href="{h}"><title>{i}: {full} ({s})</title>'
        '<rect class="node-{tone}" x="{x}" y="{y}" width="{w}" height="{hh}" rx="6"/>'
        '<text x="{tx}" y="{y1}" class="node-id">{sign} {i} · {s}</text><text x="{tx}" y="{y2}">{t}</text></a>'
    ).format(
        h=node.href, i=node.id, full=node.title, s=node.state, tone=node.tone, x=x, y=y, w=NODE_WIDTH, hh=NODE_HEIGHT,
        tx=x + 10, y1=y + 18, y2=y + 36, sign=node.sign, t=title,
    )  # fmt: skip
