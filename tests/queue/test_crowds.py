"""
Tests of L{smtpreuse.queue.crowds}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.route import Site
from smtpreuse.queue.crowds import Crowds
from smtpreuse.queue.hop import LEAST_ROOM, Hop
from smtpreuse.queue.sitequeue import CROWD, SiteQueue
from tests.queue.test_sitequeue import job
from tests.queue.world import SITE_RULES

MOST = CROWD * LEAST_ROOM


class CrowdsTests(SynchronousTestCase):
    """Hops wait for their site, and go on one by one as it empties."""

    def setUp(self) -> None:
        self.wanted: list[str] = []
        self.crowds = Crowds(lambda hop: self.wanted.append(hop.text))
        self.queue = SiteQueue(Site(name="example.com"), SITE_RULES, Clock())
        for number in range(MOST):
            self.queue.lines.put(job(f"Q{number}"), frozenset())
        self.hops = [Hop(f"smtp:{number}.example.com") for number in range(3)]
        for hop in self.hops:
            self.crowds.put(self.queue, hop)
            self.crowds.put(self.queue, hop)

    def test_crowded(self) -> None:
        """Twenty times as much as one hop may hold."""
        self.assertTrue(self.queue.crowded)
        self.queue.lines.take(None)
        self.assertFalse(self.queue.crowded)
        self.queue.window.size = 20
        self.queue.lines.put(job("Q"), frozenset())
        self.assertFalse(self.queue.crowded)

    def test_less(self) -> None:
        """None while it is crowded, then one each time."""
        self.crowds.less(self.queue)
        self.assertEqual(self.wanted, [])
        self.queue.lines.take(None)
        for number in range(5):
            self.crowds.less(self.queue)
            self.assertEqual(self.wanted, [hop.text for hop in self.hops][: number + 1])

    def test_tidy(self) -> None:
        """All where it is not crowded any more, and where the site is forgotten."""
        self.crowds.tidy({"example.com": self.queue})
        self.assertEqual(self.wanted, [])
        self.queue.lines.take(None)
        self.crowds.tidy({"example.com": self.queue})
        self.assertEqual(self.wanted, [hop.text for hop in self.hops])
        self.crowds.put(self.queue, self.hops[0])
        self.crowds.tidy({})
        self.assertEqual(self.wanted[3:], [self.hops[0].text])
