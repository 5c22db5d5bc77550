"""When an agent, and not its tasks, is at fault."""

from __future__ import annotations

from hub.core import blame
from hub.core.agent import Agent
from hub.core.holding import Holding


def test_three_different_tasks_failed_in_a_row_isolate_for_five_minutes_and_are_refunded() -> None:
    agent = Agent(id="a")
    for number in range(2):
        agent, refunds = blame.failed(agent, Holding(f"t{number}", 1), charged=True, now=10.0)
        assert not refunds
        assert not blame.isolated(agent, 10.0)
    agent, refunds = blame.failed(agent, Holding("t2", 4), charged=True, now=10.0)
    assert refunds == (Holding("t0", 1), Holding("t1", 1), Holding("t2", 4))
    assert blame.isolated(agent, 10.0)
    assert blame.isolated(agent, 309.9)
    assert not blame.isolated(agent, 310.0)
    assert (agent.failures_in_row, agent.suspects, agent.failed_count) == (0, (), 3)


def test_what_an_isolated_agent_still_held_is_refunded_too_and_isolates_it_no_longer() -> None:
    agent = Agent(id="a", isolated_until=310.0)
    agent, refunds = blame.failed(agent, Holding("t", 1), charged=True, now=20.0)
    assert refunds == (Holding("t", 1),)
    assert (agent.isolated_until, agent.failures_in_row, agent.failed_count) == (310.0, 0, 1)
    assert blame.failed(agent, Holding("t", 2), charged=False, now=20.0)[1] == ()
    assert not blame.failed(agent, Holding("t", 3), charged=True, now=310.0)[1]


def test_one_bad_task_tried_three_times_isolates_nobody() -> None:
    agent = Agent(id="a")
    for generation in range(1, 6):
        agent, refunds = blame.failed(agent, Holding("t", generation), charged=True, now=10.0)
        assert not refunds
    assert not blame.isolated(agent, 10.0)


def test_an_uncharged_failure_counts_in_the_row_and_is_not_refunded() -> None:
    agent = Agent(id="a")
    for number in range(3):
        agent, refunds = blame.failed(agent, Holding(f"t{number}", 1), charged=number == 1, now=10.0)
    assert refunds == (Holding("t1", 1),)


def test_a_success_ends_the_row() -> None:
    agent = Agent(id="a")
    for number in range(2):
        agent, _ = blame.failed(agent, Holding(f"t{number}", 1), charged=True, now=10.0)
    agent = blame.succeeded(agent, 11.0)
    agent, refunds = blame.failed(agent, Holding("t9", 1), charged=True, now=12.0)
    assert not refunds
    assert (agent.failures_in_row, agent.completed_count) == (1, 1)
