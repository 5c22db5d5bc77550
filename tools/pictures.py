"""The pictures of the documentation. Each state and transition must be one that the code has."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

from hub.core import goal, task
from tools.drawing import Box, Drawing

Table = Mapping[Any, enum.Enum]


def pictures() -> dict[str, str]:
    """Each file by its path."""
    return {f"docs/pictures/{name}.svg": draw().svg() for name, draw in DRAWN.items()}


def architecture() -> Drawing:
    """The nodes and what flows between them."""
    page = Drawing(860, 430, "Nodes of AgentCom and what flows between them")
    hub = page.group(Box(300, 40, 260, 290), "hub")
    rpc = page.box(Box(320, 70, 220, 44), "services", "gRPC: one contract", kind="hub")
    engine = page.box(
        Box(320, 140, 220, 66), "engine", "queue, sessions, dispatch,", "goals, merge train, alerts", kind="hub"
    )
    store = page.box(Box(320, 262, 220, 50), "store", "LMDB: records, indexes, event log", kind="hub")
    page.join(rpc, engine)
    page.join(engine, store, "one transaction, one fsync", shift=-70)
    people = page.box(Box(24, 70, 170, 44), "people, scripts, CI", "agentcom")
    page.box(Box(24, 130, 170, 44), "browser", "dashboard")
    page.box(Box(24, 200, 170, 44), "goal files", "a watched folder")
    page.join(people, rpc, "goals, tasks")
    page.arrow([(194, 152), (240, 152), (240, 100), (320, 100)], "")
    page.text(204, 146, "reads, steers", kind="small")
    page.arrow([(194, 222), (260, 222), (260, 180), (320, 180)], "")
    backup = page.box(Box(24, 265, 170, 44), "backups", "on another disk")
    page.join(store, backup, "copies")
    for number, name in enumerate(("builder-1", "builder-2")):
        top = 40 + number * 150
        page.group(Box(650, top, 190, 130), name)
        side = page.box(Box(668, top + 28, 154, 40), "sidecar", "journal, worktrees", kind="work")
        agent = page.box(Box(668, top + 80, 154, 40), "commands, agents", "in a sandbox", kind="work")
        page.join(side, agent)
    page.arrow([(668, 86), (540, 86)])
    page.text(566, 62, "Attach", kind="title")
    page.text(566, 77, "work down,", kind="small")
    page.text(566, 100, "reports up", kind="small")
    page.arrow([(668, 238), (610, 238), (610, 110), (540, 110)])
    page.box(Box(650, 360, 190, 48), "git repositories", "branches, then main", kind="box")
    page.line([(845, 88), (850, 88), (850, 384)])
    page.line([(840, 88), (850, 88)])
    page.arrow([(850, 384), (840, 384)])
    page.arrow([(745, 320), (745, 360)], "fetch, push")
    watch = page.box(Box(320, 360, 220, 48), "collector, Prometheus", "metrics, traces; may be away")
    page.join(Box(hub.x, hub.y, hub.width, hub.height), watch)
    return page


def task_life() -> Drawing:
    """A task from filed to its end."""
    places = {
        "PENDING": (30, 60, "wait"), "SCHEDULED": (30, 200, "wait"), "QUEUED": (210, 130, "hub"),
        "ASSIGNED": (390, 130, "hub"), "RUNNING": (560, 130, "work"), "MERGING": (730, 130, "work"),
        "SUCCEEDED": (730, 30, "work"), "PARKED": (390, 290, "wait"), "DEAD": (560, 290, "end"),
        "CANCELLED": (730, 290, "end"),
    }  # fmt: skip
    page = Drawing(880, 370, "The life of a task")
    boxes = _states(page, places, task.State)
    edge = _edges(page, boxes, task.TRANSITIONS)
    edge("PENDING", "QUEUED")
    edge("SCHEDULED", "QUEUED", "due")
    edge("QUEUED", "ASSIGNED", "assign")
    edge("ASSIGNED", "RUNNING", "accept")
    edge("RUNNING", "MERGING", "pushed")
    edge("MERGING", "SUCCEEDED", "merged")
    page.arrow([(650, 130), (650, 53), (730, 53)])
    _known(task.TRANSITIONS, "RUNNING", "SUCCEEDED", "complete")
    page.text(656, 47, "complete", kind="small")
    edge("RUNNING", "PARKED", "park")
    edge("RUNNING", "DEAD", "kill")
    _bend(page, task.TRANSITIONS, "RUNNING", "SCHEDULED", [(600, 176), (600, 262), (85, 262), (85, 246)], "retry_later")
    _bend(page, task.TRANSITIONS, "PARKED", "QUEUED", [(390, 312), (265, 312), (265, 176)], "unpark")
    _bend(page, task.TRANSITIONS, "MERGING", "QUEUED", [(785, 130), (785, 106), (265, 106), (265, 130)], "return")
    page.text(30, 345, "Any state before an end can be cancelled.", kind="small")
    page.text(30, 360, "A dead, cancelled or parked task can be retried by a person.", kind="small")
    return page


def goal_life() -> Drawing:
    """A goal from a file to verified main."""
    page = Drawing(880, 300, "The life of a goal")
    names = [
        ("goal", "title, assertions,", "a plan of tasks", "box"),
        ("lint", "acyclic, covered,", "checks can fail", "hub"),
        ("tasks", "as their dependencies", "allow", "work"),
        ("merge train", "one at a time onto", "fresh main, checked", "work"),
        ("verify", "the assertions again,", "on merged main", "work"),
    ]
    boxes = [
        page.box(Box(24 + 172 * index, 60, 136, 70), name, one, two, kind=kind)
        for index, (name, one, two, kind) in enumerate(names)
    ]
    for one, other in itertools.pairwise(boxes):
        page.join(one, other)
    done = page.box(Box(712, 210, 136, 50), "SUCCEEDED", "all of them hold", kind="work")
    page.box(Box(514, 210, 172, 50), "FAILED", "names what does not hold", kind="end")
    refused = page.box(Box(196, 210, 136, 50), "refused", "each field named", kind="end")
    page.join(boxes[1], refused)
    page.join(boxes[4], done)
    page.arrow([(730, 130), (730, 170), (600, 170), (600, 210)])
    page.arrow([(600, 60), (600, 34), (436, 34), (436, 60)], "conflict, or red on fresh main: back with the evidence")
    page.text(24, 285, "States of a goal: " + ", ".join(state.name for state in goal.State), kind="small")
    return page


def attach() -> Drawing:
    """What is said on the stream, in time."""
    rows: list[tuple[str, str, str]] = [
        ("up", "hello: who, session, everything held, offer", "line"),
        ("down", "welcome: session, pace, lease, what is agreed", "line"),
        ("down", "1 assign: task, generation 1", "line"),
        ("up", "1 report accepted (ack 1: in the journal)", "line"),
        ("up", "heartbeat: everything held, progress", "line"),
        ("down", "desired: everything that ought to be held", "line"),
        ("up", "2 report completed, receipts", "lost"),
        ("", "the connection is lost; the report is in the journal", ""),
        ("up", "hello: the same session", "line"),
        ("down", "welcome: resumed, 1 is stored", "line"),
        ("up", "2 report completed, once more", "line"),
        ("", "transaction: generation compared, result stored, fsync", ""),
        ("down", "ack 2: on disk", "line"),
        ("up", "3 goodbye", "line"),
    ]
    height = 90 + 30 * len(rows)
    page = Drawing(640, height, "The stream between a sidecar and the hub")
    left, right = 110, 530
    page.box(Box(left - 70, 16, 140, 36), "sidecar", kind="work")
    page.box(Box(right - 70, 16, 140, 36), "hub", kind="hub")
    page.line([(left, 52), (left, height - 16)])
    page.line([(right, 52), (right, height - 16)])
    for index, (way, said, kind) in enumerate(rows):
        y = 88.0 + 30 * index
        if way == "up" and kind == "lost":
            page.arrow([(left, y), (left + 260, y)], said, kind="lost")
        elif way == "up":
            page.arrow([(left, y), (right, y)], said)
        elif way == "down":
            page.arrow([(right, y), (left, y)], said)
        else:
            page.text((left + right) / 2, y, said, kind="title", anchor="middle")
    return page


def store() -> Drawing:
    """Why an answer means that it is on disk."""
    page = Drawing(860, 300, "One write, from a call to its answer")
    calls = [
        page.box(Box(24, 40 + 56 * number, 130, 40), name) for number, name in enumerate(("submit", "report", "cancel"))
    ]
    queue = page.box(Box(210, 76, 130, 80), "functions", "wait for the writer,", "in order", kind="wait")
    writer = page.box(
        Box(400, 76, 150, 80), "one transaction", "all that waited;", "one that fails is", "undone alone", kind="hub"
    )
    disk = page.box(Box(610, 76, 110, 80), "fsync", "then it is", "committed", kind="hub")
    for call in calls:
        page.join(call, queue)
    page.join(queue, writer)
    page.join(writer, disk)
    told = page.box(Box(754, 76, 86, 80), "answers,", "acks,", "watches", kind="work")
    page.join(disk, told)
    held = page.box(Box(400, 210, 150, 60), "records, indexes", "each with a checksum")
    page.box(Box(600, 210, 150, 60), "event log", "each chained to the last")
    page.join(writer, held)
    page.arrow([(530, 156), (530, 185), (675, 185), (675, 210)])
    page.text(24, 240, "Killed before the fsync: nothing was promised.", kind="small")
    page.text(24, 258, "Killed after it: the next start goes on from there;", kind="small")
    page.text(24, 276, "whoever asks again with its request id gets the same answer.", kind="small")
    return page


def _states(page: Drawing, places: Mapping[str, tuple[float, float, str]], states: type[enum.Enum]) -> dict[str, Box]:
    assert set(places) == {state.name for state in states}, "the picture does not show every state"
    return {name: page.box(Box(x, y, 110, 46), name, kind=kind) for name, (x, y, kind) in places.items()}


def _edges(page: Drawing, boxes: Mapping[str, Box], table: Table) -> Callable[..., None]:
    def edge(before: str, after: str, label: str = "") -> None:
        _known(table, before, after, label)
        page.join(boxes[before], boxes[after], label)

    return edge


def _bend(page: Drawing, table: Table, before: str, after: str, points: list[tuple[float, float]], label: str) -> None:
    _known(table, before, after, label)
    page.arrow(points, label)


def _known(table: Table, before: str, after: str, label: str) -> None:
    """Is there such a transition? Raises AssertionError for one that the code does not have."""
    causes = {cause.name.lower() for (state, cause), end in table.items() if (state.name, end.name) == (before, after)}
    assert causes and (not label or label in causes), f"no {before} -> {after} by {label or 'anything'}: {causes}"


DRAWN: Final = {
    "architecture": architecture,
    "task": task_life,
    "goal": goal_life,
    "attach": attach,
    "store": store,
}
