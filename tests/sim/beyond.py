"""The awaits that no simulation reaches, each with the reason and with who tries it instead.

By file and function, so that a change of other lines leaves the table alone; a file or a folder alone means all of it.
What stands here and is hit all the same, or is not there any more, makes a test fail.
"""

from __future__ import annotations

from typing import Final

BEYOND: Final[dict[str, str]] = {
    # Sockets and signals.
    "kit/serving.py": "a port of grpc.aio: tests/rpc, tests/faults",
    "kit/promtext.py": "a port of its own: tests/rpc/test_telemetry.py",
    "kit/otlp.py": "a collector: tests/rpc/test_telemetry.py",
    "kit/signals.py": "signals of a real process: tests/unit/kit/test_signals.py, tests/faults",
    "kit/interceptors.py::Gate.intercept_service": "asks grpc.aio for the handler, which never waits: tests/rpc",
    "kit/interceptors.py::refuse::context.abort(grpc.StatusCode.UNAVAILABLE, 'the peer has gone')": (
        "grpc.aio's own error of a write to nobody: tests/hostile"
    ),
    "kit/interceptors.py::refuse::context.abort_with_status(_internal(incident))": (
        "only a defect gets there, and each is a finding: tests/rpc"
    ),
    "sidecar/wire/knock.py": "a connection that is refused: tests/faults/scenarios/restart.py",
    # Threads, files and other processes.
    "sidecar/wire/journal.py": "a thread and a file (the records and frames are simulated): tests/unit/sidecar",
    "hub/engine/desk/intake.py": "threads that read a folder: tests/unit/hub/test_intake.py",
    "hub/engine/care": "copies and reads a file in another process: tests/rpc/test_store_care.py, tests/faults",
    "hub/rpc/care.py": "asks hub/engine/care: tests/rpc/test_store_care.py",
    "hub/store/lmdb.py": "a thread and a file: tests/store, tests/faults",
    "hub/store/memory.py": "a thread: tests/store",
    "hub/store/front.py::Front._alone": "compaction, between two transactions: tests/store/test_compact.py",
    "hub/store/front.py::Front._finish": "joins the thread: tests/store",
    "hub/engine/live/sessions.py::Sessions.open::self._gatekeeper.admit(hello)": "another version: tests/skew",
    "hub/engine/live/skew.py": "a sidecar of another version: tests/skew",
    "kit/telemetry.py": "ports and a collector: tests/rpc/test_telemetry.py",
    # What tells people, and needs a machine to look at.
    "hub/engine/alerts": "looks at a machine: tests/unit/hub, tests/rpc; it writes as all others do",
    "hub/engine/notify": "sends to the world outside: tests/unit/hub, tests/rpc",
    "hub/rpc/alerts.py": "asks hub/engine/alerts: tests/rpc",
    "hub/rpc/notify.py": "asks hub/engine/notify: tests/rpc",
    "hub/engine/live/tallies.py": "measures with the processor's clock: tests/unit/hub/test_tallies.py",
    # Translation only: what they ask is struck at the desk itself.
    "hub/rpc/hub.py": "its desks (hubstate, vault, conduct) are asked directly: tests/rpc/test_hub_service.py",
}

#: Reached by some seeds in a thousand only, so that the 500 of `make sim` may miss them: two rare things must meet.
RARE: Final[dict[str, str]] = {
    "hub/engine/live/sessions.py::Sessions.heartbeat": "a sidecar that forgets what it holds, in three heartbeats",
    "hub/engine/live/sessions.py::Sessions.leave": "a goodbye that crosses an assignment",
    "hub/engine/live/worker.py::Worker._take_in::self._sessions.leave": "a goodbye that crosses an assignment",
    "hub/engine/live/sweep.py::Sweep._stuck": "hands that hang and nobody who stops them before",
    "hub/engine/live/sweep.py::Sweep.run_once::self._stuck": "the same",
    "hub/engine/desk/conduct.py": "a caller that breaks rules until it is refused, and the log of it",
    "hub/rpc/attach.py::Attach._mend": "a report that breaks the contract while the queue of reports is full",
    "hub/rpc/attach.py::Attach._read": "the same, or the end of a stream whose queue is full",
    "hub/rpc/attach.py::Attach._take": "the same, for a goodbye; or a sidecar that forgets",
    "hub/rpc/attach.py::_excuse": "the same",
    "hub/engine/live/retention.py::Retention._round": "more to forget at once than fits into a transaction",
    "hub/engine/live/recycle.py": "more classes than fit, and a round over all tasks",
    "sidecar/wire/conversation.py::Conversation._apply": "a goaway right behind an assignment, in one batch",
    "sidecar/wire/session.py::Session._watch_drain": "a drain whose work does not stop in time",
}


def rare(owner: str) -> str:
    """Why an await may be missed all the same; empty: it may not."""
    return next((why for key, why in RARE.items() if covers(key, owner)), "")


def reason(owner: str) -> str:
    """Why an await is not reached; empty: it is."""
    return next((why for key, why in BEYOND.items() if covers(key, owner)), "")


def covers(key: str, owner: str) -> bool:
    """Does a line of the table mean this function (`file::name`)?"""
    return owner == key or owner.startswith((f"{key}::", f"{key}/", f"{key}("))
