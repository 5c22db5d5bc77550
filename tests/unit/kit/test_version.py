"""Which versions work together, and what is said when they do not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import errors, version
from kit.version import Node, Skew

ROOT = Path(__file__).resolve().parent.parent.parent.parent
numbers = st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 9)).filter(lambda n: n[:2] != (0, 0))


def text(number: tuple[int, int, int]) -> str:
    return ".".join(map(str, number))


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("0.2.0", (0, 2, 0)),
        ("1.10.3", (1, 10, 3)),
        ("0.2.0rc1", (0, 2, 0)),
        ("0.2.0+g1234", (0, 2, 0)),
        ("0.2", None),
        ("0.2.0.1", None),
        ("0.02.0", None),
        ("", None),
        ("0", None),
        ("0.0.0+unpackaged", None),
        ("v0.2.0", None),
        ("scripted", None),
        ("9" * 1_000_000, None),
        ("0.999999.0", None),
        ("٠.٢.٠", None),
    ],
)
def test_a_version_is_read_or_is_none(given, number):
    assert version.parse(given) == number


@given(numbers, numbers)
def test_only_minors_side_by_side_work_together_and_it_does_not_matter_who_asks(one, other):
    how = version.skew(text(one), text(other))
    assert how is version.skew(text(other), text(one))
    if one[:2] == other[:2]:
        assert how is Skew.NONE
    else:
        assert (how is Skew.NEAR) == (one[0] == other[0] and abs(one[1] - other[1]) == 1)


@given(numbers, numbers)
def test_what_is_said_names_both_and_asks_to_upgrade_the_older_one(one, other):
    hub, peer = Node("hub", text(one)), Node("sidecar", text(other))
    said, how = version.warning(hub, peer), version.skew(hub.version, peer.version)
    assert bool(said) == (how is not Skew.NONE)
    if said:
        assert f"hub {hub.version}" in said and f"sidecar {peer.version}" in said
        assert ("upgrade the hub" in said) == (one < other)
        assert ("upgrade the sidecar" in said) == (one > other)


@pytest.mark.parametrize("unknown", ["", "scripted", "0.0.0+unpackaged"])
def test_who_says_no_version_is_taken_as_it_comes(unknown):
    version.admit(Node("hub", "0.2.0"), Node("sidecar", unknown))
    version.admit(Node("hub", unknown), Node("sidecar", "0.9.0"))


def test_a_refusal_is_typed_and_says_when_to_come_back():
    with pytest.raises(errors.IllegalState) as caught:
        version.admit(Node("hub", "0.2.0"), Node("cli", "0.4.1"))
    problem = caught.value
    assert problem.message == (
        "agentcom 0.4.1 does not work with hub 0.2.0: they are more than one minor apart; upgrade the hub"
    )
    assert (problem.reason, problem.retry_delay_s) == (version.REASON, version.RETRY_S)
    assert problem.metadata | {} == {
        "hub_version": "0.2.0", "peer": "cli", "peer_version": "0.4.1", "state": "version 0.2.0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "node"),
    [
        ("cli/0.2.0", Node("cli", "0.2.0")),
        ("sidecar/0.3.1rc1", Node("sidecar", "0.3.1")),
        ("hub/0.9.0", None),
        ("browser/0.9.0", None),
        ("cli/latest", None),
        ("cli", None),
        ("cli/0.9.0\x1b[2J" + "x" * 10_000, Node("cli", "0.9.0")),
        (b"cli/0.9.0", None),
    ],
)
def test_a_caller_is_told_by_its_metadata_only_in_our_own_words(value, node):
    assert version.told([("authorization", "Bearer x"), (version.METADATA_KEY, value)]) == node


def test_a_call_without_metadata_says_nothing():
    assert version.told(None) is None
    assert version.told(version.metadata("cli")) == Node("cli", version.VERSION)


@pytest.mark.parametrize(
    ("hub", "said"),
    [
        ("0.1.0", "this hub 0.1.0 does not know ListAlertRules, which agentcom 0.2.0 asks for; upgrade the hub"),
        ("", "this hub does not know ListAlertRules, which agentcom 0.2.0 asks for; upgrade the hub"),
        (
            "0.3.0",
            "this hub 0.3.0 does not know ListAlertRules any more, which agentcom 0.2.0 asks for; "
            "upgrade the command line",
        ),
    ],
)
def test_an_unknown_method_is_a_sentence(hub, said):
    assert version.unknown_method(hub, "ListAlertRules", Node("cli", "0.2.0")) == said


def test_the_version_stands_in_one_place_and_in_the_changelog():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "kit/version.py"
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].split()[1] == version.VERSION
    assert version.parse(version.VERSION) is not None
