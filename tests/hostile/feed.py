"""Gives one body to one method and says what is wrong with what came of it."""

from __future__ import annotations

from typing import Final

from tests.hostile import verdict
from tests.hostile.world import World, call

TRIES: Final = 3
"""Something else (a goal that goes on, a sweep) may write while a request is refused. It does not do so three times in
a row; a request that writes although it is refused does."""


def one(here: World, path: str, body: bytes, tally: verdict.Tally) -> str:
    """What is wrong; empty: nothing."""
    error = None
    for _ in range(TRIES):
        before = here.state()
        error, _answer = here.run(call(here.caller.channel, path, body))
        tally.note(error)
        wrong = verdict.fault(error)
        if wrong or error is None or here.state() == before:
            return wrong
    assert error is not None
    return f"refused with {error.code().name} ({error.details()}), and the store is not what it was"
