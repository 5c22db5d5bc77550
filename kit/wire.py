"""What both ends of a connection must agree on: sizes and the pace of keepalive."""

from __future__ import annotations

# One message: a batch of 1,000 tasks or a report with its log tail fits; a diff beyond it travels as an artefact's
# chunks. A larger message would end the whole stream, so senders check before they write.
MESSAGE_BYTES_MAX = 8 * 1024 * 1024

# Trailers carry the details of an error (kit/status.py keeps its budget), headers carry tokens and trace context.
METADATA_BYTES_MAX = 16 * 1024

# A frozen or unplugged peer is noticed within 5 + 3 s. keepalive_timeout_ms has no effect by itself (grpc#39239).
KEEPALIVE_S = 5.0
PING_TIMEOUT_S = 3.0
# Clients ping every 5 s; the server calls it too many only when they come faster than this.
PING_INTERVAL_MIN_S = 2.0

# Where a hub listens and where everybody looks for it when nobody says otherwise.
ADDRESS_DEFAULT = "127.0.0.1:7420"
# Where the hub is, for its clients. It begins like the hub's own settings, and the hub passes over it.
ADDRESS_VARIABLE = "AGENTCOM_HUB_ADDRESS"
