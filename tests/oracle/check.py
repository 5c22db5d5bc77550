"""The one checker: joins the logs of all nodes and says which rules a run broke.

chain       positions without gaps, every hash follows from the one before
transition  only edges of the core's tables
fence       accepted writes are of the newest assignment only; old work has stopped when newer work is accepted
completion  at most one accepted completion a task, and somebody did the work
submit      no acked submit is lost, one request makes one task
report      no acked report is lost
attempts    charged for faults of the task only, and counted right
records     the hub's records at the end are what its log says
inversion   more urgent work does not wait for less urgent work beyond the bound of the scenario
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from hashlib import blake2b

import msgspec

from hub.core import task
from hub.core.event import Event
from tests.oracle import inversion, work
from tests.oracle.record import History, Rules, Verb, Violation
from tests.oracle.replay import Life, Replay, of_type

#: The two events by which the hub tells that it accepted a completion (of a holding: with a generation).
ACCEPTED = ("task.succeeded", "task.pushed")
#: Violations shown of a run: the first ones tell what happened.
SHOWN_MAX = 12

_EMPTY_HASH = b"\xc4\x00"


class Broken(AssertionError):
    """A run broke rules."""

    def __init__(self, violations: list[Violation]) -> None:
        more = [f"... and {len(violations) - SHOWN_MAX} more"] if len(violations) > SHOWN_MAX else []
        super().__init__("\n".join(["the oracle found:", *map(str, violations[:SHOWN_MAX]), *more]))
        self.violations = violations


def check(history: History, rules: Rules | None = None) -> None:
    """Raise Broken when the run broke a rule."""
    found = violations(history, rules or Rules())
    if found:
        raise Broken(found)


def violations(history: History, rules: Rules) -> list[Violation]:
    """All that is wrong with a run, in the order of the rules."""
    replay = Replay(history.events, whole=history.anchor[0] == 0)
    found = [*chain(history), *replay.violations]
    parts: tuple[Callable[[History, Replay, Rules], Iterator[Violation]], ...] = (
        work.overlaps,
        completions,
        submits,
        work.reports,
        records,
        inversion.inversions,
    )
    for part in parts:
        found += part(history, replay, rules)
    return found


def chain(history: History) -> Iterator[Violation]:
    """Positions without gaps; hashes computed anew."""
    position, previous = history.anchor
    for event in history.events:
        if event.position != position + 1:
            yield Violation("chain", event.subject, f"position {event.position} follows {position}", event.position)
        if history.hashed:
            body = msgspec.msgpack.encode(msgspec.structs.replace(event, hash=b""))[: -len(_EMPTY_HASH)]
            if blake2b(previous + body, digest_size=16).digest() != event.hash:
                yield Violation("chain", event.subject, "its hash does not follow from the one before", event.position)
        position, previous = event.position, event.hash


def completions(history: History, replay: Replay, rules: Rules) -> Iterator[Violation]:
    """At most one accepted completion a task; one that came back from the merge or was revived may have another."""
    begun = {(op.task, op.generation) for op in history.ops if op.verb is Verb.WORK_BEGUN}
    for id, life in replay.lives.items():
        accepted = [event for event in of_type(life.events, *ACCEPTED) if "generation" in event.fields]
        again = sum(event.type in ("task.returned", "task.revived") for event in life.events)
        if len(accepted) > 1 + again:
            told = ", ".join(event.fields["generation"] for event in accepted)
            yield Violation("completion", f"tasks/{id}", f"accepted {len(accepted)} times: generations {told}")
        ends = sum(event.type == "task.succeeded" for event in life.events)
        if ends > 1:
            yield Violation("completion", f"tasks/{id}", f"succeeded {ends} times")
        if rules.logs_complete and begun:
            for event in accepted:
                if (id, int(event.fields["generation"])) not in begun and not _by_hand(life, event):
                    message = f"generation {event.fields['generation']} was accepted and nobody began it"
                    yield Violation("completion", f"tasks/{id}", message, event.position)


def _by_hand(life: Life, accepted: Event) -> bool:
    generation = accepted.fields["generation"]
    return any(e.fields.get("generation") == generation and "claimed_by" in e.fields for e in life.events)


def submits(history: History, replay: Replay, rules: Rules) -> Iterator[Violation]:
    """Each acked submit is in exactly one terminal state or alive; a request makes one task; acked cancels hold."""
    tasks_of: dict[str, set[str]] = defaultdict(set)
    for op in history.ops:
        if op.verb is Verb.SUBMIT_ACKED:
            tasks_of[op.request or op.task].add(op.task)
            if op.task not in replay.lives and history.anchor[0] == 0:
                yield Violation("submit", f"tasks/{op.task}", f"acked to {op.node} and lost")
        elif op.verb is Verb.CANCEL_ACKED:
            life = replay.lives.get(op.task)
            if life is None or not any(event.type == "task.cancelled" for event in life.events):
                yield Violation("submit", f"tasks/{op.task}", f"its cancel was acked to {op.node} and lost")
    for id, request in history.requests.items():
        tasks_of[request].add(id)
    for request, found in tasks_of.items():
        if len(found) > 1:
            yield Violation("submit", f"request {request}", f"made {len(found)} tasks: {sorted(found)}")
    if rules.all_end:
        for id, life in replay.lives.items():
            if life.state not in task.FINAL:
                yield Violation("submit", f"tasks/{id}", f"is still {life.state.name}")


def records(history: History, replay: Replay, rules: Rules) -> Iterator[Violation]:
    """The hub's records at the end say what its log says: state, generation, attempts used, accepted completions."""
    if history.tasks is None:
        return
    for id, life in replay.lives.items():
        record = history.tasks.get(id)
        if life.deleted or record is None:
            if not life.deleted and life.state not in task.FINAL:
                yield Violation("records", f"tasks/{id}", f"is {life.state.name} by the log, and there is no record")
            continue
        if record.state is not life.state:
            yield Violation("records", f"tasks/{id}", f"is {record.state.name}, by the log {life.state.name}")
        if record.generation != life.generation:
            message = f"has generation {record.generation}, by the log {life.generation}"
            yield Violation("records", f"tasks/{id}", message)
        if record.attempts_used not in life.used:
            message = f"has used {record.attempts_used} attempts, by the log {sorted(life.used)}"
            yield Violation("attempts", f"tasks/{id}", message)
        attempts = history.attempts.get(id, ())
        charged = [
            a for a in attempts if a.charged and a.failure and a.failure.attribution is not task.Attribution.TASK
        ]
        for attempt in charged:
            assert attempt.failure is not None
            message = f"generation {attempt.generation} was charged for a fault of {attempt.failure.attribution.name}"
            yield Violation("attempts", f"tasks/{id}", message)
        open_ = [a.generation for a in attempts if a.outcome is task.AttemptOutcome.ACTIVE]
        if open_ and (record.state not in task.HELD or open_ != [record.generation]):
            message = f"is {record.state.name} at generation {record.generation} and attempts {open_} are open"
            yield Violation("records", f"tasks/{id}", message)
    if history.anchor[0] == 0:
        for id in history.tasks.keys() - replay.lives.keys():
            yield Violation("records", f"tasks/{id}", "there is a record and no event")
