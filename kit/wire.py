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

# How long a message may wait for the reader of a watch. Nothing piles up meanwhile, but the stream and its call are
# held; a reader that is well reads in milliseconds, and one that comes back later goes on from its position.
READER_TIMEOUT_S = 10.0

# Calls open at once on one connection; further ones wait in the client. Without a bound one peer's backlog of calls
# fills the server's queue, and calls of all others are answered CANCELLED (measured: 5,000 calls taken back at once).
STREAMS_MAX = 1_000
# Calls of all connections that wait to be looked at. gRPC begins to turn calls away at 1,000, which is what a fleet of
# that size needs when it comes back at once; an idle call costs some 10 KiB.
CALLS_WAITING_SOFT_MAX = 10_000
CALLS_WAITING_MAX = 20_000
# A handshake takes milliseconds; gRPC would wait for two minutes, and hold a descriptor for as long.
HANDSHAKE_TIMEOUT_S = 10.0
# A connection without a call for so long is closed; a client that comes back connects again by itself.
CONNECTION_IDLE_S = 600.0

# Where a hub listens and where everybody looks for it when nobody says otherwise.
ADDRESS_DEFAULT = "127.0.0.1:7420"
# Where the hub is, for its clients. It begins like the hub's own settings, and the hub passes over it.
ADDRESS_VARIABLE = "AGENTCOM_HUB_ADDRESS"
