"""The rules over what sidecars did: old work stops in time, and what they were told is stored is in the hub's log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.oracle.record import History, Op, Rules, Verb, Violation
from tests.oracle.replay import Life, Replay


class Span(NamedTuple):
    """A time in which a sidecar worked on a holding."""

    node: str
    task: str
    generation: int
    begun_at: float
    ended_at: float
    """Infinity: it never said that it ended, and its process lives."""


def spans(ops: Sequence[Op]) -> list[Span]:
    """All work of all sidecars."""
    found: list[Span] = []
    going: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    for op in sorted(ops, key=lambda op: op.at):
        at_work, holding = going[op.node], (op.task, op.generation)
        if op.verb is Verb.WORK_BEGUN:
            at_work[holding] = op.at
        elif op.verb is Verb.WORK_ENDED and holding in at_work:
            found.append(Span(op.node, *holding, at_work.pop(holding), op.at))
        elif op.verb is Verb.PROCESS_DIED:
            found += [Span(op.node, *held, begun, op.at) for held, begun in at_work.items()]
            at_work.clear()
    for node, at_work in going.items():
        found += [Span(node, *held, begun, float("inf")) for held, begun in at_work.items()]
    return found


def overlaps(history: History, replay: Replay, rules: Rules) -> Iterator[Violation]:
    """Work on a generation that goes on although a newer one's writes are accepted; and work that is done twice."""
    found = spans(history.ops)
    frozen = _frozen(history.ops)
    newer: dict[str, list[tuple[float, int]]] = {id: _first_writes(life) for id, life in replay.lives.items()}
    for span in found if rules.stop_s is not None else ():
        assert rules.stop_s is not None
        for at, generation in newer.get(span.task, ()):
            if generation <= span.generation or at <= span.begun_at:
                continue
            late_s = span.ended_at - at - _standing_still(frozen[span.node], at, span.ended_at)
            if late_s > rules.stop_s:
                message = (
                    f"{span.node} worked on generation {span.generation} for {late_s:.1f} s after a write of "
                    f"generation {generation} was accepted"
                )
                yield Violation("fence", f"tasks/{span.task}", message)
                break
    if rules.works_once:
        begun: dict[str, list[Span]] = defaultdict(list)
        for span in found:
            begun[span.task].append(span)
        for id, all_of_it in begun.items():
            if len(all_of_it) > 1:
                told = ", ".join(f"{span.node} generation {span.generation}" for span in all_of_it)
                yield Violation("completion", f"tasks/{id}", f"was begun {len(all_of_it)} times: {told}")


def reports(history: History, replay: Replay, rules: Rules) -> Iterator[Violation]:
    """Of each holding whose outcome was acked to a sidecar, the hub's log tells the end (or that it was fenced)."""
    for op in history.ops:
        if op.verb is not Verb.REPORT_ACKED:
            continue
        life = replay.lives.get(op.task)
        if life is None:
            if history.anchor[0] == 0:
                yield Violation("report", f"tasks/{op.task}", f"acked to {op.node}, of a task that is not there")
        elif not _has_ended(life, op.generation):
            message = f"generation {op.generation} was acked to {op.node} and its end is not in the log"
            yield Violation("report", f"tasks/{op.task}", message)


def _has_ended(life: Life, generation: int) -> bool:
    """Is the holding over, by the log? An end names its generation; a newer assignment says the same."""
    if life.generation > generation:
        return True
    for event in reversed(life.events):
        if event.type == "task.assigned":
            return False
        if event.type not in ("task.accepted", "task.stuck") and event.fields.get("generation") == str(generation):
            return True
    return False


def _first_writes(life: Life) -> list[tuple[float, int]]:
    """When the first write of each generation's holder was accepted."""
    found: dict[int, float] = {}
    for event in life.events:
        if event.type in ("task.accepted", "task.succeeded", "task.pushed", "task.failed", "task.rejected"):
            told = event.fields.get("generation")
            if told is not None:
                found.setdefault(int(told), event.at)
    return [(at, generation) for generation, at in found.items()]


def _frozen(ops: Sequence[Op]) -> dict[str, list[tuple[float, float]]]:
    """For each node the times in which it stood still: who stands still cannot stop its work."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    since: dict[str, float] = {}
    for op in sorted(ops, key=lambda op: op.at):
        if op.verb is Verb.PROCESS_FROZEN:
            since.setdefault(op.node, op.at)
        elif op.verb in (Verb.PROCESS_THAWED, Verb.PROCESS_DIED) and op.node in since:
            found[op.node].append((since.pop(op.node), op.at))
    for node, at in since.items():
        found[node].append((at, float("inf")))
    return found


def _standing_still(times: Sequence[tuple[float, float]], low: float, high: float) -> float:
    """How much of a time a node stood still."""
    return sum(max(0.0, min(end, high) - max(begin, low)) for begin, end in times if begin < high and end > low)
