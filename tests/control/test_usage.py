"""
Tests of L{smtpreuse.control.usage}.
"""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.control import usage


class UsageTests(SynchronousTestCase):
    """What the process uses is what the system says."""

    def test_usage(self) -> None:
        """Resident octets are in the order of the peak that the system knows, and time was spent."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        used = usage.usage()
        assert used.rss is not None
        self.assertTrue(peak / 10 < used.rss < peak * 2, (used.rss, peak))
        self.assertGreater(used.cpu, 0)

    def test_not_told(self) -> None:
        """Without /proc nothing is claimed."""
        self.assertIsNone(usage._resident(self.mktemp()))
