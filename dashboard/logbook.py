"""Records of the dashboard. What they are: `kit.logbook`."""

from __future__ import annotations

from typing import Final

from kit.logbook import Entry

RECORDS: Final = {
    "dashboard.serving": Entry("info", "the pages are there", ("address", "hub")),
}
