"""A real hub in this process, and the dashboard in front of it as a browser without scripts sees it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from dashboard import app, config, visitor
from tests.support import hub as hubs


class Browser:
    """Keeps cookies, follows no redirect, and fills the proof into forms."""

    def __init__(self, address: str, **settings: Any) -> None:
        overrides = {"hub.address": address, **{key.replace("__", "."): value for key, value in settings.items()}}
        self.app = app.make(config.load(None, {}, overrides))
        self._client = self.app.test_client()

    async def get(self, path: str, **options: Any) -> TestResponse:
        """A page. In a thread: the dashboard's calls are blocking, and the hub lives on this loop."""
        # A stream is read as it comes, anything else whole: only then is what it reads from closed.
        whole = not path.startswith("/live")
        return await asyncio.to_thread(self._client.get, path, buffered=whole, **options)

    async def post(self, path: str, fields: dict[str, Any] | None = None, **options: Any) -> TestResponse:
        """Send a form of ours: with the proof that a page before it carried."""
        page = await self.get("/login")
        found = re.search(r'name="proof" value="([0-9a-f]+)"', page.text)
        assert found is not None
        return await asyncio.to_thread(self._client.post, path, data={"proof": found[1], **(fields or {})}, **options)

    async def post_bare(self, path: str, fields: dict[str, str], **options: Any) -> TestResponse:
        """Send a form that nobody of us made."""
        return await asyncio.to_thread(self._client.post, path, data=fields, **options)

    def show(self, token: str) -> None:
        """Have this token in the cookie, as after a login."""
        self._client.set_cookie(visitor.TOKEN_COOKIE, token)

    def close(self) -> None:
        """End the connection to the hub."""
        self.app.extensions["agentcom"][1].close()


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[hubs.Caller]:
    async with hubs.running(tmp_path) as made:
        yield made


@pytest.fixture
async def browser(caller: hubs.Caller) -> AsyncIterator[Browser]:
    made = Browser(caller.hub.address)
    yield made
    made.close()
