"""Keeping the hub whole: backups by the clock and by hand, and the doctor."""
