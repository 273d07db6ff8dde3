"""
Tests of L{smtpreuse.model.queueid}.
"""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.queueid import DIGITS, QueueIds

LONG = re.compile(r"[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,}z[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-y]+")
LOOSE = re.compile(r"[0-9A-Za-z]{12,20}")
NUMBERS = st.integers(0, 51**9 - 1)


def number(text: str, base: int) -> int:
    """What the digits say."""
    value = 0
    for digit in text:
        value = value * base + DIGITS.index(digit)
    return value


class QueueIdsTests(SynchronousTestCase):
    """
    Queue ids look like Postfix's long ones, say when they were made, and none is made twice.
    """

    def test_known(self) -> None:
        """One worked out by hand: 1,700,000,000 s is 4:24:26:18:11:36 in base 52, 123,456 us is 0:45:34:8."""
        self.assertEqual(QueueIds(lambda: 1700000000.123456, 51**4 + 50).next(), "4SVLCh0sf8z1000y")

    @given(st.floats(1.0, 19e9), NUMBERS)
    def test_form(self, now: float, own: int) -> None:
        """The patterns of log tools match, and the parts say what went in."""
        text = QueueIds(lambda: now, own).next()
        self.assertTrue(LONG.fullmatch(text))
        self.assertTrue(LOOSE.fullmatch(text))
        self.assertEqual(number(text[:6], 52) * 1_000_000 + number(text[6:10], 52), int(now * 1_000_000))
        self.assertEqual((text[10], number(text[11:], 51)), ("z", own))
        self.assertGreaterEqual(len(text), 15)

    def test_within_one_microsecond(self) -> None:
        """While the clock stands, or steps back, ids go on in order, over a second's end too."""
        times = iter([99.999998] * 5 + [50.0] * 5 + [100.5])
        ids = QueueIds(lambda: next(times), 7)
        made = [ids.next() for _ in range(11)]
        self.assertEqual(made, sorted(set(made)))
        self.assertEqual(number(made[4][:6], 52), 100)
        self.assertEqual(number(made[-1][6:10], 52), 500_000)

    def test_own_number(self) -> None:
        """Makers with different numbers never make the same; a number that does not fit is refused."""
        self.assertNotEqual(QueueIds(lambda: 5.0, 1).next(), QueueIds(lambda: 5.0, 2).next())
        self.assertEqual(QueueIds(lambda: 5.0, 7).next(), "0000050000z0007")
        self.assertRaises(ValueError, QueueIds, lambda: 5.0, -1)
        self.assertRaises(ValueError, QueueIds, lambda: 5.0, 51**9)
