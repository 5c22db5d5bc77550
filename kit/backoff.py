"""How long to wait before trying again: pure arithmetic over an attempt number and a random source."""

from __future__ import annotations

import random
from dataclasses import dataclass

# 2**62 seconds are longer than any cap; the exponent is bounded so that attempt 10,000 does not overflow a float.
EXPONENT_MAX = 62


def full_jitter(attempt: int, base_s: float, cap_s: float, rng: random.Random) -> float:
    """A delay drawn evenly from [0, min(cap, base * 2^attempt)]; `attempt` counts from 0.

    Uniform over the whole window, because many callers that failed together must not come back together.
    """
    assert attempt >= 0 and 0 <= base_s <= cap_s
    return rng.uniform(0.0, min(cap_s, base_s * 2.0 ** min(attempt, EXPONENT_MAX)))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The delays between the attempts of a task: named steps, then the last one again, jittered and capped.

    `steps_s[0]` is the delay before the second attempt. With `jitter` 0.1 a delay of 30 s becomes 27 to 33 s.
    """

    steps_s: tuple[float, ...] = (0.0, 30.0, 120.0)
    cap_s: float = 3600.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        assert self.steps_s and all(0 <= step <= self.cap_s for step in self.steps_s), self.steps_s
        assert 0 <= self.jitter < 1, self.jitter

    def delay_s(self, retry: int, rng: random.Random) -> float:
        """Seconds to wait before retry number `retry`, which counts from 0; beyond the steps the last one doubles."""
        assert retry >= 0
        last = len(self.steps_s) - 1
        step = self.steps_s[min(retry, last)] * 2.0 ** min(max(0, retry - last), EXPONENT_MAX)
        return min(self.cap_s, step * rng.uniform(1 - self.jitter, 1 + self.jitter))
