"""The book: entries in the order in which they were made."""

from __future__ import annotations

from dataclasses import dataclass, field

from tally.money import Money


@dataclass(frozen=True)
class Entry:
    """One expense."""

    text: str
    amount: Money


@dataclass
class Book:
    """Entries, and what they come to."""

    entries: list[Entry] = field(default_factory=list)

    def add(self, text: str, amount: Money) -> Entry:
        """Write down an expense."""
        entry = Entry(text, amount)
        self.entries.append(entry)
        return entry

    def total(self) -> Money:
        """The sum of all entries, which must be of one currency."""
        return sum((entry.amount for entry in self.entries[1:]), start=self.entries[0].amount)
