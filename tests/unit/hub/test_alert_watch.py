"""What the watch sees of work and agents: from committed events, and from records only where a repo is concerned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from hub.core import change as changes
from hub.core import goal as goals
from hub.core import proof
from hub.core.alerts.alert import Alert
from hub.core.alerts.facts import Offline, Red, Work
from hub.core.attach import Accepted, Failed, Report
from hub.core.change import Change
from hub.core.goal import Assertion, Goal
from hub.core.holding import Holding
from hub.core.repo import Repo
from hub.core.task import Attribution, Check, Expectation, Failure, Phase, Receipt, Verdict
from hub.engine.alerts.watch import RATE_WINDOW_S, TAKEN_BACK_S, Watch
from hub.engine.live.session import Sequenced
from hub.engine.script import agents, registry
from hub.store.memory import MemoryStore
from kit import errors, ids
from tests.support.stage import DONE, Stage

UNIT, LINT = Check(id="unit", run="make test"), Check(id="lint", run="make lint")


class Watched(Stage):
    """A stage that somebody watches."""

    def __init__(self, raised: tuple[Alert, ...] = (), **settings: Any) -> None:
        super().__init__(**settings)
        self.raised = raised
        self.wakes = 0
        self.watch: Watch | None = None

    def begin(self) -> None:
        self.watch = Watch(self.ctx, self.dispatcher.fleet, self.sessions, soon=self._soon)
        self.watch.start(self.raised)

    def _soon(self) -> None:
        self.wakes += 1

    def look(self) -> Work:
        assert self.watch is not None
        found = self.watch.work(self.clock.now())
        assert found is not None
        return found

    async def report(self, stream: Any, task: str, *outcomes: Any) -> None:
        holding = Holding(task, self.task(task).generation)
        for outcome in outcomes:
            await stream.session.receive(stream, Sequenced(stream.session.inbox.applied + 1, Report(holding, outcome)))
        await stream.reports.put(None)
        await self.worker.pump(stream)

    async def say(self, type: str, subject: str, **fields: str) -> None:
        now = self.clock.now()
        await self.do(lambda txn: txn.append(now, type, subject, **fields))

    async def gone(self, stream: Any, how: str = "lost") -> None:
        self.sessions.close(stream, how)
        await self.sessions.flush(self.clock.now())


@pytest.fixture
async def stage() -> AsyncIterator[Watched]:
    made = Watched()
    made.begin()
    yield made
    await made.close()


def failed(reason: str = "X", **more: Any) -> Failed:
    return Failed(failure=Failure(reason=reason, attribution=Attribution.TASK), **more)


async def test_of_an_empty_hub_there_is_nothing_to_see(stage: Watched):
    assert stage.look() == Work(growth=None, window_full=False, stuck=[], offline=[], isolated=[], red=[])
    stage.clock.advance(RATE_WINDOW_S)
    assert stage.look().window_full


async def test_the_queue_is_counted_and_its_oldest_task_is_known(stage: Watched):
    await stage.submit()
    stage.clock.advance(100.0)
    await stage.submit()
    found = stage.look()
    assert (found.queued, found.oldest_s, found.paused) == (2, 100.0, False)
    await stage.say("hub.paused", "hub")
    assert stage.look().paused
    for _ in range(61):
        stage.clock.advance(15.0)
        found = stage.look()
    assert found.growth == (0, 0)


async def test_attempts_are_counted_by_how_they_ended_and_a_merge_is_none(stage: Watched):
    stream = await stage.online("a1", slots=3)
    first, second = await stage.submit(), await stage.submit(attempts_max=1)
    await stage.report(stream, first, Accepted(), DONE)
    stream = await stage.online("a1", slots=3)
    await stage.report(stream, second, Accepted(), failed())
    await stage.say("task.succeeded", f"tasks/{first}", change="changes/x", merge_sha="y")
    found = stage.look()
    assert (found.ended, found.failed) == (2, 1)
    stage.clock.advance(RATE_WINDOW_S + 60.0)
    assert stage.look().ended == 0


async def test_an_attempt_without_progress_is_stuck_and_stays_so_for_a_while_when_it_is_taken_back():
    stage = Watched(stuck_s=50.0, lease_s=100.0)
    stage.begin()
    stream = await stage.online("a1")
    task = await stage.submit(silence_timeout_s=100.0)
    await stage.report(stream, task, Accepted())
    stage.sessions.heard(stream.session, 1)
    await stage.pass_time(51.0)
    assert list(stage.look().stuck) == [task] and "task.stuck" in stage.events(f"tasks/{task}")
    for _ in range(2):
        stage.sessions.heard(stream.session, 1)
        await stage.pass_time(60.0)
    found = stage.look()
    assert "task.released" in stage.events(f"tasks/{task}")
    assert (list(found.stuck), found.failed) == ([task], 1) and stage.wakes
    stage.clock.advance(TAKEN_BACK_S)
    assert list(stage.look().stuck) == []
    await stage.close()


async def test_a_lost_holding_counts_as_a_failed_attempt_and_one_given_back_does_not(stage: Watched):
    for reason in ("LEASE_EXPIRED", "GOODBYE"):
        await stage.say("task.released", "tasks/x", reason=reason)
    await stage.say("task.scheduled", "tasks/x")
    assert (stage.look().ended, stage.look().failed) == (1, 1)


# Agents


async def test_an_agent_counts_from_its_first_session_and_is_offline_from_the_end_of_its_last(stage: Watched):
    await stage.enrol("never")
    stream = await stage.online("anna")
    assert (stage.look().agents, stage.look().online, list(stage.look().offline)) == (1, 1, [])
    stage.clock.advance(50.0)
    before = stage.wakes
    await stage.gone(stream, "goodbye")
    ended = stage.clock.now()
    stage.clock.advance(50.0)
    found = stage.look()
    assert (found.agents, found.online) == (1, 0) and stage.wakes > before
    assert list(found.offline) == [Offline("anna", ended, "goodbye")]
    await stage.online("anna")
    assert list(stage.look().offline) == []


async def test_an_agent_that_is_back_before_its_end_is_written_down_is_not_offline(stage: Watched):
    stream = await stage.online("anna")
    stage.sessions.close(stream, "lost")
    await stage.online("anna")
    await stage.sessions.flush(stage.clock.now())
    assert list(stage.look().offline) == []


async def test_a_look_finds_an_agent_that_went_away_before_the_log_says_so(stage: Watched):
    stream = await stage.online("anna")
    stage.look()
    stage.sessions.close(stream, "lost")
    assert list(stage.look().offline) == [Offline("anna", stage.clock.now())]


async def test_a_drained_agent_is_to_be_away_and_a_deleted_one_is_gone(stage: Watched):
    for name in ("anna", "berta"):
        await stage.gone(await stage.online(name))
    now = stage.clock.now()
    await stage.do(lambda txn: agents.drain(txn, "anna", now, actor="test"))
    assert [one.agent for one in stage.look().offline] == ["berta"] and stage.look().agents == 1
    await stage.do(lambda txn: agents.delete(txn, "berta", now, actor="test", roll=0.5))
    assert (stage.look().agents, list(stage.look().offline)) == (0, [])


async def test_after_a_restart_an_agent_is_offline_from_the_start_of_the_hub_or_as_long_as_its_alert(stage: Watched):
    for name in ("anna", "berta"):
        await stage.gone(await stage.online(name))
    await stage.enrol("never")
    stage.clock.advance(1_000.0)
    raised = Alert(id="agent-offline.berta", rule="agent-offline", subject="agents/berta", since=77.0)
    rest = Alert(id="agent-offline", rule="agent-offline")
    old = Alert(id="agent-refused.carl", rule="agent-refused", subject="agents/carl", message="agents/carl: too old")
    again = Watched(raised=(raised, rest, old), store=stage.store)
    again.clock.advance(stage.clock.now() - again.clock.now())
    again.begin()
    now = again.clock.now()
    assert again.look().refused == (("carl", "too old"),)
    assert sorted(again.look().offline) == [Offline("anna", now, at_least=True), Offline("berta", 77.0, at_least=True)]


async def test_an_agent_is_isolated_until_its_time_has_passed(stage: Watched):
    await stage.online("anna")
    until = stage.clock.now() + 60.0
    record = stage.see(lambda reader: reader.agents.get("anna"))
    assert record is not None
    await stage.do(lambda txn: txn.agents.put(msgspec.structs.replace(record, isolated_until=until)))
    await stage.say("agent.isolated", "agents/anna")
    assert list(stage.look().isolated) == ["anna"]
    stage.clock.advance(61.0)
    assert list(stage.look().isolated) == []


# A default branch


def receipt(check: Check, verdict: Verdict, phase: Phase = Phase.BASE) -> Receipt:
    return Receipt(check=check.id, command_sha256=proof.command_hash(check.run), verdict=verdict, phase=phase)


async def repo(stage: Watched, *checks: Check) -> None:
    made = Repo(id="web", url="https://example.com/web.git", checks=checks)
    await stage.do(lambda txn: txn.repos.put(made))


async def base(stage: Watched, reason: str, *receipts: Receipt, checks: tuple[Check, ...] = ()) -> str:
    """A WORK attempt on the repo that fails, with what it found on the base."""
    stream = await stage.online("anna", slots=5)
    task = await stage.submit(repo="web", checks=checks, attempts_max=1)
    await stage.report(stream, task, Accepted(), failed(reason, receipts=receipts))
    return task


def red(stage: Watched) -> list[str]:
    return [one.repo for one in stage.look().red]


async def test_a_check_of_the_repo_that_is_red_on_the_base_makes_main_red_until_it_holds_there(stage: Watched):
    await repo(stage, UNIT, LINT)
    task = await base(stage, "BASE_RED", receipt(UNIT, Verdict.FAIL), receipt(LINT, Verdict.PASS))
    (found,) = stage.look().red
    assert found == Red("web", f"checks that must hold on its default branch do not: unit (fail) (tasks/{task})")
    await base(stage, "TIMED_OUT", receipt(LINT, Verdict.PASS))
    assert red(stage) == ["web"]
    await base(stage, "TIMED_OUT", receipt(UNIT, Verdict.PASS))
    assert red(stage) == []


async def test_what_only_a_plan_believes_of_the_base_makes_main_red_only_where_the_repo_says_nothing(stage: Watched):
    own = Check(id="own", run="true # the plan's", expect_on_base=Expectation.PASS)
    other = Check(id="other", run="false", expect_on_base=Expectation.FAIL)
    seen = (receipt(own, Verdict.FAIL), receipt(other, Verdict.FAIL))
    await repo(stage, UNIT)
    await base(stage, "BASE_RED", *seen, checks=(own, other))
    assert red(stage) == []
    await repo(stage)
    await base(stage, "BASE_RED", receipt(other, Verdict.FAIL), checks=(own, other))
    assert red(stage) == []
    await base(stage, "BASE_RED", *seen, checks=(own, other))
    assert red(stage) == ["web"]


async def test_a_failed_attempt_without_a_repo_says_nothing_of_one(stage: Watched):
    stream = await stage.online("anna")
    task = await stage.submit(attempts_max=1)
    await stage.report(stream, task, Accepted(), failed("BASE_RED", receipts=(receipt(UNIT, Verdict.FAIL),)))
    await stage.say("task.failed", "tasks/gone", reason="BASE_RED")
    assert red(stage) == []


async def merge(stage: Watched, number: int, type: str, **more: Any) -> None:
    made = Change(
        id=ids.encode(number), task=ids.encode(number), generation=1, repo="web", branch="b", head_sha="1" * 40,
        state=changes.State.RETURNED, **more,
    )  # fmt: skip
    await stage.do(lambda txn: txn.changes.put(made))
    await stage.say(type, f"changes/{made.id}")


async def test_three_changes_that_come_back_red_make_main_red_and_a_merge_makes_it_well(stage: Watched):
    await repo(stage, UNIT)
    bad = {"failure": Failure(reason="CHECK_FAILED", message="unit failed")}
    conflict = {"failure": Failure(reason="MERGE_CONFLICT")}
    for number, why in enumerate((bad, conflict, bad, {}), 1):
        await merge(stage, number, "change.returned", **why)
    assert red(stage) == []
    await merge(stage, 9, "change.returned", **bad)
    assert red(stage) == ["web"]
    await merge(stage, 10, "change.merged")
    await stage.say("change.merged", "changes/gone")
    assert red(stage) == []


async def goal(stage: Watched, type: str, *receipts: Receipt) -> None:
    assertions = tuple(Assertion(id=f"A{i}", text="x", receipt=one) for i, one in enumerate(receipts))
    made = Goal(id=ids.encode(7), title="g", repo="web", state=goals.State.FAILED, assertions=assertions)
    await stage.do(lambda txn: txn.goals.put(made))
    await stage.say(type, f"goals/{made.id}")


async def test_a_goals_assertions_speak_of_main_where_they_are_checks_of_the_repo(stage: Watched):
    await repo(stage, UNIT)
    await goal(stage, "goal.failed", receipt(LINT, Verdict.FAIL, Phase.MERGED))
    assert red(stage) == []
    await goal(stage, "goal.failed", receipt(UNIT, Verdict.FAIL, Phase.MERGED))
    assert red(stage) == ["web"]
    await goal(stage, "goal.succeeded", receipt(UNIT, Verdict.PASS, Phase.MERGED))
    await stage.say("goal.failed", "goals/gone")
    assert red(stage) == []


async def test_an_edit_of_the_repo_ends_what_was_known_of_it(stage: Watched):
    await repo(stage, UNIT)
    await base(stage, "BASE_RED", receipt(UNIT, Verdict.FAIL))
    assert red(stage) == ["web"]
    now = stage.clock.now()
    wanted = Repo(id="web", url="https://example.com/web.git", checks=(LINT,))
    await stage.do(lambda txn: registry.update(txn, "web", wanted, ["checks"], now, actor="test"))
    assert red(stage) == []


async def test_a_red_main_of_before_the_restart_stays_until_a_merge():
    stage = Watched(
        raised=(Alert(id="main-red.web", rule="main-red", subject="repos/web"), Alert(id="main-red", rule="main-red"))
    )
    stage.begin()
    assert stage.look().red == [Red("web", "")]
    await merge(stage, 1, "change.merged")
    assert stage.look().red == []
    await stage.close()


async def test_of_a_store_that_cannot_be_read_nothing_is_known(stage: Watched, monkeypatch: pytest.MonkeyPatch):
    def broken(*_args: object) -> None:
        raise errors.DataLoss("it is damaged")

    monkeypatch.setattr(MemoryStore, "read", broken)
    assert stage.watch is not None
    assert stage.watch.work(stage.clock.now()) is None
