"""What callers ask about repos and do to them: each method is one read or one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hub.core.repo import Repo
from hub.engine.live.context import Context
from hub.engine.script import registry, requests
from hub.store.base import Reader, Txn


class Shown(NamedTuple):
    """A repo with the length of its merge train."""

    repo: Repo
    train_length: int


class RepoDesk:
    """The repos, as callers see them."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def create(self, repo: Repo, request: requests.Request) -> Shown:
        """File a repo."""
        now, window_s = self._ctx.clock.now(), self._ctx.settings.request_window_s
        return await self._write(lambda txn: registry.create(txn, repo, request, now, window_s=window_s))

    def get(self, repo_id: str) -> Shown:
        """One repo. Raises NotFound."""
        return self._ctx.store.read(lambda reader: _shown(reader, registry.found(reader, repo_id)))

    def page(self, *, after: str, limit: int) -> tuple[list[Shown], str]:
        """Repos by name, and where the next page begins; empty at the end."""

        def read(reader: Reader) -> tuple[list[Shown], str]:
            repos = reader.repos.page(after=after, limit=limit + 1)
            more = len(repos) > limit
            return [_shown(reader, repo) for repo in repos[:limit]], repos[limit - 1].id if more else ""

        return self._ctx.store.read(read)

    async def update(self, repo_id: str, wanted: Repo, mask: Sequence[str], *, actor: str, etag: str) -> Shown:
        """Set some of its fields."""
        now = self._ctx.clock.now()
        return await self._write(lambda txn: registry.update(txn, repo_id, wanted, mask, now, actor=actor, etag=etag))

    async def delete(self, repo_id: str, *, actor: str, etag: str) -> None:
        """Forget a repo that nothing live uses."""
        now = self._ctx.clock.now()
        await self._ctx.store.write(
            lambda txn: registry.delete(txn, repo_id, now, actor=actor, etag=etag), essential=True
        )

    async def pause(self, repo_id: str, *, actor: str) -> Shown:
        """Assign none of its tasks."""
        now = self._ctx.clock.now()
        return await self._write(lambda txn: registry.pause(txn, repo_id, now, actor=actor), essential=True)

    async def resume(self, repo_id: str, *, actor: str) -> Shown:
        """Assign its tasks again."""
        now = self._ctx.clock.now()
        return await self._write(lambda txn: registry.resume(txn, repo_id, now, actor=actor))

    async def _write(self, verb: Callable[[Txn], Repo], *, essential: bool = False) -> Shown:
        return await self._ctx.store.write(lambda txn: _shown(txn, verb(txn)), essential=essential)


def _shown(reader: Reader, repo: Repo) -> Shown:
    return Shown(repo, registry.train_length(reader, repo.id))
