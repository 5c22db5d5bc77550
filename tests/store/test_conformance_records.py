"""Any store: the records that are no tasks, and the indexes that find them."""

from __future__ import annotations

# Scripts here are lambdas that bind loop variables and put many records: mypy infers neither.
# mypy: disable-error-code="misc,func-returns-value"
from typing import Any

import pytest
from msgspec.structs import replace

from hub.core import change as change_core
from hub.core.agent import Agent, Offer
from hub.core.change import Change
from hub.core.goal import Assertion, Goal, Plan, PlanTask
from hub.core.goal import State as GoalState
from hub.core.repo import Repo
from hub.core.task import Attempt, AttemptOutcome, Check, Kind, Receipt, Result, Tier, Verdict
from hub.core.token import Scope, Token
from hub.store.base import Answer, Store
from tests.store.build import NOW, spec, task_id

RECORDS: dict[str, Any] = {
    "agents": Agent(
        id="a-1",
        offer=Offer(capabilities=frozenset({"x", "y"}), tiers=frozenset({Tier.COMPLEX}), kinds=frozenset(Kind)),
        suspects=(("t", 1), ("u", 0)),
        isolated_until=NOW,
    ),
    "goals": Goal(
        id="g-1", title="t", repo="r", state=GoalState.ACTIVE, assertions=(Assertion(id="A1", text="x", receipt=None),)
    ),
    "plans": Plan(goal="g-1", tasks=(PlanTask(id="one", spec=spec(depends_on=("x",)), fulfills=("A1",)),)),
    "changes": Change(id="c-1", task="t", generation=1, repo="r", branch="b", head_sha="1" * 40),
    "repos": Repo(id="r-1", url="u", checks=(Check(id="c", run="true"),)),
    "tokens": Token(id="k-1", secret_sha256="ab" * 32, scope=Scope.AGENT),
}


def change(number: int, **fields) -> Change:
    given = {"id": f"c{number:03d}", "task": "t", "generation": 1, "repo": "r", "branch": "b", "head_sha": "1" * 40}
    return Change(**{**given, **fields})


@pytest.mark.parametrize("table", list(RECORDS))
async def test_a_record_of_every_type_is_written_changed_listed_and_forgotten(store: Store, table: str) -> None:
    record = RECORDS[table]
    id = record.goal if isinstance(record, Plan) else record.id
    await store.write(lambda txn: getattr(txn, table).put(record))
    assert store.read(lambda r: getattr(r, table).get(id)) == record
    assert store.read(lambda r: getattr(r, table).page(limit=9)) == [record]
    for other in set(RECORDS) - {table}:
        assert store.read(lambda r, other=other: getattr(r, other).page(limit=9)) == []
    changed = replace(record, **{"version": 7} if table == "plans" else {"created_at": NOW})
    await store.write(lambda txn: getattr(txn, table).put(changed))
    assert store.read(lambda r: getattr(r, table).page(limit=9)) == [changed]
    await store.write(lambda txn: getattr(txn, table).delete(id))
    await store.write(lambda txn: getattr(txn, table).delete(id))
    assert store.read(lambda r: getattr(r, table).get(id)) is None


@pytest.mark.parametrize("reverse", [False, True])
async def test_tables_page_in_the_order_of_ids(store: Store, reverse: bool) -> None:
    agents = [Agent(id=id) for id in sorted(["a", "a-1", "a-10", "a-2", "ab", "b", "z" * 63])]
    await store.write(lambda txn: [txn.agents.put(agent) for agent in agents[::-1]])
    found, after = [], ""
    while chunk := store.read(lambda r, after=after: r.agents.page(after=after, limit=2, reverse=reverse)):
        found += chunk
        after = chunk[-1].id
    assert found == (agents[::-1] if reverse else agents)


async def test_the_train_of_a_repo_holds_its_unmerged_changes_in_order(store: Store) -> None:
    states = list(change_core.State)
    changes = [change(n, state=states[n % len(states)]) for n in range(10)]
    await store.write(lambda txn: [txn.changes.put(each) for each in (*changes[::-1], change(11, repo="r2"))])
    waiting = [each for each in changes if each.state in (change_core.State.WAITING, change_core.State.MERGING)]
    assert store.read(lambda r: r.train("r", 99)) == waiting
    assert store.read(lambda r: r.train("r", 1)) == waiting[:1]
    await store.write(lambda txn: txn.changes.put(replace(waiting[0], state=change_core.State.MERGED)))
    await store.write(lambda txn: txn.changes.delete(waiting[1].id))
    assert store.read(lambda r: r.train("r", 99)) == waiting[2:]
    assert store.read(lambda r: [each.id for each in r.train("r2", 99)]) == ["c011"]


async def test_a_token_is_found_by_the_hash_of_its_secret_only(store: Store) -> None:
    token = Token(id="k1", secret_sha256="aa" * 32, scope=Scope.ADMIN)
    await store.write(lambda txn: txn.tokens.put(token))
    assert store.read(lambda r: r.token_by_hash("aa" * 32)) == token
    assert store.read(lambda r: r.token_by_hash("aa")) is None
    assert store.read(lambda r: r.token_by_hash("")) is None
    await store.write(lambda txn: txn.tokens.put(replace(token, secret_sha256="bb" * 32)))
    assert store.read(lambda r: r.token_by_hash("aa" * 32)) is None
    assert store.read(lambda r: r.token_by_hash("bb" * 32)) is not None
    await store.write(lambda txn: txn.tokens.delete("k1"))
    assert store.read(lambda r: r.token_by_hash("bb" * 32)) is None


async def test_attempts_of_a_task_are_listed_oldest_first(store: Store) -> None:
    receipt = Receipt(check="c", verdict=Verdict.PASS, started_at=NOW, duration_s=1.5)
    attempts = [
        Attempt(task=task_id(1), generation=n, agent="a", assigned_at=NOW, result=Result(receipts=(receipt,)))
        for n in (1, 2, 9, 10, 255, 256, 300)
    ]
    await store.write(lambda txn: [txn.put_attempt(each) for each in attempts[::-1]])
    await store.write(lambda txn: txn.put_attempt(Attempt(task=task_id(2), generation=1, agent="b", assigned_at=NOW)))
    assert store.read(lambda r: r.attempts(task_id(1))) == attempts
    assert store.read(lambda r: r.attempts(task_id(1), limit=2)) == attempts[:2]
    assert store.read(lambda r: r.attempt(task_id(1), 10)) == attempts[3]
    assert store.read(lambda r: r.attempt(task_id(1), 11)) is None
    for unheard_of in (-1, -(2**63), 2**32):  # a caller may ask for any
        assert store.read(lambda r, number=unheard_of: r.attempt(task_id(1), number)) is None
        assert store.read(lambda r, number=unheard_of: r.artifact(task_id(1), number, "diff")) is None
    lost = replace(attempts[0], outcome=AttemptOutcome.LOST)
    await store.write(lambda txn: txn.put_attempt(lost))
    assert store.read(lambda r: r.attempt(task_id(1), 1)) == lost


@pytest.mark.parametrize("size", [0, 1, 4_096, 262_144])
async def test_an_artefact_comes_back_byte_for_byte(store: Store, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await store.write(lambda txn: txn.put_artifact(task_id(1), 2, "diff", content))
    assert store.read(lambda r: r.artifact(task_id(1), 2, "diff")) == content
    assert store.read(lambda r: r.artifact(task_id(1), 1, "diff")) is None


async def test_an_answer_is_kept_for_its_principal_method_and_id_until_its_window_has_passed(store: Store) -> None:
    answers = [Answer(bytes([n]) * 16, f"tasks/{n}", NOW + n) for n in range(4)]
    await store.write(lambda txn: [txn.put_answer("p", "m", str(n), each) for n, each in enumerate(answers)])
    assert store.read(lambda r: r.answer("p", "m", "2")) == answers[2]
    for other in (("q", "m", "2"), ("p", "n", "2"), ("p", "m", "4"), ("p", "", "m\0002"), ("p\0m", "2", "")):
        assert store.read(lambda r, other=other: r.answer(*other)) is None
    assert await store.write(lambda txn: txn.drop_answers(NOW - 1, 99)) == 0
    assert await store.write(lambda txn: txn.drop_answers(NOW + 2, 2)) == 2
    assert await store.write(lambda txn: txn.drop_answers(NOW + 2, 2)) == 1
    assert store.read(lambda r: [r.answer("p", "m", str(n)) for n in range(4)]) == [None, None, None, answers[3]]


async def test_an_answer_given_anew_lives_as_long_as_the_new_one(store: Store) -> None:
    await store.write(lambda txn: txn.put_answer("p", "m", "1", Answer(b"x", "tasks/1", NOW)))
    await store.write(lambda txn: txn.put_answer("p", "m", "1", Answer(b"x", "tasks/1", NOW + 10)))
    assert await store.write(lambda txn: txn.drop_answers(NOW + 5, 9)) == 0
    assert store.read(lambda r: r.answer("p", "m", "1")) is not None
    assert await store.write(lambda txn: txn.drop_answers(NOW + 10, 9)) == 1


async def test_small_facts_are_kept_and_each_store_has_its_uid(store: Store) -> None:
    uid = store.read(lambda r: r.meta("uid"))
    assert uid is not None and len(uid) == 16
    await store.write(lambda txn: txn.set_meta("paused", b"1"))
    assert store.read(lambda r: (r.meta("paused"), r.meta("pause"))) == (b"1", None)
