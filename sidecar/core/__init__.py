"""The sidecar's rules: pure, without asyncio, processes or files."""
