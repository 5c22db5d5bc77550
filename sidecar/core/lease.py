"""The self-stop rule: who has not heard of the hub for one lease must take its work as given to somebody else.

The hub fences late writes anyway; stopping saves what a zombie would still burn, and ends two agents on one task.
Times are monotonic seconds, handed in.
"""

from __future__ import annotations


class Lease:
    """How long the work may go on without a word from the hub. Before the first welcome there is nothing to stop."""

    def __init__(self) -> None:
        self._duration_s: float | None = None
        self._heard_at = 0.0
        self._stopped = False

    def grant(self, duration_s: float, now: float) -> None:
        """The hub's welcome: its rule and a word from it. A duration of 0 (absent) leaves the rule as it is."""
        if duration_s > 0:
            self._duration_s = duration_s
        self.heard(now)

    def heard(self, now: float) -> None:
        """A word from the hub, whatever it says."""
        self._heard_at = max(self._heard_at, now)
        self._stopped = False

    @property
    def duration_s(self) -> float | None:
        """The rule; None before the first welcome."""
        return self._duration_s

    def left_s(self, now: float) -> float | None:
        """Seconds until the self-stop, 0 when it is due; None when there is nothing to wait for."""
        if self._duration_s is None or self._stopped:
            return None
        return max(0.0, self._heard_at + self._duration_s - now)

    def ran_out(self, now: float) -> bool:
        """True once for each silence that lasted too long: the caller stops all work then."""
        if self.left_s(now) != 0.0:
            return False
        self._stopped = True
        return True
