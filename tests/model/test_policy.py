"""
Tests of L{smtpreuse.model.policy}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.policy import Level


class LevelTests(SynchronousTestCase):
    """Levels are ordered by strength."""

    def test_order(self) -> None:
        """The stronger is the higher, with Postfix's numbers."""
        self.assertEqual(sorted(Level), [Level.NONE, Level.MAY, Level.ENCRYPT])
        self.assertEqual([int(level) for level in Level], [0, 1, 2])
