"""Tokens are long, hashed and compared in constant time; a principal lives for one call."""

from __future__ import annotations

import pytest

from kit import errors, principal, tokens


def test_a_token_has_the_form_that_the_logs_look_for():
    made = {tokens.new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(token) == 4 + 43 and tokens.is_token(token) for token in made)


def test_only_the_right_token_matches_the_stored_hash():
    token = tokens.new_token()
    stored = tokens.digest(token)
    assert token not in stored
    assert len(stored) == 64
    assert tokens.matches(token, stored)
    assert not tokens.matches(token[:-1] + ("a" if token[-1] != "a" else "b"), stored)
    assert not tokens.matches("", stored)


def test_outside_of_a_call_nobody_is_the_principal():
    with pytest.raises(errors.Unauthenticated):
        principal.current()
    mark = principal.enter(principal.Principal("tokens/x", "admin"))
    assert principal.current().scope == "admin"
    principal.leave(mark)
    with pytest.raises(errors.Unauthenticated):
        principal.current()
