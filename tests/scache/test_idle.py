"""
Tests of L{smtpreuse.scache.idle}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.route import Site
from smtpreuse.scache import idle
from smtpreuse.scache.idle import IdleTimes

ONE, OTHER = Site(name="one.example.com"), Site(name="other.example.com")


class IdleTimesTests(SynchronousTestCase):
    """A site's limit for sessions at rest is learned when it shows twice in a row, and is forgotten after a day."""

    def setUp(self) -> None:
        self.times = IdleTimes()

    def test_once_is_chance(self) -> None:
        """Nothing is learned from one end."""
        self.assertIsNone(self.times.limit(ONE, 0.0))
        self.times.ended(ONE, 0.0, 10.0)
        self.assertIsNone(self.times.limit(ONE, 10.0))

    def test_twice_is_a_limit(self) -> None:
        """Nine tenths of the shorter of two equal rests; for this site only."""
        self.times.ended(ONE, 0.0, 10.0)
        self.times.ended(ONE, 10.0, 21.0)
        self.assertEqual((self.times.limit(ONE, 21.0), self.times.limit(OTHER, 21.0)), (9.0, None))
        self.times.ended(ONE, 30.0, 40.0)
        self.assertEqual(self.times.limit(ONE, 40.0), 9.0)

    def test_other_rest(self) -> None:
        """Rests of different length say nothing, and what was believed is not believed any more."""
        self.times.ended(ONE, 0.0, 10.0)
        self.times.ended(ONE, 10.0, 21.1)
        self.assertIsNone(self.times.limit(ONE, 21.1))
        self.times.ended(ONE, 30.0, 41.0)
        self.assertIsNotNone(self.times.limit(ONE, 41.0))
        self.times.ended(ONE, 50.0, 53.0)
        self.assertIsNone(self.times.limit(ONE, 53.0))

    def test_ended_together(self) -> None:
        """Sessions that rested side by side and were ended side by side are one end: the server was started anew."""
        for number in range(5):
            self.times.ended(ONE, 0.0 + number / 100, 10.0 + number / 100)
        self.assertIsNone(self.times.limit(ONE, 11.0))
        self.times.ended(ONE, 10.0, 20.0)
        self.assertIsNotNone(self.times.limit(ONE, 20.0))

    def test_ended_at_once(self) -> None:
        """An end within two seconds is no idle limit, and changes nothing of what is known."""
        for start in (0.0, 10.0, 20.0):
            self.times.ended(ONE, start, start + 1.9)
        self.assertEqual((len(self.times), self.times.limit(ONE, 30.0)), (0, None))
        for start in (30.0, 40.0):
            self.times.ended(ONE, start, start + 2.0)
        self.times.ended(ONE, 50.0, 51.0)
        self.assertEqual(self.times.limit(ONE, 51.0), 1.8)

    def test_believed_for_a_day(self) -> None:
        """The server may have been told otherwise since."""
        self.times.ended(ONE, 0.0, 10.0)
        self.times.ended(ONE, 10.0, 20.0)
        self.assertEqual(self.times.limit(ONE, 20.0 + 86399.0), 9.0)
        self.assertIsNone(self.times.limit(ONE, 20.0 + 86400.0))

    def test_bounded(self) -> None:
        """Of too many sites the one that was heard of longest ago is forgotten."""
        self.patch(idle, "_MOST", 2)
        third = Site(name="third.example.com")
        for start in (0.0, 100.0):
            for site in (ONE, OTHER):
                self.times.ended(site, start, start + 10.0)
        self.times.ended(third, 200.0, 210.0)
        self.assertEqual(len(self.times), 2)
        self.assertIsNone(self.times.limit(ONE, 210.0))
        self.assertEqual(self.times.limit(OTHER, 210.0), 9.0)
