"""The line finds what grows in noise, and calls nothing growing that only swings."""

from __future__ import annotations

import random

import pytest

from tests.soak.trend import Sample, fit, grows


def series(slope: float, noise: float, seed: int, count: int = 200) -> list[Sample]:
    rng = random.Random(seed)
    level, samples = 0.0, []
    for at in range(count):
        level = 0.8 * level + rng.gauss(0, noise)  # each is like the one before
        samples.append(Sample(at, 1000 + slope * at + level))
    return samples


@pytest.mark.parametrize("seed", range(20))
def test_a_slope_in_noise_is_found(seed):
    trend = fit(series(0.5, 5.0, seed))
    assert grows(trend, 20.0)
    assert trend.growth == pytest.approx(0.5 * 199, abs=4 * trend.growth_error)


def test_noise_alone_hardly_ever_grows():
    assert sum(grows(fit(series(0.0, 5.0, seed)), 0.0) for seed in range(300)) <= 12


def test_what_is_allowed_is_allowed():
    samples = series(0.5, 0.0, 0)
    assert grows(fit(samples), 99.0)
    assert not grows(fit(samples), 100.0)


def test_what_shrinks_does_not_grow():
    assert not grows(fit(series(-1.0, 1.0, 0)), 0.0)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="7 samples are too few"):
        fit(series(0.0, 1.0, 0, count=7))
