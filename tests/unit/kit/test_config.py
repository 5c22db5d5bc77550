"""A configuration is right, or refused in one line that names the place, the key and the limit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kit import config, errors
from kit.config import setting


@dataclass(frozen=True)
class Store:
    path: Path = setting(Path("store"))
    map_bytes: int = setting(1 << 30, low=1 << 20, high=1 << 40)


@dataclass(frozen=True)
class Profile:
    name: str = setting()
    command: tuple[str, ...] = setting(())


@dataclass(frozen=True)
class Node:
    name: str = setting(low=1, high=10)
    listen: str = setting("127.0.0.1:7070")
    token: str | None = setting(None, secret=True, high=50)
    level: str = setting("info", choices=("info", "debug"))
    lease_s: float = setting(60.0, low=1, high=3600)
    shell: bool = setting(True)
    offers: tuple[str, ...] = setting((), high=3)
    labels: dict[str, str] = setting(dict)
    profiles: tuple[Profile, ...] = setting(())
    store: Store = field(default_factory=Store)


GOOD = """
name = "one"
lease_s = 5
offers = ["git", "python"]
labels = {os = "linux"}
[store]
path = "/var/lib/x"
[[profiles]]
name = "p"
command = ["run", "it"]
"""


def load(tmp_path, text, **more):
    file = tmp_path / "node.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(Node, file=file, prefix="AGENTCOM_NODE", **more)


def test_a_file_becomes_a_frozen_value_with_defaults(tmp_path):
    node = load(tmp_path, GOOD)
    assert node == Node(
        name="one",
        lease_s=5.0,
        offers=("git", "python"),
        labels={"os": "linux"},
        profiles=(Profile("p", ("run", "it")),),
        store=Store(path=Path("/var/lib/x")),
    )
    assert isinstance(node.lease_s, float)
    with pytest.raises(dataclasses.FrozenInstanceError):
        node.name = "two"


def test_the_environment_beats_the_file_and_the_command_line_beats_both(tmp_path):
    environment = {
        "AGENTCOM_NODE_NAME": "env",
        "AGENTCOM_NODE_STORE_MAP_BYTES": "2097152",
        "AGENTCOM_NODE_SHELL": "no",
        "AGENTCOM_NODE_OFFERS": "a, b",
        "AGENTCOM_NODE_LEASE_S": "7",
        "AGENTCOM_NODE_TOKEN": "",
        "AGENTCOM_HUB_NAME": "somebody else's",
        "PATH": "/bin",
    }
    overrides = {"lease_s": 8.0, "listen": None, "store.path": "here"}
    node = load(tmp_path, GOOD, environment=environment, overrides=overrides)
    assert (node.name, node.store.map_bytes, node.shell, node.offers) == ("env", 2097152, False, ("a", "b"))
    assert (node.lease_s, node.listen, node.store.path, node.token) == (8.0, "127.0.0.1:7070", Path("here"), None)


REFUSED = [
    ('nmae = "one"', "node.toml: nmae is not known, did you mean name?"),
    ('name = "one"\n[store]\npaht = "x"', "node.toml: store.paht is not known, did you mean store.path?"),
    ('name = "one"\nstore = "x"', "node.toml: store is not known"),
    ("", "node.toml: name is required"),
    ("name = 1", "node.toml: name is 1, must be text"),
    ('name = ""', "node.toml: name is '', must be at least 1 long"),
    ('name = "12345678901"', "node.toml: name is '12345678901', must be at most 10 long"),
    ('name = "a"\nlease_s = 0.5', "node.toml: lease_s is 0.5, must be at least 1"),
    ('name = "a"\nlease_s = nan', "node.toml: lease_s is nan, must be a number"),
    ('name = "a"\nlease_s = true', "node.toml: lease_s is True, must be a number"),
    ('name = "a"\nshell = 1', "node.toml: shell is 1, must be true or false"),
    ('name = "a"\nlevel = "loud"', "node.toml: level is 'loud', must be one of info, debug"),
    ('name = "a"\noffers = "git"', "node.toml: offers is 'git', must be a list"),
    ('name = "a"\noffers = [1]', "node.toml: offers[0] is 1, must be text"),
    ('name = "a"\noffers = ["a","b","c","d"]', "offers is ['a', 'b', 'c', 'd'], must be at most 3 entries"),
    ('name = "a"\nlabels = 1', "node.toml: labels is 1, must be a table"),
    ('name = "a"\nlabels = {a = 1}', "node.toml: labels.a is 1, must be text"),
    ('name = "a"\n[store]\nmap_bytes = 1', "node.toml: store.map_bytes is 1, must be at least 1048576"),
    ('name = "a"\n[store]\nmap_bytes = 1.5', "node.toml: store.map_bytes is 1.5, must be a whole number"),
    ('name = "a"\n[store]\npath = ""', "node.toml: store.path is '', must be a path"),
    ('name = "a"\n[[profiles]]\ncomand = []', "node.toml: profiles[0].comand is not known, did you mean command?"),
    ('name = "a"\n[[profiles]]\ncommand = []', "node.toml: profiles[0].name is required"),
    ('name = "a"\nprofiles = [1]', "node.toml: profiles[0] is 1, must be a table"),
    ("name = ", "node.toml: the file is not TOML: "),
]


@pytest.mark.parametrize(("text", "line"), REFUSED, ids=[line for _, line in REFUSED])
def test_what_is_wrong_is_told_in_one_line(tmp_path, text, line):
    with pytest.raises(errors.Invalid) as refused:
        load(tmp_path, text)
    message = str(refused.value)
    assert line in message
    assert "\n" not in message
    assert refused.value.violations[0].field in message


def test_the_value_of_a_secret_is_never_shown(tmp_path):
    with pytest.raises(errors.Invalid) as refused:
        load(tmp_path, f'name = "a"\ntoken = "{"hunter2" * 10}"')
    assert "hunter2" not in str(refused.value)
    assert str(refused.value) == "node.toml: token has a value that must be at most 50 long"
    assert "hunter2" not in repr(Node(name="a", token="hunter2"))


@pytest.mark.parametrize(
    ("variable", "text", "line"),
    [
        ("AGENTCOM_NODE_LEASE", "1", "the environment: AGENTCOM_NODE_LEASE is not known, did you mean"),
        ("AGENTCOM_NODE_LEASE_S", "soon", "the environment (AGENTCOM_NODE_LEASE_S): lease_s is 'soon', must be a numb"),
        ("AGENTCOM_NODE_SHELL", "maybe", "the environment (AGENTCOM_NODE_SHELL): shell is 'maybe', must be true or"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path, variable, text, line):
    with pytest.raises(errors.Invalid) as refused:
        load(tmp_path, GOOD, environment={variable: text})
    assert str(refused.value).startswith(line)


def test_a_wrong_override_is_told_as_such(tmp_path):
    with pytest.raises(errors.Invalid, match=r"^the command line: lease_s is 0, must be at least 1"):
        load(tmp_path, GOOD, overrides={"lease_s": 0})


def test_a_file_that_is_not_there_not_text_or_too_large_is_refused(tmp_path):
    with pytest.raises(errors.Invalid, match="cannot be read: No such file"):
        config.load(Node, file=tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"name = '\xff'")
    with pytest.raises(errors.Invalid, match="not UTF-8 at byte 8"):
        config.load(Node, file=binary)
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (config.FILE_BYTES_MAX + 1))
    with pytest.raises(errors.Invalid, match="larger than"):
        config.load(Node, file=large)


def test_a_rule_over_several_keys_is_told_like_the_others(tmp_path):
    @dataclass(frozen=True)
    class Pair:
        low: int = 1
        high: int = 2

        def __post_init__(self):
            if self.low > self.high:
                raise errors.Invalid("low must not be above high")

    file = tmp_path / "pair.toml"
    file.write_text("low = 3")
    with pytest.raises(errors.Invalid, match=r"^pair.toml: low must not be above high$"):
        config.load(Pair, file=file)
