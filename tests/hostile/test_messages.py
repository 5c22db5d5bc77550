"""Every RPC fed with generated messages: no answer is a fault of ours, and a refusal changes nothing."""

from __future__ import annotations

import pytest

from tests.hostile import campaign, verdict, world

EXAMPLES = {"memory": 40, "lmdb": 10}
"""For each method: some twenty seconds for all of them. `python -m tests.hostile` takes as long as it is told."""
CONVERSATIONS = {"memory": 200, "lmdb": 40}


@pytest.mark.parametrize("path", [*world.UNARY, *world.WATCHES], ids=lambda path: path.rpartition("/")[2])
@pytest.mark.parametrize("store", EXAMPLES)
def test_a_generated_message_is_served_or_refused_with_a_reason_and_a_refusal_changes_nothing(tmp_path, path, store):
    with world.made(tmp_path, store__kind=store) as here:
        tally = verdict.Tally()
        campaign.generated(here, path, EXAMPLES[store], tally)
        assert not here.ailment()
        print(f"{path}: {tally}")


@pytest.mark.parametrize("store", CONVERSATIONS)
def test_a_generated_conversation_ends_well_or_with_a_reason(tmp_path, store):
    with world.made(tmp_path, store__kind=store) as here:
        tally = verdict.Tally()
        campaign.conversations(here, CONVERSATIONS[store], tally)
        assert not here.ailment()
        print(f"Attach: {tally}")
