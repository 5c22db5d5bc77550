"""Goals from end to end: dropped into the watched folder, merged, verified; and told why when they cannot be
reached.
"""

from __future__ import annotations

from pathlib import Path

from agentcom.v1 import change_pb2, goal_pb2, goal_service_pb2
from tests.e2e import history
from tests.support.fleet import Fleet, appears, spec
from tests.support.gitrepo import Origin
from tests.support.processes import until

GOAL = """\
---
title: {title}
repo: demo
assertions:
  - id: A1
    text: both words are there
    run: grep -q {first} words.txt && grep -q {second} words.txt
plan:
  tasks:
    - id: T1
      title: the first word
      checks:
        - {{run: grep -q {first} words.txt, expect_on_base: fail}}
      command: |
        {command}
    - id: T2
      title: the second word
      depends_on: [T1]
      fulfills: [A1]
      checks:
        - {{run: grep -q {second} words.txt, expect_on_base: fail}}
      command: grep -q {first} words.txt && echo {second} >> words.txt
---
Two words, one after the other.
"""


def goal_text(first: str, second: str, *, command: str = "", title: str = "two words") -> str:
    return GOAL.format(title=title, first=first, second=second, command=command or f"echo {first} >> words.txt")


async def goal_of(fleet: Fleet, name: str) -> goal_pb2.Goal:
    return (await fleet.goals.GetGoal(goal_service_pb2.GetGoalRequest(name=name))).goal  # type: ignore[no-any-return]  # the stubs do not say what a call returns


async def drop(fleet: Fleet, folder: Path, file: str, text: str) -> str:
    """Put a goal file into the watched folder; the goal's name."""
    (folder / file).write_text(text)
    note = await appears(folder / "taken" / f"{file}.goal.txt")
    return note.read_text().split()[0]


async def watched(fleet: Fleet, tmp_path: Path, origin: Origin) -> Path:
    """A hub with two sidecars, a repo and a watched folder."""
    folder = tmp_path / "goals"
    await fleet.start_hub(intake_folder=folder, intake_look_s=0.1)
    await fleet.start_sidecars("ada", "grace", slots=2)
    await fleet.add_repo("demo", origin.path)
    return folder


async def test_a_goal_file_in_the_watched_folder_becomes_merged_and_verified_work(
    fleet: Fleet, origin: Origin, tmp_path: Path
):
    folder = await watched(fleet, tmp_path, origin)
    name = await drop(fleet, folder, "words.md", goal_text("alpha", "beta"))
    await fleet.until_events("goal.succeeded", subject=name)
    goal = await goal_of(fleet, name)
    assert goal.state == goal_pb2.Goal.STATE_SUCCEEDED
    assert (goal.task_counts.total, goal.task_counts.succeeded) == (2, 2)
    assert goal.assertions[0].receipt.verdict == 1, "its assertion was run on the merged main"
    assert goal.assertions[0].receipt.head_sha == origin.sha()
    assert origin.read("words.txt") == "alpha\nbeta"
    assert list(origin.refs("refs/heads/")) == ["refs/heads/main"]
    assert sorted(file.name for file in folder.iterdir()) == ["refused", "taken"]


async def test_a_goal_file_that_is_no_good_is_put_aside_with_the_reason_and_nothing_is_filed(
    fleet: Fleet, origin: Origin, tmp_path: Path
):
    folder = await watched(fleet, tmp_path, origin)
    (folder / "circle.md").write_text(goal_text("a", "b").replace("depends_on: [T1]", "depends_on: [T2]"))
    (folder / "bytes.yaml").write_bytes(b"title: \xff\xfe\n")
    circle = await appears(folder / "refused" / "circle.md.reason.txt")
    garbled = await appears(folder / "refused" / "bytes.yaml.reason.txt")
    assert "line 18" in circle.read_text() and "T2" in circle.read_text()
    assert "UTF-8" in garbled.read_text()
    assert not (await fleet.goals.ListGoals(goal_service_pb2.ListGoalsRequest())).goals


async def test_the_conflicting_changes_of_two_goals_are_both_merged_after_one_was_reworked(
    fleet: Fleet, origin: Origin, tmp_path: Path
):
    folder = await watched(fleet, tmp_path, origin)
    meet = (
        f"touch {tmp_path}/began.$AGENTCOM_TASK; while test $(ls {tmp_path} | grep -c began) -lt 2; do sleep 0.05; done"
    )
    names = [
        await drop(
            fleet, folder, f"{word}.md", goal_text(word, f"{word}-too", command=f"echo {word} >> words.txt; {meet}")
        )
        for word in ("left", "right")
    ]
    for name in names:
        await fleet.until_events("goal.succeeded", subject=name)
    assert sorted(origin.read("words.txt").splitlines()) == ["left", "left-too", "right", "right-too"]
    returned = history.of(await fleet.history(), "change.returned")
    assert returned and {event.fields["reason"] for event in returned} == {"MERGE_CONFLICT"}
    request = goal_service_pb2.ListChangesRequest(filter="state = RETURNED")
    back = (await fleet.goals.ListChanges(request)).changes
    assert len(back) == len(returned)
    assert all(change.state == change_pb2.Change.STATE_RETURNED for change in back)
    assert all("words.txt" in change.failure.evidence + change.failure.message for change in back)
    started = {
        event.subject: event.fields["generation"] for event in history.of(await fleet.history(), "task.assigned")
    }
    assert all(int(started[change.task]) >= 2 for change in back)


async def test_a_goal_whose_task_is_given_up_fails_with_the_reason(fleet: Fleet, origin: Origin, tmp_path: Path):
    folder = await watched(fleet, tmp_path, origin)
    text = goal_text("alpha", "beta", command="exit 7").replace(
        "      title: the first", "      attempts_max: 1\n      title: the first"
    )
    name = await drop(fleet, folder, "sad.md", text)
    (failed,) = await fleet.until_events("goal.failed", subject=name)
    goal = await goal_of(fleet, name)
    assert "T1" in goal.state_reason, (goal.state_reason, failed)
    assert goal.task_counts.failed == 2, "what depends on it ends with it"
    assert origin.files() == ["README.md"]


async def test_a_cancelled_goal_stops_what_runs_and_merges_nothing(fleet: Fleet, origin: Origin, tmp_path: Path):
    folder = await watched(fleet, tmp_path, origin)
    began = tmp_path / "began"
    name = await drop(fleet, folder, "long.md", goal_text("alpha", "beta", command=f"echo $$ > {began}; sleep 600"))
    pid = (await appears(began)).read_text().strip()
    await until(lambda: began.read_text().strip(), "the task runs")
    await fleet.goals.CancelGoal(goal_service_pb2.CancelGoalRequest(name=name, reason="not now"))
    await until(lambda: not Path(f"/proc/{pid or began.read_text().strip()}").exists(), "what ran is stopped")
    goal = await goal_of(fleet, name)
    assert (goal.state, goal.state_reason) == (goal_pb2.Goal.STATE_CANCELLED, "not now")
    (free,) = await fleet.submit(spec("the agents are free"))
    await fleet.until_tasks([free])
    assert origin.files() == ["README.md"]
