"""The watched folder with real files: what is taken, what is refused and why, and that nothing is filed twice."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from hub.core.goal import Goal, State
from hub.core.repo import Repo
from hub.engine.desk import filing, intake
from hub.engine.live import context
from hub.rpc import translate_goal
from hub.store.memory import MemoryStore
from kit import clock, errors, goalfile

GOOD = """\
title: Add a greeting
repo: app
assertions:
  - id: A1
    text: it greets
    run: sh greet.sh
tasks:
  - id: T1
    title: write it
    command: echo 'echo hello' > greet.sh
    fulfills: [A1]
    checks: [sh greet.sh]
"""
CYCLE = GOOD.replace("fulfills: [A1]", "fulfills: [A1]\n    depends_on: [T2]") + (
    "  - id: T2\n    title: and\n    command: x\n    depends_on: [T1]\n    checks: [x]\n"
)


def read(data: bytes, name: str) -> filing.Draft:
    parsed = goalfile.read(data, name)
    return translate_goal.read_goal(parsed.goal)._replace(locate=parsed.locate)


class Desk:
    """An intake over a folder, a memory store and a clock by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = clock.ManualClock(now=1000.0)
        self.store = MemoryStore.open()
        self.ctx = context.Context.make(self.store, self.clock, random.Random(1))
        self.intake = self.fresh()
        intake.prepare(folder)

    def fresh(self, reader: intake.Read = read) -> intake.Intake:
        return intake.Intake(self.ctx, filing.Filing(self.ctx), self.folder, reader)

    async def start(self) -> Desk:
        await self.store.write(lambda txn: txn.repos.put(Repo(id="app", url="/srv/app.git")))
        return self

    def drop(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    async def look(self, times: int = 1) -> int:
        return sum([await self.intake.run_once(self.clock.now()) for _ in range(times)])

    def goals(self) -> list[Goal]:
        return self.store.read(lambda reader: reader.goals.page(limit=100))

    def names(self, room: str) -> set[str]:
        return {entry.name for entry in (self.folder / room).iterdir()}

    def reason(self, name: str) -> str:
        return (self.folder / "refused" / f"{name}.reason.txt").read_text()


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    return await Desk(tmp_path / "goals").start()


async def test_a_goal_file_is_filed_and_moved_with_the_goals_name_beside_it(desk: Desk) -> None:
    desk.drop("greet.yaml", GOOD)
    assert await desk.look(2) == 1
    (goal,) = desk.goals()
    assert (goal.title, goal.state) == ("Add a greeting", State.ACTIVE)
    assert desk.names("taken") == {"greet.yaml", "greet.yaml.goal.txt"}
    assert (desk.folder / "taken" / "greet.yaml.goal.txt").read_text() == f"goals/{goal.id}\n"
    assert not (desk.folder / "greet.yaml").exists()


async def test_a_markdown_file_with_front_matter_is_taken(desk: Desk) -> None:
    desk.drop("greet.md", f"---\n{GOOD}---\nPlease greet.\n")
    assert await desk.look(2) == 1
    assert desk.goals()[0].description == "Please greet."


async def test_a_file_is_left_alone_while_it_is_being_written(desk: Desk) -> None:
    path = desk.drop("greet.yaml", GOOD[:40])
    assert await desk.look() == 0
    path.write_text(GOOD[:80])
    assert await desk.look() == 0
    path.write_text(GOOD)
    assert await desk.look() == 0
    assert desk.goals() == []
    assert await desk.look() == 1
    assert len(desk.goals()) == 1


async def test_other_files_hidden_files_and_the_rooms_are_not_touched(desk: Desk) -> None:
    for name in ("notes.txt", ".greet.yaml", "greet.yaml.part"):
        desk.drop(name, GOOD)
    assert await desk.look(3) == 0
    assert {entry.name for entry in desk.folder.iterdir()} == {
        "notes.txt",
        ".greet.yaml",
        "greet.yaml.part",
        "taken",
        "refused",
    }


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("latin.yaml", b"title: caf\xe9\n", "line 1"),
        ("broken.yaml", "title: [\n", "line"),
        ("text.md", "no front matter\n", "line 1"),
        ("empty.yaml", "", "line"),
        ("cycle.yaml", CYCLE, "tasks[0].depends_on[0]: line 12: these wait for each other in a circle: T1 -> T2 -> T1"),
        ("unknown.yaml", GOOD.replace("repo: app", "repo: other"), "there is no repos/other"),
        (
            "bare.yaml",
            GOOD.replace("    fulfills: [A1]\n", ""),
            "assertions[0]: line 4: no task fulfils assertion 'A1'",
        ),
        ("large.yaml", "#" * (intake.FILE_BYTES_MAX + 1), f"more than {intake.FILE_BYTES_MAX} bytes"),
        ("key.yaml", GOOD + "colour: red\n", "colour"),
    ],
)
async def test_a_file_that_is_no_good_is_refused_with_the_reason_beside_it(
    desk: Desk, name: str, content: str | bytes, said: str
) -> None:
    desk.drop(name, content)
    before = desk.goals()
    assert await desk.look(2) == 1
    assert desk.goals() == before
    assert desk.store.read(lambda reader: reader.tasks(limit=10)) == []
    assert said in desk.reason(name)
    assert desk.names("refused") == {name, f"{name}.reason.txt"}
    told = desk.store.read(lambda reader: reader.events(after=0, limit=100))[-1]
    assert (told.type, told.fields["file"]) == ("intake.refused", name)


async def test_a_link_a_folder_and_a_pipe_are_refused_unread(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(GOOD)
    (desk.folder / "link.yaml").symlink_to(tmp_path / "secret")
    (desk.folder / "folder.md").mkdir()
    os.mkfifo(desk.folder / "pipe.yml")
    assert await desk.look(2) == 3
    assert desk.goals() == []
    for name in ("link.yaml", "folder.md", "pipe.yml"):
        assert "regular file" in desk.reason(name)
    assert (desk.folder / "refused" / "link.yaml").is_symlink()
    assert (tmp_path / "secret").read_text() == GOOD


async def test_a_file_name_that_is_no_text_is_taken_too(desk: Desk) -> None:
    name = os.fsdecode(b"caf\xe9.yaml")
    desk.drop(name, GOOD)
    assert await desk.look(2) == 1
    assert name in desk.names("taken")


async def test_a_crash_between_filing_and_moving_files_nothing_twice(desk: Desk, monkeypatch) -> None:
    desk.drop("greet.yaml", GOOD)
    await desk.look()
    with monkeypatch.context() as broken:

        def crash(*_args: object) -> None:
            raise OSError("the power went")

        broken.setattr(os, "replace", crash)
        with pytest.raises(OSError, match="power"):
            await desk.look()
    assert len(desk.goals()) == 1
    desk.intake = desk.fresh()
    assert await desk.look(2) == 1
    (goal,) = desk.goals()
    assert (desk.folder / "taken" / "greet.yaml.goal.txt").read_text() == f"goals/{goal.id}\n"
    assert desk.names("taken") == {"greet.yaml", "greet.yaml.goal.txt"}


async def test_the_same_text_dropped_again_is_the_same_goal_within_the_window(desk: Desk) -> None:
    for name in ("one.yaml", "two.yaml"):
        desk.drop(name, GOOD)
    assert await desk.look(2) == 2
    assert len(desk.goals()) == 1
    desk.clock.advance(desk.ctx.settings.request_window_s + 1)
    desk.drop("three.yaml", GOOD)
    assert await desk.look(2) == 1
    assert len(desk.goals()) == 2


async def test_files_of_one_name_are_kept_beside_each_other(desk: Desk) -> None:
    for number in range(3):
        desk.drop("greet.yaml", GOOD.replace("greeting", f"greeting {number}"))
        assert await desk.look(2) == 1
    assert {name for name in desk.names("taken") if not name.endswith(".txt")} == {
        "greet.yaml",
        "greet.2.yaml",
        "greet.3.yaml",
    }
    assert len(desk.goals()) == 3


async def test_a_hub_that_takes_nothing_now_leaves_the_file_for_later(desk: Desk) -> None:
    desk.drop("greet.yaml", GOOD)
    desk.ctx.gate.draining = True
    assert await desk.look(3) == 0
    assert (desk.folder / "greet.yaml").exists()
    desk.ctx.gate.draining = False
    assert await desk.look() == 1


async def test_a_file_that_changed_while_it_was_filed_stays_and_is_read_again(desk: Desk) -> None:
    path = desk.drop("greet.yaml", GOOD)

    def slow(data: bytes, name: str) -> filing.Draft:
        path.write_text(GOOD.replace("greeting", "longer greeting"))
        return read(data, name)

    desk.intake = desk.fresh(slow)
    await desk.look(2)
    assert path.exists()
    desk.intake = desk.fresh()
    await desk.look(2)
    assert [goal.title for goal in desk.goals()] == ["Add a greeting", "Add a longer greeting"]


async def test_a_run_takes_no_more_files_than_its_bound(desk: Desk) -> None:
    for number in range(intake.TAKE_MAX + 5):
        desk.drop(f"{number:03}.yaml", GOOD.replace("greeting", f"greeting {number}"))
    assert await desk.look(2) == intake.TAKE_MAX
    assert await desk.look() == 5


async def test_warnings_of_the_linter_stand_beside_a_taken_file(desk: Desk) -> None:
    desk.drop("greet.yaml", GOOD.replace("checks: [sh greet.sh]", "checks: ['true']"))
    await desk.look(2)
    assert "CHECK_CANNOT_FAIL" in (desk.folder / "taken" / "greet.yaml.goal.txt").read_text()


async def test_a_bug_in_the_reader_reaches_the_supervisor_and_the_file_stays(desk: Desk) -> None:
    desk.drop("greet.yaml", GOOD)

    def broken(_data: bytes, _name: str) -> filing.Draft:
        raise ZeroDivisionError

    desk.intake = desk.fresh(broken)
    with pytest.raises(ZeroDivisionError):
        await desk.look(2)
    assert (desk.folder / "greet.yaml").exists()


def test_a_folder_that_is_a_file_is_refused_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "goals"
    file.write_text("no folder")
    with pytest.raises(errors.Invalid, match=f"intake.folder: {file} cannot be used: Not a directory"):
        intake.prepare(file)
