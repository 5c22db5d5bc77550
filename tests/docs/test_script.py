"""The rules of the pages: what is typed, where, with what in place of the placeholders, and what must come of it."""

from __future__ import annotations

import pytest

from tests.docs import markdown, names, play, script, terminal

TASKS = """
filed tasks/06gzxpyjqp8wc1gfp9kd
TASK                  STATE
06gzxprf50k8ysnt21h4  succeeded
06gzxprd0zcmth3cwbk8  dead

done
06gzxprd0zcmth3cwbka  is of no kind
"""


def page(tmp_path, text: str) -> markdown.Page:
    file = tmp_path / "page.md"
    file.write_text(text)
    return markdown.read(file)


def steps(tmp_path, text: str) -> list[script.Step]:
    return script.steps(page(tmp_path, text))


def test_commands_are_taken_in_order_with_their_shell_and_exit_code(tmp_path):
    made = steps(
        tmp_path,
        "```sh\ncd here   # just so\n```\n\n```sh\n# In another terminal\nagentcom hub verify   # exit code 2\n```\n",
    )
    assert [(one.where, script.words_of(one.command), one.code) for one in made] == [
        ("", "cd here", 0),
        ("In another terminal", "agentcom hub verify", 2),
    ]


def test_continued_lines_documents_quotes_and_loops_are_one_command(tmp_path):
    text = "```sh\na \\\n  b\ncat > f <<'END'\nx\ny\nEND\necho '{\n}' >&3\nfor one in 1 2; do\n  c $one\ndone\nd\n```\n"
    assert [one.command.split()[0] for one in steps(tmp_path, text)] == ["a", "cat", "echo", "for", "d"]


def test_the_text_right_behind_is_what_the_last_command_prints(tmp_path):
    made = steps(
        tmp_path, "```sh\na\nb\n```\n\n```text\none ... two\n...\n```\n\n```sh\nc\n```\n\nSo:\n\n```text\nno\n```\n"
    )
    assert [one.expected for one in made] == [None, ("one ... two",), None]


def test_what_runs_until_ctrl_c_and_ctrl_c_itself_are_seen(tmp_path):
    made = steps(tmp_path, "```sh\nhub   # runs until Ctrl-C\n```\n\n```sh\n# Ctrl-C\nls\n```\n")
    assert [one.forever for one in made] == [True, False, False]
    assert made[1].command == script.INTERRUPT


def test_a_placeholder_is_the_id_of_its_kind_that_was_printed_last():
    assert (
        script.fill("agentcom task show TASK # of TASK", TASKS) == "agentcom task show 06gzxprd0zcmth3cwbk8 # of TASK"
    )
    assert script.fill('{"name": "tasks/TASK"}', TASKS) == '{"name": "tasks/06gzxprd0zcmth3cwbk8"}'
    assert script.fill("TASK", f"{TASKS}filed tasks/{'0' * 20}\n") == "0" * 20
    assert script.fill("X=$TASK MY_TASK=1 TASKS", TASKS) == "X=$TASK MY_TASK=1 TASKS"
    with pytest.raises(LookupError, match="GOAL"):
        script.fill("agentcom goal show GOAL", TASKS)


def test_expected_lines_come_in_order_with_dots_for_anything_and_any_spaces():
    assert script.missing(["a  b", "c ... e"], "a b\nx\nc  d  e\n") == ""
    assert script.missing(["c ... e", "a b"], "a b\nc d e\n") == "a b"
    assert script.missing(["a"], "ab\n") == "a"


def test_indented_blocks_unknown_languages_and_open_blocks_are_found(tmp_path):
    assert list(page(tmp_path, "Text\n\n    agentcom up\n").indented()) == [3]
    assert list(page(tmp_path, "- one\n\n    more of it\n").indented()) == []
    with pytest.raises(AssertionError, match="must say one of"):
        page(tmp_path, "```\nx\n```\n")
    with pytest.raises(AssertionError, match="no end"):
        page(tmp_path, "```sh\nx\n")


def test_headings_become_anchors_as_the_forges_make_them(tmp_path):
    anchors = page(tmp_path, "# Who's `who`?\n\n## A, b\n\n## A, b\n").anchors()
    assert anchors == {"whos-who", "a-b", "a-b-1"}


@pytest.mark.parametrize(
    "command",
    [
        "agentcom task show TASK --no-such-option",
        "agentcom tusk show",
        "agentcom agent get NAME",
        "cd x && agentcom hub backup --now",
        "agentcom-hub restore BACKUP --dta here",
        "agentcom-sidecar git begin TASK",
        "python -m dashboard --hob here",
    ],
)
def test_commands_and_options_that_our_programs_do_not_know_are_found(command):
    assert list(names.faults_of(command))


@pytest.mark.parametrize(
    "command",
    [
        "agentcom goal submit FILE --wait && git -C hello pull",
        "AGENTCOM_TOKEN=x agentcom --output json task list --state dead",
        "agentcom git start-task TASK --state-dir here",
        "agentcom-hub restore BACKUP --data here --force",
        "agentcom hub",
        "python -m sidecar --config file",
    ],
)
def test_commands_that_our_programs_know_are_let_be(command):
    assert list(names.faults_of(command)) == []


@pytest.fixture
def shell(tmp_path):
    made = terminal.Terminal("a shell's own", tmp_path, {"PATH": "/usr/bin:/bin"}, tmp_path)
    yield made
    made.close()


def test_a_shell_keeps_its_folder_and_variables_and_tells_the_exit_code(shell, tmp_path):
    (tmp_path / "inner").mkdir()
    assert shell.type("cd inner && X=1") == (0, "")
    assert shell.type("pwd; echo $X; (exit 3)") == (3, f"{tmp_path / 'inner'}\n1\n")


def test_what_runs_on_ends_with_ctrl_c_and_an_early_end_is_told(shell):
    running = shell.start("echo ready; exec sleep 1000")
    running.until(lambda said: "ready" in said, "ready")
    assert running.is_running
    shell.interrupt()
    assert not running.is_running
    ended = shell.start("echo no; exit 7")
    with pytest.raises(terminal.Failed, match="ended with 7"):
        ended.until(lambda said: "ready" in said, "ready")


def test_a_page_that_promises_what_does_not_happen_fails_where_it_does(tmp_path):
    wrong = tmp_path / "wrong.md"
    for text, said in (
        ("```sh\ntrue\nfalse\n```\n", "wrong.md:3: false"),
        ("```sh\necho one\n```\n\n```text\ntwo\n```\n", "does not print"),
        ("```sh\nagentcom task show TASK\n```\n", "has an id for TASK"),
    ):
        wrong.write_text(text)
        folder = tmp_path / str(len(said))
        player = play.Player(markdown.Page(wrong, markdown.read(wrong).blocks, ()), folder, show=False)
        with pytest.raises(terminal.Failed, match=said):
            player.play()
