"""
Tests of L{smtpreuse.roles.descriptors}.
"""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.roles.descriptors import allow_sessions


class AllowSessionsTests(SynchronousTestCase):
    """The limit of descriptors is raised where it is too low, and left alone where it is not."""

    def setUp(self) -> None:
        soft, self.hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, self.hard))
        if self.hard != resource.RLIM_INFINITY and self.hard < 4100:
            self.skipTest("the hard limit leaves no room")

    def soft(self) -> int:
        """The limit now."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def test_raised(self) -> None:
        """As far as is needed."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, self.hard))
        self.assertEqual((allow_sessions(1000), self.soft()), (4000, 4000))

    def test_left_alone(self) -> None:
        """It is never lowered."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (4050, self.hard))
        self.assertEqual((allow_sessions(1000), self.soft()), (4050, 4050))

    def test_hard_limit(self) -> None:
        """No further than the hard limit."""
        if self.hard == resource.RLIM_INFINITY:
            self.skipTest("there is no hard limit")
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, self.hard))
        self.assertEqual((allow_sessions(self.hard), self.soft()), (self.hard, self.hard))
