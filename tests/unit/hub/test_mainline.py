"""Whether a default branch is red, from what the work on it has shown."""

from __future__ import annotations

from hub.core.alerts import mainline
from hub.core.alerts.mainline import EVIDENCE_S, REPOS_MAX, Mainline


def test_a_red_check_is_evidence_until_it_is_seen_to_hold():
    seen = Mainline()
    assert not seen and "web" not in seen
    seen.failed("web", 10.0, "unit fails", ["unit", "lint"])
    assert seen and "web" in seen and seen.red(20.0) == [("web", "unit fails")]
    seen.held("web", ["unit", "other"])
    assert seen.red(20.0)
    seen.held("web", ["lint"])
    assert not seen and seen.red(20.0) == []
    seen.held("web", ["lint"])


def test_what_failed_twice_must_hold_twice():
    seen = Mainline()
    seen.failed("web", 10.0, "unit fails", ["unit"])
    seen.failed("web", 11.0, "lint fails", ["lint"])
    seen.held("web", ["unit"])
    assert seen.red(20.0) == [("web", "lint fails")]


def test_a_merge_ends_it_and_so_does_an_edit_of_the_repo():
    seen = Mainline()
    seen.failed("web", 10.0, "unit fails", ["unit"])
    seen.well("web")
    seen.well("api")
    assert not seen


def test_evidence_of_which_the_command_is_not_known_is_not_ended_by_a_check():
    seen = Mainline()
    seen.failed("web", 10.0, "")
    seen.held("web", ["unit"])
    assert seen.red(11.0) == [("web", "")]


def test_it_is_forgotten_after_a_day():
    seen = Mainline()
    seen.failed("web", 10.0, "unit fails")
    assert seen.red(9.0 + EVIDENCE_S) and not seen.red(10.0 + EVIDENCE_S) and not seen


def test_three_changes_of_different_tasks_in_a_row_speak_against_main():
    seen = Mainline()
    for task in ("t1", "t1", "t2", "t2"):
        seen.returned("web", task, 10.0, "unit failed")
    assert not seen
    seen.returned("api", "t9", 10.0, "unit failed")
    seen.returned("web", "t3", 10.0, "unit failed")
    ((repo, why),) = seen.red(11.0)
    assert repo == "web" and "tasks/t1, tasks/t2, tasks/t3" in why
    seen.returned("web", "t4", 12.0, "lint failed")
    assert seen.red(13.0) == [(repo, why)]


def test_a_merge_in_between_begins_the_row_anew():
    seen = Mainline()
    for task in ("t1", "t2"):
        seen.returned("web", task, 10.0, "unit failed")
    seen.well("web")
    seen.returned("web", "t3", 10.0, "unit failed")
    assert not seen


def test_there_is_a_bound_and_the_oldest_goes():
    seen = Mainline()
    for number in range(REPOS_MAX + 1):
        seen.failed(f"r{number}", float(number), "red")
    assert len(seen.red(float(mainline.REPOS_MAX))) == REPOS_MAX and "r0" not in seen
