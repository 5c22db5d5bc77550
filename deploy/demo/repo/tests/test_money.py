from __future__ import annotations

import unittest

from tally.money import Money


class MoneyTest(unittest.TestCase):
    def test_an_amount_is_read_and_written_to_the_cent(self) -> None:
        self.assertEqual(str(Money.parse("12.5 EUR")), "12.50 EUR")
        self.assertEqual(Money.parse("-0.05"), Money(-5))
        self.assertEqual(str(Money(-5)), "-0.05 EUR")

    def test_currencies_do_not_mix(self) -> None:
        with self.assertRaises(ValueError):
            Money(1, "EUR") + Money(1, "USD")
