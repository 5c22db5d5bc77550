"""Records of the hub. What they are: `kit.logbook`."""

from __future__ import annotations

from typing import Final

from kit.logbook import Entry

RECORDS: Final = {
    "admin_token.written": Entry("info", "the first token of a new hub was made and written", ("file",)),
    "agent.refused": Entry(
        "warning", "a sidecar's version is too far from the hub's; told once for each version", ("version", "problem")
    ),
    "alert.cleared": Entry("info", "what was wrong is so no more", ("alert",)),
    "alert.raised": Entry(
        "warning",
        "there is something that a person should look at; docs/alerts.md",
        ("alert", "severity", "message", "untold_why"),
    ),
    "alerts.blind": Entry("warning", "the store could not be read for the alerts that look at work", ("problem",)),
    "alerts.not_loaded": Entry("warning", "the alerts could not be read at the start; they begin anew", ("problem",)),
    "alerts.unreadable": Entry(
        "warning", "a part of what is kept of the alerts is not understood; it counts as empty", ("key", "problem")
    ),
    "backup.expired": Entry("info", "an old backup was taken away", ("backup",)),
    "backup.failed": Entry(
        "warning", "a backup was not made; the alert tells when there is none in time", ("reason", "problem")
    ),
    "backup.made": Entry("info", "a backup was made and verified", ("backup", "size_bytes", "position")),
    "browser.gone": Entry("info", "a browser that asked for notices wants none any more", ("sink", "problem")),
    "browser.not_forgotten": Entry(
        "warning", "that could not be written down yet; it is tried again", ("count", "problem")
    ),
    "bus.listener_failed": Entry(
        "error", "a part of the hub failed at an event; the write stands", ("position", "exception")
    ),
    "clock.jumped": Entry(
        "warning", "somebody set the clock, or the machine slept: deadlines of running work move with it", ("jumped_s",)
    ),
    "digest.made": Entry("info", "people are told what happened since the last digest", ("notice", "title", "text")),
    "dispatch.held_back": Entry(
        "warning", "assignments could not be written; they are tried again", ("reason", "message")
    ),
    "holdings.lost": Entry(
        "warning", "nobody will report on them any more: their tasks went back", ("reason", "count", "message")
    ),
    "hub.last_words_lost": Entry("warning", "the last event could not be written", ("problem",)),
    "hub.serving": Entry("info", "it answers", ("address", "store", "data")),
    "hub.stopped": Entry("info", "it has ended in order"),
    "hub.stopping": Entry("info", "it was asked to end", ("grace_s",)),
    "intake.file_changed": Entry(
        "warning", "a goal file changed while it was taken; what is there now is looked at again", ("file",)
    ),
    "intake.postponed": Entry(
        "warning", "a goal file could not be filed now; it is tried again", ("file", "reason", "message")
    ),
    "intake.refused": Entry(
        "warning", "a goal file is no good; the reason lies beside it", ("file", "reason", "message")
    ),
    "intake.taken": Entry("info", "a goal file became a goal", ("file",)),
    "lease.passed": Entry("warning", "an agent was silent for too long: its tasks went back", ("holdings", "was_here")),
    "notice.failed": Entry(
        "warning", "a notice could not be delivered; it is tried again", ("notice", "sink", "problem")
    ),
    "notice.made": Entry("warning", "people are told of what needs one of them now", ("notice", "title", "text")),
    "notice.sent": Entry("info", "a notice was delivered", ("notice", "sink")),
    "notify.book_unreadable": Entry(
        "warning", "what was to be told is not understood, as after a downgrade; it begins anew", ("problem",)
    ),
    "notify.browsers_unreadable": Entry(
        "warning", "the browsers that asked for notices are not understood; they must ask again", ("problem",)
    ),
    "notify.not_kept": Entry(
        "warning", "what is to be told could not be written down; it is tried again", ("problem",)
    ),
    "report.invalid": Entry(
        "warning", "a sidecar's report breaks the contract: the attempt failed by it", ("message",)
    ),
    "report.refused": Entry(
        "error", "a report could not be taken in: the attempt failed by it", ("error", "exception")
    ),
    "reports.kept_back": Entry(
        "warning", "the store takes nothing: the sidecar keeps its reports and sends them again", ("count",)
    ),
    "retention.clock_jumped": Entry(
        "warning",
        "the date jumped: nothing is forgotten until it has gone steadily for a while",
        ("jumped_s", "waits_s"),
    ),
    "retention.forgot": Entry("info", "what was old enough was removed", ("sort", "count")),
    "session.deaf": Entry(
        "warning", "an agent took nothing in for too long: what it was offered went back", ("offered",)
    ),
    "session.opened": Entry("info", "a sidecar's stream began", ("resumed", "adopted")),
    "session.superseded": Entry("info", "a newer stream of the same agent took its place", ("final",)),
    "sink.broke": Entry("error", "a way of telling people is at fault itself", ("sink", "exception")),
    "store.broken": Entry("error", "the store cannot be opened; docs/operations.md", ("problem",)),
    "store.brought_forward": Entry(
        "info",
        "a store of an older version was rewritten, and the old one is kept",
        ("version_before", "version", "kept", "s"),
    ),
    "store.commit_failed": Entry(
        "error", "a commit failed: none of its writes was acknowledged", ("reason", "error", "writes")
    ),
    "store.compacted": Entry("info", "free pages were given back to the disk", ("before_bytes", "after_bytes")),
    "store.degraded": Entry("error", "it is open for reading only; docs/operations.md", ("damage",)),
    "store.grown": Entry("info", "the map was made larger", ("map_bytes", "map_bytes_max")),
    "store.listener_failed": Entry("error", "a part of the hub failed at an event; the write stands", ("exception",)),
    "store.migrated": Entry("info", "one step of a migration is done", ("version_before", "version_after", "entries")),
    "store.older": Entry(
        "warning", "the store is of an older version and is rewritten now", ("version_before", "version", "path")
    ),
    "store.suspected": Entry(
        "warning", "the store was read through after a crash and has faults", ("problems", "records")
    ),
    "stream.unleashed": Entry(
        "info", "a stream was ended because its caller may not have it any more", ("principal", "reason")
    ),
    "sweep.late": Entry(
        "warning", "the process stood still or was starved: nobody is blamed for silence meanwhile", ("late_s",)
    ),
    "telemetry.mark_unread": Entry(
        "warning", "how far spans were pushed cannot be read; some may be missing", ("file", "error")
    ),
    "telemetry.mark_unwritten": Entry(
        "warning",
        "how far spans were pushed cannot be written; some may be told twice after a crash",
        ("file", "problem"),
    ),
    "telemetry.replayed": Entry(
        "info", "spans that the process before this one had not pushed were made again", ("position", "spans")
    ),
    "violator.forgiven": Entry("info", "a caller that was shut out may ask again", ("principal", "actor")),
    "violator.refused": Entry(
        "warning",
        "a caller broke the rules so often that all it asks is refused for a while",
        ("principal", "refused_s", "last"),
    ),
}
