"""
Tests of L{smtpreuse.queue.hop}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.queue.hop import Hop


class HopTests(SynchronousTestCase):
    """A hop knows what it is and how much of it is in memory."""

    def test_parts(self) -> None:
        """The nexthop may have colons of its own."""
        hop = Hop("smtp:[2001:db8::1]:2525")
        self.assertEqual((hop.transport, hop.nexthop), ("smtp", "[2001:db8::1]:2525"))

    def test_room(self) -> None:
        """At least ten; twice the window where that is more; less what waits."""
        hop = Hop("smtp:example.com")
        self.assertEqual([hop.room(window) for window in (1, 5, 6, 20)], [10, 10, 12, 40])
        hop.waiting = 4
        self.assertEqual([hop.room(window) for window in (1, 20)], [6, 36])

    def test_idle(self) -> None:
        """Idle with nothing in memory and nothing that waits to be."""
        hop = Hop("smtp:example.com")
        self.assertTrue(hop.idle)
        hop.rows.add(1)
        self.assertFalse(hop.idle)
        hop.rows.clear()
        for name in ("backlog", "hungry"):
            setattr(hop, name, True)
            self.assertFalse(hop.idle)
            setattr(hop, name, False)
