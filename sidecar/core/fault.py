"""What ends an attempt: a problem that knows whose fault it is."""

from __future__ import annotations

from kit import errors
from sidecar.core import assignment, cut


class Fault(errors.Problem):
    """The attempt cannot go on. The runner turns it into NotDone."""

    default_reason = "FAULT"

    def __init__(self, message: str, *, reason: str, attribution: assignment.Attribution, evidence: str = "") -> None:
        super().__init__(message, reason=reason)
        self.attribution = attribution
        self.evidence = evidence

    @property
    def failure(self) -> assignment.Failure:
        """As it is reported, cut to the contract's limits."""
        return assignment.Failure(
            reason=self.reason,
            message=cut.line(self.message, assignment.MESSAGE_BYTES_MAX),
            attribution=self.attribution,
            evidence=cut.tail(self.evidence, assignment.EVIDENCE_BYTES_MAX),
        )


class Stopped(Fault):
    """The session ordered a stop."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"stopped: {reason}", reason=reason or "STOPPED", attribution="hub")


class PushRejected(Fault):
    """The remote branch holds commits that the pushed one does not: somebody was faster. Fetch and decide again."""


class MergeConflict(Fault):
    """Two changes touch the same lines; the evidence lists the paths."""

    def __init__(self, message: str, paths: tuple[str, ...], evidence: str = "") -> None:
        listed = "\n".join(f"conflict: {path}" for path in paths)
        super().__init__(
            message,
            reason="MERGE_CONFLICT",
            attribution="task",
            evidence=f"{evidence}\n{listed}" if evidence else listed,
        )
        self.paths = paths
