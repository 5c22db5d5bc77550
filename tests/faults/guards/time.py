"""Guards against clocks that jump, taken out."""

from __future__ import annotations

from tests.faults.patching import patch


def leases_by_date() -> None:
    """What should be measured by the monotonic clock is measured by the date."""
    from kit.clock import SystemClock

    patch(SystemClock, "monotonic", lambda self: self.now())


GUARDS = {"leases_by_date": leases_by_date}
