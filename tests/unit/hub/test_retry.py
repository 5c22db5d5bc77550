"""What becomes of a task whose attempt failed."""

from __future__ import annotations

import msgspec
import pytest

from hub.core import retry
from hub.core.retry import Verb
from hub.core.task import Attribution, Failure, Kind, State, Task

TASK = Task(id="t", state=State.RUNNING, class_id=1, generation=1, agent="a")


def failure(attribution: Attribution, reason: str = "X") -> Failure:
    return Failure(reason=reason, attribution=attribution)


def with_(**changes: object) -> Task:
    return msgspec.structs.replace(TASK, **changes)


def test_only_the_fault_of_the_task_is_charged() -> None:
    for attribution in Attribution:
        decision = retry.after_failure(TASK, failure(attribution), stopped=False, roll=0.5)
        assert decision.charged is (attribution is Attribution.TASK), attribution


@pytest.mark.parametrize(("used", "delay"), [(0, 0.0), (1, 30.0), (2, 120.0), (7, 120.0)])
def test_retries_wait_longer_each_time_up_to_a_cap(used: int, delay: float) -> None:
    decision = retry.after_failure(
        with_(attempts_used=used, attempts_max=20), failure(Attribution.TASK), stopped=False, roll=0.5
    )
    assert decision == (Verb.RETRY, delay, True, "X")


def test_the_last_attempt_is_followed_by_the_dead_letters() -> None:
    decision = retry.after_failure(with_(attempts_used=2), failure(Attribution.TASK), stopped=False, roll=0.5)
    assert (decision.verb, decision.reason, decision.charged) == (Verb.KILL, "ATTEMPTS_EXHAUSTED", True)


@pytest.mark.parametrize(
    ("kind", "reason", "verb"),
    [
        (Kind.MERGE, "MERGE_CONFLICT", Verb.KILL),
        (Kind.MERGE, "CHECK_FAILED", Verb.KILL),
        (Kind.MERGE, "TIMEOUT", Verb.RETRY),
        (Kind.VERIFY, "CHECK_FAILED", Verb.KILL),
        (Kind.WORK, "CHECK_FAILED", Verb.RETRY),
    ],
)
def test_what_would_fail_again_is_not_tried_again(kind: Kind, reason: str, verb: Verb) -> None:
    assert (
        retry.after_failure(with_(kind=kind), failure(Attribution.TASK, reason), stopped=False, roll=0.5).verb is verb
    )


def test_an_environment_fault_parks_without_a_charge_and_looks_ever_more_seldom() -> None:
    delays = []
    for parks in range(7):
        decision = retry.after_failure(with_(parks=parks), failure(Attribution.ENVIRONMENT), stopped=False, roll=0.5)
        assert (decision.verb, decision.charged) == (Verb.PARK, False)
        delays.append(decision.delay_s)
    assert delays == [60.0, 120.0, 300.0, 900.0, 3600.0, 3600.0, 3600.0]


def test_a_provider_is_given_time() -> None:
    assert retry.after_failure(TASK, failure(Attribution.PROVIDER), stopped=False, roll=0.5).delay_s == 60.0


def test_a_stopped_attempt_is_never_charged() -> None:
    decision = retry.after_failure(TASK, failure(Attribution.TASK), stopped=True, roll=0.5)
    assert (decision.verb, decision.charged) == (Verb.RELEASE, False)


def test_returns_at_no_cost_wait_longer_and_end_in_a_park() -> None:
    decisions = [
        retry.after_failure(with_(releases=count), failure(Attribution.AGENT), stopped=False, roll=0.5)
        for count in range(retry.RELEASES_MAX + 1)
    ]
    assert [one.verb for one in decisions] == [Verb.RELEASE] * retry.RELEASES_MAX + [Verb.PARK]
    delays = [one.delay_s for one in decisions[:-1]]
    assert delays == sorted(delays)
    assert delays[0] == 0.0


def test_a_task_lost_with_three_different_agents_is_poison() -> None:
    assert retry.after_loss(with_(killed_agents=("a", "b")), "c", agent_died=True, roll=0.5).reason == "POISON"
    assert retry.after_loss(with_(killed_agents=("a", "b")), "b", agent_died=True, roll=0.5).verb is Verb.RELEASE
    assert retry.after_loss(with_(killed_agents=("a", "b")), "c", agent_died=False, roll=0.5).verb is Verb.RELEASE


def test_jitter_stays_within_its_share() -> None:
    assert retry.spread(100.0, 0.0) == pytest.approx(80.0)
    assert retry.spread(100.0, 1.0) == pytest.approx(120.0)
