"""What every test gets: seeds that replay, and hypothesis profiles."""

from __future__ import annotations

import logging
import os
import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Two shared cores: a slow example is no failure. `derandomize` makes a run on CI the run that anybody can repeat.
settings.register_profile(
    "default", deadline=None, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def logs_end_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that runs a node's `main` sets logging up for the whole process: the tests behind it find it as it was.

    A logger that was cached would keep the stream of that test, which is closed, for good.
    """
    configure, root = structlog.configure, logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def uncached(**settings: Any) -> None:
        configure(**{**settings, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        root.setLevel(level)
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """A random source whose seed is the test's name (or AGENTCOM_SEED), shown when the test fails."""
    seed = int(os.environ.get("AGENTCOM_SEED") or zlib.crc32(request.node.nodeid.encode()))
    request.node.add_report_section("setup", "seed", f"AGENTCOM_SEED={seed}")
    return random.Random(seed)
