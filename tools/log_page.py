"""Writes docs/logs.md from the logbooks: the catalogue of log records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from dashboard import logbook as of_dashboard
from hub import logbook as of_hub
from kit import logbook
from kit.logbook import Entry
from sidecar import logbook as of_sidecar

_HEAD: Final = """# Logs

Every program tells what it does as records: an event with fields, one JSON object a line on stderr. On a terminal it is
text for people (`[log] form` chooses by hand). `[log] level` holds back what is below it:

| level | meaning |
| --- | --- |
| error | a person must act |
| warning | it healed itself, or is somebody else's to mend |
| info | a state changed |
| debug | the rest |

## Fields

Every record has `time` (UTC), `level`, `event` (a name of the tables below) and `module` (where in the code). One that
is about work has those of these that are known where it is made, always under these names, so that one search finds
all that any program has said of a task, a goal or a trace:

| field | meaning |
| --- | --- |
| `task`, `generation` | the holding: id of the task, number of the attempt |
| `goal` | id of its goal |
| `agent` | id of the agent |
| `session` | id of the sidecar's session |
| `trace_id`, `span_id` | the span of the attempt, where the hub traces ([telemetry.md](telemetry.md)) |
| `exception` | a traceback |

What looks like a secret, and what stands in a field that is named like one, is taken out before a record is written. A
text is cut at 8,192 characters.

## In a file

```toml
[log]
file = "/var/log/agentcom/hub.log"
file_bytes_max = 33554432
file_count_max = 5
```

The file takes the place of stderr. Its mode is 0600, and one process writes to it: a second one is refused at its
start. A file that would grow beyond `file_bytes_max` becomes `hub.log.1`, that one `hub.log.2`, and so on;
`file_count_max` old ones are kept, so the logs of a program never take more than
`(file_count_max + 1) * file_bytes_max` bytes.

logrotate can do it instead, by renaming (a new file is begun within a second of the next record) or with
`copytruncate`; no signal is needed. A full disk does not stop a program: records are dropped, and `log.resumed` says
how many as soon as there is room again.

Under systemd nothing needs to be set: the journal takes stderr, keeps it within its own bounds and rotates it.
"""

_BOOKS: Final[tuple[tuple[str, Mapping[str, Entry]], ...]] = (
    ("Every program", logbook.RECORDS),
    ("The hub", of_hub.RECORDS),
    ("A sidecar", of_sidecar.RECORDS),
    ("The dashboard", of_dashboard.RECORDS),
)


def page(note: str) -> str:
    """The whole page."""
    parts = [note, _HEAD]
    for title, records in _BOOKS:
        parts += [f"## {title}\n", "| event | level | meaning | fields |", "| --- | --- | --- | --- |"]
        parts += [*_rows(records), ""]
    return "\n".join(parts)


def _rows(records: Mapping[str, Entry]) -> Iterator[str]:
    for name, entry in records.items():
        fields = ", ".join(f"`{field}`" for field in entry.fields)
        yield f"| `{name}` | {entry.level} | {entry.meaning} | {fields} |"
