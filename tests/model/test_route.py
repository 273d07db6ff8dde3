"""
Tests of L{smtpreuse.model.route}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.nexthop import Candidate, Endpoint, Nexthop
from smtpreuse.model.policy import Level, Policy
from smtpreuse.model.route import Route, Site


class CandidateTests(SynchronousTestCase):
    """A route knows its candidates by endpoint."""

    def test_candidate(self) -> None:
        """The first with this address and port, or none."""
        candidates = tuple(
            Candidate(endpoint=Endpoint("192.0.2.1", port), host=host, preference=10, policy=Policy(level=Level.MAY))
            for port, host in ((25, "a.example.com"), (26, "b.example.com"), (26, "c.example.com"))
        )
        route = Route(
            nexthop=Nexthop(host="example.com"), site=Site(name="example.com"), candidates=candidates, good_until=1.0
        )
        self.assertIs(route.candidate(Endpoint("192.0.2.1", 26)), candidates[1])
        self.assertIsNone(route.candidate(Endpoint("192.0.2.2", 25)))
