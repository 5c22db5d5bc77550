"""Records of a sidecar. What they are: `kit.logbook`."""

from __future__ import annotations

from typing import Final

from kit.logbook import Entry

RECORDS: Final = {
    "agent.enrolled": Entry("info", "it has an identity at the hub, from now on or again"),
    "agent.exists": Entry("warning", "the hub knows this agent already, and the token that it gave then is here"),
    "assignment.refused": Entry(
        "warning", "it was not taken: not me; the task costs nothing and goes to somebody else", ("reason",)
    ),
    "assignment.stale": Entry("warning", "a newer generation of the task is held: the hub no longer means this one"),
    "attempt.crashed": Entry(
        "error", "the sidecar itself is at fault; the hub is told and the work is saved", ("exception",)
    ),
    "attempt.ended": Entry("info", "an attempt did not succeed, and why", ("reason", "attribution", "message")),
    "branch.kept": Entry(
        "warning", "a merged branch could not be deleted at the remote", ("branch", "reason", "message")
    ),
    "branch.taken": Entry(
        "warning", "the name of a branch is used by something else; another one was chosen", ("branch",)
    ),
    "cache.unlocked": Entry("warning", "locks that a dead git left in a cache were removed", ("cache", "count")),
    "commits.lost": Entry(
        "warning", "an agent's branch does not hold what was committed before", ("reason", "message")
    ),
    "enrolment.delayed": Entry(
        "warning",
        "the hub could not be asked for an identity; it is tried again",
        ("reason", "message", "retry_delay_s"),
    ),
    "executor.crashed": Entry("error", "an executor is at fault, not the task", ("executor", "exception")),
    "folder.kept": Entry("warning", "a folder could not be removed", ("path",)),
    "holding.abandoned": Entry("error", "it did not stop in time; the next start recovers it", ("holding",)),
    "holding.begun": Entry("info", "work on it begins", ("title",)),
    "holding.finished": Entry(
        "info", "its outcome is in the journal and is told until the hub has it", ("done", "reason")
    ),
    "holding.not_closed": Entry(
        "warning", "the journal was too full for a note; the outcome is told once more after a restart", ("error",)
    ),
    "holding.not_journaled": Entry("error", "its outcome could not be written and is told from memory", ("error",)),
    "holding.restored": Entry("info", "the journal of the process before this one had it", ("finished",)),
    "holding.settled": Entry("debug", "nothing more is to be said of it", ("reason",)),
    "holding.stopping": Entry("info", "it was told to stop, by the hub or by an end", ("reason",)),
    "holding.taken": Entry("debug", "it is in the journal"),
    "holding.unrecovered": Entry("error", "what a dead process left of it could not be opened", ("exception",)),
    "hub.absent": Entry(
        "debug", "nobody listens at the hub's address, so none can have given the work away", ("holdings",)
    ),
    "hub.version_differs": Entry(
        "warning", "the hub is of another version; both still understand each other", ("problem",)
    ),
    "hub.version_refused": Entry("error", "the hub's version is too far away: upgrade the older one", ("problem",)),
    "journal.compact_failed": Entry(
        "warning", "the journal could not be made shorter; nothing is lost", ("path", "error")
    ),
    "journal.compacted": Entry("debug", "the journal was made shorter", ("path", "bytes")),
    "journal.damaged": Entry(
        "error", "bytes of the journal were not what was written; they are kept aside", ("path", "bytes", "kept")
    ),
    "journal.failed": Entry(
        "error", "the journal cannot be written: nothing new is taken", ("path", "records", "error")
    ),
    "journal.tail_cut": Entry(
        "warning", "the end of the journal was torn, as a crash leaves it; it was cut off", ("path", "bytes")
    ),
    "lease.ran_out": Entry("warning", "the hub was silent for a lease: all work is stopped and saved", ("holdings",)),
    "leftover.kept": Entry("warning", "a working tree of an earlier attempt could not be removed", ("tree", "reason")),
    "outcome.invalid": Entry("error", "an outcome breaks the contract; the hub is told that instead", ("message",)),
    "place.unreadable": Entry(
        "error", "the note beside a working tree is damaged; the tree is kept", ("path", "error")
    ),
    "process.signalled": Entry(
        "info", "a signal came: the first finishes, the second saves, the third ends", ("signal", "count")
    ),
    "runner.crashed": Entry("error", "the sidecar itself is at fault; the hub is told", ("exception",)),
    "sandbox.missing": Entry("warning", "commands run unconfined, or not at all; docs/sandbox.md", ("mode", "reason")),
    "session.broken": Entry(
        "warning", "what the hub says does not fit the session; a new one is begun", ("reason", "message")
    ),
    "session.changed": Entry(
        "debug", "the state of the session; docs/state-machines.md", ("before", "after", "event_name")
    ),
    "sidecar.attached": Entry("info", "the hub welcomed it", ("resumed", "holdings", "hub")),
    "sidecar.available": Entry("info", "the self-test passed again"),
    "sidecar.cut_short": Entry("warning", "it ends before everything was told; the next start tells it", ("untold",)),
    "sidecar.detached": Entry(
        "warning", "the stream is lost; it comes back after the delay", ("reason", "message", "retry_delay_s")
    ),
    "sidecar.draining": Entry("info", "it takes nothing new and finishes what it holds", ("reason", "holdings")),
    "sidecar.unavailable": Entry(
        "error", "the self-test failed: it takes no work until a person sees to it", ("findings",)
    ),
    "tls.unreadable": Entry("error", "a certificate or key cannot be read; the one before it is used", ("problem",)),
    "token.unreadable": Entry("error", "the token's file cannot be read; the token before it is used", ("problem",)),
    "wip.conflicted": Entry(
        "warning", "unfinished work of the attempt before does not fit the base any more; it is left out", ("ref",)
    ),
    "wip.missing": Entry("warning", "unfinished work of the attempt before is not at the remote", ("ref",)),
    "wip.unsaved": Entry("warning", "unfinished work could not be pushed; its tree is kept", ("tree", "error")),
    "workspace.kept": Entry(
        "warning", "a working tree could not be removed; its work is safe", ("tree", "reason", "message")
    ),
    "workspace.opened": Entry("info", "a fresh working tree for an attempt is there", ("base", "wip")),
}
