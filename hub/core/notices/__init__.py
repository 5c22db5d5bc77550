"""Notices: what people are told, at once or in a digest, and what waits for whom."""
