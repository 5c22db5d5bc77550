"""The pictures show what the code has: its states, its transitions, and text that is text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from hub.core import task
from tools import drawing, pictures


@pytest.mark.parametrize(("before", "after", "label"), [("DEAD", "RUNNING", ""), ("QUEUED", "ASSIGNED", "accept")])
def test_a_transition_that_the_code_does_not_have_is_not_drawn(before, after, label):
    with pytest.raises(AssertionError, match=f"no {before} -> {after}"):
        pictures._known(task.TRANSITIONS, before, after, label)


def test_a_picture_without_one_of_the_states_is_not_drawn():
    with pytest.raises(AssertionError, match="every state"):
        pictures._states(drawing.Drawing(10, 10, "x"), {"QUEUED": (0, 0, "hub")}, task.State)


@pytest.mark.parametrize("name", pictures.DRAWN)
def test_each_picture_is_good_xml_within_its_frame_and_reads_nothing_from_elsewhere(name):
    text = pictures.DRAWN[name]().svg()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert 0 <= float(box.get("x", 0)) <= float(box.get("x", 0)) + float(box.get("width", 0)) <= width
        assert 0 <= float(box.get("y", 0)) <= float(box.get("y", 0)) + float(box.get("height", 0)) <= height
    assert not re.search(r"href|url\(|@import|<script", text)
    assert "prefers-color-scheme: dark" in text
