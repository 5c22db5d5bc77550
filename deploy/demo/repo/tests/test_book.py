from __future__ import annotations

import unittest

from tally.book import Book
from tally.money import Money


class BookTest(unittest.TestCase):
    def test_a_total_is_the_sum_of_the_entries(self) -> None:
        book = Book()
        book.add("coffee", Money.parse("2.40"))
        book.add("train", Money.parse("31.10"))
        self.assertEqual(book.total(), Money.parse("33.50"))
