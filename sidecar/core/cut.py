"""Cutting text to a size in UTF-8 bytes without breaking a character."""

from __future__ import annotations


def head(text: str, bytes_max: int) -> str:
    """The beginning of `text`, at most `bytes_max` bytes long."""
    data = text.encode(errors="replace")
    return text if len(data) <= bytes_max else data[:bytes_max].decode(errors="ignore")


def tail(text: str, bytes_max: int) -> str:
    """The end of `text`, at most `bytes_max` bytes long."""
    data = text.encode(errors="replace")
    return text if len(data) <= bytes_max else data[len(data) - bytes_max :].decode(errors="ignore")


def line(text: str, bytes_max: int) -> str:
    """`text` as one line: white space folded, cut at its end."""
    return head(" ".join(text.split()), bytes_max)


def last_line(text: str, bytes_max: int) -> str:
    """The last line that holds anything; empty when none does."""
    for candidate in reversed(text.splitlines()):
        if candidate.strip():
            return line(candidate, bytes_max)
    return ""
