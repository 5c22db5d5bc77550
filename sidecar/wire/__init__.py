"""The session with the hub: stream, ledger, journal, and what is held."""
