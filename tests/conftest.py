"""What every test gets: seeds that replay, and hypothesis profiles."""

from __future__ import annotations

import os
import random
import zlib

import pytest
from hypothesis import HealthCheck, settings

# Two shared cores: a slow example is no failure. `derandomize` makes a run on CI the run that anybody can repeat.
settings.register_profile(
    "default", deadline=None, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """A random source whose seed is the test's name (or AGENTCOM_SEED), shown when the test fails."""
    seed = int(os.environ.get("AGENTCOM_SEED") or zlib.crc32(request.node.nodeid.encode()))
    request.node.add_report_section("setup", "seed", f"AGENTCOM_SEED={seed}")
    return random.Random(seed)
