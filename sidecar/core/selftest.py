"""The self-test's answer: what makes an agent available and not merely connected."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was tried."""

    #: "git", "disk", "clock", "executor:shell", ...
    probe: str
    passed: bool
    #: One sentence: what was found, and what to do when it failed.
    message: str


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """All that was tried in one go."""

    passed: bool
    findings: tuple[Finding, ...]
    #: Seconds since the epoch.
    ended_at: float

    @classmethod
    def of(cls, findings: tuple[Finding, ...], *, ended_at: float) -> SelfTest:
        """Passed when there are findings and every one of them passed."""
        return cls(passed=bool(findings) and all(f.passed for f in findings), findings=findings, ended_at=ended_at)
