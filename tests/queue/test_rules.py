"""
Tests of L{smtpreuse.queue.rules}.
"""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.queue.settling import SettlingRules
from smtpreuse.queue.traffic import TrafficRules
from tests.queue.world import RULES


class DispatchRulesTests(SynchronousTestCase):
    """Each part of the queue finds its own rules in the whole."""

    def test_parts(self) -> None:
        """Lanes, and the end of reports."""
        rules = evolve(RULES, lane_limit=7, request_sessions=3)
        self.assertEqual(rules.traffic, TrafficRules(site=RULES.site, lanes=7, pause=300.0))
        self.assertEqual(rules.settling, SettlingRules(retry=RULES.retry, sessions=3))

    def test_search(self) -> None:
        """A tenth of the least pause before a retry, within bounds."""
        for backoff, expected in ((1.0, 0.2), (100.0, 10.0), (3600.0, 30.0)):
            rules = evolve(RULES, retry=evolve(RULES.retry, minimal_backoff=backoff))
            self.assertEqual(rules.search_every, expected)
