"""Verified tokens in memory: forgotten when one changes, and never too many."""

from __future__ import annotations

import random

import pytest

from hub.core.token import Scope
from hub.engine.desk.vault import Vault
from hub.engine.desk.verifier import Verifier
from hub.engine.live.context import Context
from hub.store.memory import MemoryStore
from kit import clock as clocks
from kit import errors


@pytest.fixture
def ctx():
    return Context.make(MemoryStore.open(), clocks.ManualClock(), random.Random(1))


async def test_a_token_that_was_verified_before_is_void_when_it_is_revoked(ctx):
    vault, verifier = Vault(ctx), Verifier(ctx)
    token, secret = await vault.create(Scope.VIEWER, "", None, actor="test")
    assert verifier.verify(secret).id == token.id
    await vault.revoke(token.id, actor="test")
    with pytest.raises(errors.Unauthenticated, match="revoked"):
        verifier.verify(secret)


async def test_a_verified_token_is_not_read_again(ctx, monkeypatch):
    vault, verifier = Vault(ctx), Verifier(ctx)
    _, secret = await vault.create(Scope.VIEWER, "", None, actor="test")
    first = verifier.verify(secret)
    monkeypatch.setattr(ctx.store, "read", lambda _fn: pytest.fail("read the store again"))
    assert verifier.verify(secret) is first


async def test_the_memory_of_tokens_has_a_bound(ctx, monkeypatch):
    monkeypatch.setattr("hub.engine.desk.verifier.KNOWN_MAX", 3)
    vault, verifier = Vault(ctx), Verifier(ctx)
    secrets = [(await vault.create(Scope.VIEWER, "", None, actor="test"))[1] for _ in range(10)]
    for secret in secrets:
        verifier.verify(secret)
        assert len(verifier._known) <= 3


async def test_an_admin_token_that_is_void_or_expired_opens_nothing(ctx):
    vault = Vault(ctx)
    assert not vault.any_admin()
    token, _ = await vault.create(Scope.ADMIN, "", 60.0, actor="test")
    assert vault.any_admin()
    ctx.clock.advance(60)
    assert not vault.any_admin()
    token, _ = await vault.create(Scope.ADMIN, "", None, actor="test")
    await vault.revoke(token.id, actor="test")
    assert not vault.any_admin()
