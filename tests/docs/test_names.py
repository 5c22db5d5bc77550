"""What the documentation names is there: commands, options, settings, RPCs, files, targets, pages and anchors."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest

from tests.docs import exceptions, markdown, names, script

ALL = {str(path.relative_to(markdown.ROOT)): path for path in markdown.pages()}
#: Folders of the repository; what begins with one of them in inline code is a path.
ROOMS = (
    "docs/", "deploy/", "tests/", "hub/", "sidecar/", "kit/", "cli/", "dashboard/", "protos/", "tools/", "gen/", ".ci/",
)  # fmt: skip
_DOTTED = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_SECTION = re.compile(r"\[([a-z_]+(?:\.[a-z_]+)*)\]")
_VARIABLE = re.compile(r"\bAGENTCOM_[A-Z0-9_]+\b")
_CAMEL = re.compile(r"([A-Z][a-z]+(?:[A-Z][a-z]+)+)(?:\.([a-z_]+))?")
_RPC = re.compile(r"agentcom\.v1\.(\w+/\w+)")
_MAKE = re.compile(r"make ([a-z][a-z0-9-]*)")
#: Variables that no node's configuration has: those of the CLI, and what a task's command finds in its environment.
VARIABLES = frozenset(
    f"AGENTCOM_{name}"
    for name in (
        "HUB_ADDRESS", "TOKEN", "TOKEN_FILE", "CA_FILE", "CERTIFICATE_FILE", "KEY_FILE", "OUTPUT", "TASK", "GOAL",
        "AGENT", "GENERATION", "ATTEMPT", "RUN_ID", "SEED", "HUB", "SIDECAR", "DASHBOARD", "PYTHON", "CACHE_DIR",
    )
)  # fmt: skip


def test_the_first_two_commands_that_a_stranger_meets_are_the_demo_and_the_tests():
    steps = script.steps(markdown.read(ALL["README.md"]))
    assert [step.command for step in steps[:2]] == ["make demo", "make test"]


@pytest.fixture(params=ALL)
def page(request: pytest.FixtureRequest) -> markdown.Page:
    return markdown.read(ALL[request.param])


def test_blocks_say_their_language_and_none_is_indented(page):
    assert list(page.indented()) == [], "use ```sh, ```text, ...: see docs/style.md, Pages"


def test_our_programs_know_every_command_and_option(page):
    assert list(_faults_of_commands(page)) == []


def _faults_of_commands(page: markdown.Page) -> Iterator[str]:
    said = [(step.line, step.command) for step in script.steps(page)]
    for line, text in [*said, *page.inline()]:
        for fault in names.faults_of(text):
            yield f"{page.name}:{line}: {fault}"


def test_every_setting_that_is_named_exists(page):
    assert list(_faults_of_settings(page)) == []


def _faults_of_settings(page: markdown.Page) -> Iterator[str]:
    if page.is_generated:
        return
    tops = {section.partition(".")[0] for section in names.sections()}
    for line, text in page.inline():
        key = text.partition(" = ")[0]
        if section := _SECTION.fullmatch(text):
            if section[1] not in names.sections() | tops:
                yield f"{page.name}:{line}: there is no section {text}"
        elif (
            _DOTTED.fullmatch(key)
            and key.partition(".")[0] in tops
            and key not in names.setting_keys() | names.sections() | exceptions.NOT_SETTINGS | names.event_types()
            and not key.endswith((".py", ".md", ".toml", ".json"))
        ):
            yield f"{page.name}:{line}: there is no setting {key}"
    for block in page.blocks:
        if block.language == "toml":
            yield from (f"{page.name}:{block.line}: there is no setting {key}" for key in _strangers(block.text))


def _strangers(text: str) -> Iterator[str]:
    """Keys of a TOML text that no node has; tables whose keys are the user's own are let be."""

    def walk(table: dict[str, object], prefix: str) -> Iterator[str]:
        for key, value in table.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict) and name not in names.setting_keys():
                yield from walk(value, f"{name}.")
            elif name not in names.setting_keys():
                yield name

    yield from walk(tomllib.loads(text), "")


def test_every_variable_that_is_named_is_read_by_a_node(page):
    texts = [*page.inline(), *((block.line, block.text) for block in page.blocks)]
    for line, text in texts:
        for name in _VARIABLE.findall(text):
            known = name in VARIABLES | names.variables() or name.endswith("_")
            assert known, f"{page.name}:{line}: no node reads {name}"


def test_every_rpc_message_and_field_that_is_named_is_in_the_contract(page):
    assert list(_faults_of_contract(page)) == []


def _faults_of_contract(page: markdown.Page) -> Iterator[str]:
    texts = [*page.inline(), *((block.line, block.text) for block in page.blocks if block.language == "sh")]
    for line, text in texts:
        for rpc in _RPC.findall(text):
            if rpc not in names.rpcs():
                yield f"{page.name}:{line}: there is no {rpc}"
    for line, text in page.inline():
        named = _CAMEL.fullmatch(text)
        if named is None or named[1] in exceptions.NOT_CONTRACT:
            continue
        if named[1] not in names.of_the_contract():
            yield f"{page.name}:{line}: the contract has no {named[1]}"
        elif (
            named[2] and named[2] not in names.fields_of_the_contract() and f"{named[1]}/{named[2]}" not in names.rpcs()
        ):
            yield f"{page.name}:{line}: the contract has no field {named[2]}"


def test_every_link_leads_somewhere(page):
    assert list(_faults_of_links(page)) == []


def _faults_of_links(page: markdown.Page) -> Iterator[str]:
    for line, target in page.links():
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.path.parent / path).resolve() if path else page.path
        if not there.exists():
            yield f"{page.name}:{line}: {target} is not there"
        elif anchor and there.suffix == ".md" and anchor not in markdown.read(there).anchors():
            yield f"{page.name}:{line}: {target} has no such heading"


def test_every_file_and_target_that_is_named_exists(page):
    assert list(_faults_of_paths(page)) == []


def _faults_of_paths(page: markdown.Page) -> Iterator[str]:
    texts = [*page.inline(), *((block.line, block.text) for block in page.blocks if block.language == "sh")]
    for line, text in texts:
        if text.startswith(ROOMS) and re.fullmatch(r"[\w./@*-]+", text) and text not in exceptions.NOT_PATHS:
            path = text.rstrip("/.")
            if not list(markdown.ROOT.glob(path)):
                yield f"{page.name}:{line}: there is no {text}"
        for target in _MAKE.findall(text) if text.startswith("make ") or "\nmake " in text else ():
            if target not in names.targets() and text.startswith("make "):
                yield f"{page.name}:{line}: there is no target {target}"


def test_every_page_is_found_from_the_table_of_pages():
    listed = {target for _, target in markdown.read(ALL["docs/README.md"]).links()}
    missing = [name for name in ALL if name.startswith("docs/") and name.removeprefix("docs/") not in listed]
    assert missing in ([], ["docs/README.md"])


@pytest.mark.parametrize(
    ("text", "faults", "said"),
    [
        ("See [it](no-such-page.md).", _faults_of_links, "is not there"),
        ("See [it](cli.md#no-such-heading).", _faults_of_links, "no such heading"),
        ("Set `backup.evry_s`.", _faults_of_settings, "no setting backup.evry_s"),
        ("In `[bakup]`.", _faults_of_settings, "no section"),
        ('```toml\n[server]\nlisten_to = "x"\n```', _faults_of_settings, "no setting server.listen_to"),
        ("Call `GetHubs`.", _faults_of_contract, "has no GetHubs"),
        ("Its `GetHub.no_such_field`.", _faults_of_contract, "no field no_such_field"),
        ("```sh\ngrpcurl HUB agentcom.v1.HubService/GetHubs\n```", _faults_of_contract, "no HubService/GetHubs"),
        ("In `hub/no_such_file.py`.", _faults_of_paths, "no hub/no_such_file.py"),
        ("Run `make everything`.", _faults_of_paths, "no target everything"),
        ("Type `agentcom tusk list`.", _faults_of_commands, "no command tusk"),
    ],
)
def test_a_name_that_stands_for_nothing_is_found(tmp_path, text, faults, said):
    (tmp_path / "cli.md").write_text("# The command line\n")
    file = tmp_path / "page.md"
    file.write_text(f"{text}\n")
    assert said in "".join(faults(markdown.read(file)))


def test_a_variable_that_nobody_reads_is_found(tmp_path):
    file = tmp_path / "page.md"
    file.write_text("Set `AGENTCOM_HUB_LISTENS`.\n")
    with pytest.raises(AssertionError, match="no node reads AGENTCOM_HUB_LISTENS"):
        test_every_variable_that_is_named_is_read_by_a_node(markdown.read(file))
