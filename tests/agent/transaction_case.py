"""
What the tests of transactions share.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.agent.outcomes import Result
from smtpreuse.agent.session import OpenSession
from smtpreuse.agent.transaction import Transaction
from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.content import Content
from smtpreuse.model.delivery import Blame, Ending
from tests.agent.world import CONTENT, PIPELINING, PLAIN, open_session, request, started
from tests.fakes import FakeEnd

DELIVERED, REFUSED, UNKNOWN, UNTOUCHED = Ending.DELIVERED, Ending.REFUSED, Ending.UNKNOWN, Ending.UNTOUCHED


class TransactionCase(SynchronousTestCase):
    """A transaction with a server that the test plays."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.end = FakeEnd()

    def begin(
        self, *names: str, uses: int = 0, capabilities: Capabilities = PIPELINING, unclean: bool = False,
        content: Content = CONTENT, **values: object,
    ) -> Deferred[Result]:  # fmt: skip
        """Begin one to these recipients, on a session that has had so many."""
        self.open: OpenSession = open_session(self.end, self.clock, capabilities=capabilities, uses=uses)
        self.open.unclean = unclean
        self.transaction = Transaction(self.open, request(*names, content=content, **values))
        return started(self.transaction.run())

    def one_by_one(self, *names: str, uses: int = 0) -> Deferred[Result]:
        """Begin one with a server without PIPELINING."""
        return self.begin(*names, uses=uses, capabilities=PLAIN)

    def ends(self, running: Deferred[Result], *endings: Ending, blame: Blame = Blame.NOBODY) -> Result:
        """It is over, like this for each recipient."""
        result = self.successResultOf(running)
        self.assertEqual([each.ending for each in result.outcomes], list(endings))
        self.assertEqual([each.recipient for each in result.outcomes], list(self.transaction._request.recipients))
        self.assertIs(result.blame, blame)
        return result
