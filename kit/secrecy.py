"""What looks like a secret, and how it is taken out of a text: for log lines, for errors, for whatever is kept.

By its look only, so it is the last line of defence: a password without a form of its own is not known by it.
"""

from __future__ import annotations

import re
from typing import Final

from kit import tokens

HIDDEN: Final = "[hidden]"

_SECRET: Final = re.compile(
    "|".join(
        (
            tokens.PATTERN.pattern,
            r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",  # user:password in a URL
            r"(?i:(?<=bearer )|(?<=basic ))[A-Za-z0-9._~+/=-]{8,}",
            r"\bsk-[A-Za-z0-9_-]{16,}",  # keys of model providers
            r"\bgh[oprsu]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}|\bglpat-[A-Za-z0-9_-]{16,}",  # forges
        )
    )
)


def hide(text: str) -> str:
    """The text without what looks like a secret."""
    return _SECRET.sub(HIDDEN, text)
