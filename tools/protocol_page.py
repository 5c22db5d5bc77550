"""The tables of docs/protocol.md that would go stale: the bodies of the stream, from the protos; limits, from the code.

The rest of that page is written by hand; what stands between its markers is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hub.core import filter as filters
from hub.engine.live import session
from hub.engine.live.context import EngineSettings
from hub.rpc import attach
from kit import wire
from sidecar.wire import ledger, stream

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = "docs/protocol.md"
PROTO: Final = "protos/agentcom/v1/attach.proto"
#: What is kept until it is acked; the comments of the proto's file say the same.
SEQUENCED: Final = frozenset({"report", "goodbye", "assign", "revoke"})
_BODY = re.compile(r"^    // (?P<said>.*)\n(?:    // .*\n)*    (?P<kind>\w+) (?P<name>\w+) = \d+;", re.MULTILINE)
MIB: Final = 1024 * 1024


def page() -> str:
    """The page as it should be."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    return _between(_between(text, "Bodies", "bodies", _bodies()), "Limits", "limits", _limits())


def _between(text: str, begin: str, end: str, content: Iterator[str]) -> str:
    first, last = f"<!-- {begin}: written by `make docs`. -->", f"<!-- End of the {end}. -->"
    before, mark, rest = text.partition(first)
    assert mark and last in rest, f"{PAGE} has lost its markers of the {end}"
    return f"{before}{first}\n\n" + "\n".join(content) + f"\n\n{last}{rest.partition(last)[2]}"


def _bodies() -> Iterator[str]:
    text = (ROOT / PROTO).read_text(encoding="utf-8")
    yield "| way | body | sequenced | what it is |\n| --- | --- | --- | --- |"
    for way, message in (("up", "AttachRequest"), ("down", "AttachResponse")):
        found = re.search(rf"^message {message} \{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL)
        assert found is not None
        for body in _BODY.finditer(found[1]):
            name, kind = body["name"], body["kind"]
            mark = "yes" if name in SEQUENCED else ""
            said = body["said"].removesuffix(" Sequenced.")
            yield f"| {way} | `{name}` ([{kind}](api.md#{kind.lower()})) | {mark} | {said} |"


def _limits() -> Iterator[str]:
    engine = EngineSettings()
    rows: list[tuple[str, Any]] = [
        ("one message", f"{wire.MESSAGE_BYTES_MAX // MIB} MiB"),
        ("metadata of a call", f"{wire.METADATA_BYTES_MAX // 1024} KiB"),
        ("messages in one batch", f"{stream.BATCH_COUNT_MAX}, {stream.BATCH_BYTES_MAX // 1024} KiB"),
        ("sent by the hub and not acked, for one sidecar", f"{engine.outbox_max} (`engine.outbox_max`)"),
        ("reports of a sidecar that the hub has read and not applied", session.REPORTS_MAX),
        ("reports that a sidecar keeps unacked", ledger.OUTBOX_COUNT_MAX),
        ("silence before the hello", f"{attach.HELLO_TIMEOUT_S:g} s"),
        ("a reader that takes nothing", f"{wire.READER_TIMEOUT_S:g} s (`server.reader_timeout_s`)"),
        ("keepalive of a connection", f"every {wire.KEEPALIVE_S:g} s, answered within {wire.PING_TIMEOUT_S:g} s"),
        ("pings of a client", f"not more often than every {wire.PING_INTERVAL_MIN_S:g} s"),
        ("an idle connection", f"closed after {wire.CONNECTION_IDLE_S / 60:g} min"),
        ("calls open at once on one connection", wire.STREAMS_MAX),
        ("heartbeats of the whole fleet", f"{engine.heartbeats_per_s_max:g}/s; a larger fleet beats more slowly"),
        ("heartbeats that may leave out a holding before it is lost", session.MISSED_MAX),
        ("terms of a filter", filters.TERMS_MAX),
    ]
    yield "| what | limit |\n| --- | --- |"
    for what, limit in rows:
        yield f"| {what} | {limit} |"
