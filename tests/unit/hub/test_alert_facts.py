"""What each rule reads in the facts: when it is past its threshold, what it says, and how many there can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hub.core.alerts import facts as alert_facts
from hub.core.alerts import rule as alert_rule
from hub.core.alerts.alert import RAISED_MAX
from hub.core.alerts.course import Found, Reading
from hub.core.alerts.facts import SUBJECTS_MAX, Facts, Offline, Red, Work

MIB = 1024 * 1024
WELL = Facts(
    now=1_000.0, size_max_bytes=100, used_bytes=10, disk_free_bytes=5_000 * MIB, disk_reserve_bytes=64 * MIB,
    started_at=900.0, work=Work(),
)  # fmt: skip


def look(facts: Facts, **thresholds: float) -> Found:
    settings = alert_rule.settings({})
    for id, threshold in thresholds.items():
        rule = id.replace("_", "-")
        settings[rule] = msgspec.structs.replace(settings[rule], threshold=threshold)
    return alert_facts.look(facts, settings)


def work(**changes: Any) -> Facts:
    return WELL._replace(work=Work(**changes))


def the(facts: Facts, **thresholds: float) -> Reading:
    (found,) = look(facts, **thresholds).readings
    return found


def test_of_a_hub_that_is_well_there_is_nothing_to_say():
    assert look(WELL) == Found([], frozenset())


CASES: dict[str, Facts] = {
    "store-degraded": WELL._replace(degraded="broken", remedy="mend it"),
    "store-full": WELL._replace(used_bytes=80),
    "disk-low": WELL._replace(disk_free_bytes=255 * MIB),
    "backup-failed": WELL._replace(backup_failure="no room"),
    "backup-old": WELL._replace(backup_every_s=30.0),
    "loops-late": WELL._replace(late_loops=("sweep",)),
    "queue-growing": work(queued=150, growth=(100, 100)),
    "oldest-task": work(oldest_s=3_600.0),
    "stuck-tasks": work(stuck=["t1"]),
    "failure-rate": work(ended=10, failed=5),
    "no-agents": work(agents=2),
    "agent-offline": work(agents=2, online=1, offline=[Offline("anna", 880.0)]),
    "agent-isolated": work(agents=1, online=1, isolated=["anna"]),
    "agent-refused": work(refused=[("anna", "sidecar 0.1.0 does not work with hub 0.9.0")]),
    "main-red": work(red=[Red("web", "unit fails")]),
}


@pytest.mark.parametrize("id", CASES)
def test_what_is_the_matter_has_a_reading_of_its_rule_that_says_what_to_do(id: str):
    found = the(CASES[id])
    assert (found.rule, found.holds) == (id, True) and found.message and found.advice


def test_every_rule_of_the_catalogue_has_a_case():
    assert set(CASES) == set(alert_rule.BY_ID)


Near = tuple[str, float, Callable[[float], Facts]]
NEAR: list[Near] = [
    ("store-full", 80.0, lambda share: WELL._replace(used_bytes=80, size_max_bytes=round(8_000 / share))),
    ("backup-old", 2.5, lambda age: WELL._replace(backup_every_s=10.0, backup_newest_at=1_000.0 - 10 * age)),
    ("oldest-task", 3_600.0, lambda age: work(oldest_s=age)),
    ("stuck-tasks", 10.0, lambda count: work(stuck=[str(n) for n in range(int(count))])),
    ("failure-rate", 50.0, lambda rate: work(ended=100, failed=int(rate))),
    ("queue-growing", 100.0, lambda grown: work(queued=500, growth=(int(grown), int(grown)))),
]


@pytest.mark.parametrize(("id", "limit", "facts"), NEAR, ids=[one[0] for one in NEAR])
def test_a_little_below_the_threshold_keeps_what_is_raised_and_far_below_ends_it(id: str, limit: float, facts: Any):
    thresholds = {"stuck_tasks": 10.0} if id == "stuck-tasks" else {}
    assert [one.holds for one in look(facts(limit), **thresholds).readings] == [True]
    assert [one.holds for one in look(facts(limit * 0.9), **thresholds).readings] == [False]
    assert look(facts(limit * 0.7), **thresholds).readings == []


def test_the_disk_is_low_below_its_threshold_and_critical_below_the_reserve():
    free = {255: (True, False), 256: (False, False), 319: (False, False), 63: (True, True)}
    for mib, (holds, urgent) in free.items():
        found = the(WELL._replace(disk_free_bytes=mib * MIB))
        assert (found.holds, found.urgent) == (holds, urgent), mib
    assert look(WELL._replace(disk_free_bytes=320 * MIB)).readings == []
    assert look(WELL._replace(disk_free_bytes=1, disk_reserve_bytes=0)).readings == []


def test_a_store_in_memory_has_no_disk_and_no_backups():
    everything = WELL._replace(durable=False, disk_free_bytes=1, backup_every_s=1.0, backup_failure="x")
    assert look(everything).readings == []


def test_a_store_whose_limit_is_not_known_is_not_full():
    assert look(WELL._replace(size_max_bytes=0)).readings == []


def test_a_backup_is_old_by_the_newest_good_one_or_by_the_start():
    old = the(WELL._replace(backup_every_s=30.0, backup_newest_at=910.0))
    assert old.holds and old.message == "the newest good backup is 90 s old; one is due every 30 s"
    assert "there is no good backup" in the(WELL._replace(backup_every_s=30.0)).message
    assert look(WELL._replace(backup_every_s=100.0)).readings == []
    assert look(WELL._replace(backup_every_s=30.0, backup_newest_at=2_000.0)).readings == []  # the clock was set back


def test_a_queue_grows_only_when_it_does_so_all_the_time():
    assert look(work(queued=500, growth=(500, 0))).readings[0].holds is False  # a burst that is being worked off
    assert look(work(queued=500, growth=None)) == Found([], frozenset({"queue-growing"}))


def test_of_a_hub_that_is_paused_the_advice_is_to_resume_it():
    found = look(work(paused=True, queued=500, growth=(500, 500), oldest_s=9_000.0)).readings
    assert [one.rule for one in found] == ["queue-growing", "oldest-task"]
    assert all("hub resume" in one.advice for one in found)


def test_a_rate_of_few_attempts_says_nothing():
    assert look(work(ended=9, failed=9)) == Found([], frozenset({"failure-rate"}))
    assert look(work(ended=0, window_full=False)).unknown == {"failure-rate"}
    assert look(work(ended=0)).unknown == frozenset()  # nothing ends any more: what was raised ends


def test_no_agent_online_is_critical_only_while_tasks_wait_and_nothing_where_there_never_was_one():
    assert not the(work(agents=2)).urgent
    assert the(work(agents=2, queued=1)).urgent
    assert "while 1 task waits" in the(work(agents=2, queued=1)).message
    assert "while 2 tasks wait" in the(work(agents=2, queued=2)).message
    assert look(work(queued=5)).readings == []


def test_an_agent_is_late_by_its_threshold_and_until_then_says_when_it_will_be():
    facts = work(agents=3, online=1, offline=[Offline("anna", 960.0, "goodbye"), Offline("berta", 990.0, "lost")])
    (anna,) = look(facts, agent_offline=40.0).readings
    assert (anna.subject, anna.holds, anna.value) == ("agents/anna", True, 40.0)
    assert anna.message == "agents/anna went offline on purpose 40 s ago"
    assert look(facts, agent_offline=40.0).due_s == 30.0
    assert look(work(online=1)).due_s is None


def test_an_agent_that_is_away_since_before_the_start_keeps_its_alert_and_raises_none_before_its_time():
    facts = work(agents=1, offline=[Offline("anna", 990.0, at_least=True)], online=1)
    (anna,) = look(facts).readings
    assert (anna.subject, anna.holds, anna.message) == ("agents/anna", False, "")
    assert look(facts).due_s == 110.0
    assert the(facts._replace(now=1_110.0)).holds


MANY: dict[str, Callable[[int], Facts]] = {
    "agent-offline": lambda n: work(online=1, offline=[Offline(f"a{i:03}", float(n - i)) for i in range(n)]),
    "agent-isolated": lambda n: work(online=1, isolated=[f"a{i:03}" for i in range(n)]),
    "agent-refused": lambda n: work(refused=[(f"a{i:03}", "too old") for i in range(n)]),
    "main-red": lambda n: work(red=[Red(f"r{i:03}", "red") for i in range(n)]),
}


@pytest.mark.parametrize("rule", MANY)
def test_twenty_have_an_alert_of_their_own_and_the_others_share_one(rule: str):
    facts = MANY[rule]
    found = look(facts(30), agent_offline=1.0).readings
    assert len(found) == SUBJECTS_MAX + 1 and len({one.id for one in found}) == len(found)
    assert found[-1].id == rule and found[-1].subject == "" and "10 more" in found[-1].message
    assert "and 5 more" in found[-1].message
    assert len(look(facts(SUBJECTS_MAX), agent_offline=1.0).readings) == SUBJECTS_MAX
    if rule == "agent-offline":  # those that are away for longest
        assert [one.subject for one in found[:2]] == ["agents/a029", "agents/a028"]


def test_a_red_main_that_was_found_before_the_start_keeps_its_alert_and_raises_none():
    assert (the(work(red=[Red("web", "")])).holds, the(work(red=[Red("web", "")])).message) == (False, "")


def test_of_work_that_cannot_be_read_nothing_is_known():
    found = look(WELL._replace(work=None, degraded="broken"))
    assert [one.rule for one in found.readings] == ["store-degraded"] and found.unknown == alert_facts.WORK_RULES
    assert alert_facts.WORK_RULES.issubset(alert_rule.BY_ID)


def test_all_that_can_be_raised_at_once_is_less_than_the_contract_allows():
    assert len(alert_rule.CATALOGUE) + len(MANY) * SUBJECTS_MAX <= RAISED_MAX


@pytest.mark.parametrize(
    ("seconds", "text"), [(119.0, "119 s"), (120.0, "2 min"), (7_199.0, "119 min"), (7_200.0, "2 h")]
)
def test_a_span_is_told_as_people_say_it(seconds: float, text: str):
    assert f"waited for {text}" in look(work(oldest_s=seconds), oldest_task=1.0).readings[0].message


def test_a_few_are_named_and_the_others_counted():
    assert the(work(stuck=["a", "b"])).message == "2 attempts without progress: tasks/a, tasks/b"
    assert the(work(stuck=list("abcdefg"))).message.endswith("tasks/e and 2 more")
