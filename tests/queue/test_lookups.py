"""
Tests of L{smtpreuse.queue.lookups}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.queue.hop import Hop
from smtpreuse.queue.line import Job
from smtpreuse.queue.lookups import AT_ONCE, Lookups
from tests.queue.world import message


class LookupsTests(SynchronousTestCase):
    """So many look-ups at a time; the others follow in the order in which they were wanted."""

    def setUp(self) -> None:
        self.begun: list[str] = []
        self.answers: list[Deferred[None]] = []
        self.sync = False
        self.lookups = Lookups(self.resolve)

    async def resolve(self, hop: Hop) -> None:
        self.begun.append(hop.text)
        if not self.sync:
            answer: Deferred[None] = Deferred()
            self.answers.append(answer)
            await answer

    def want(self, count: int) -> list[str]:
        """So many hops are wanted; their names."""
        names = [f"smtp:{number}.example.com" for number in range(count)]
        for name in names:
            self.lookups.want(Hop(name))
        return names

    def test_at_once(self) -> None:
        """No more than that are under way, and none is forgotten."""
        names = self.want(AT_ONCE + 2)
        self.assertEqual(self.begun, names[:AT_ONCE])
        self.answers[7].callback(None)
        self.assertEqual(self.begun, names[: AT_ONCE + 1])
        for answer in self.answers[8:]:
            answer.callback(None)
        self.assertEqual(self.begun, names)

    def test_tried_before(self) -> None:
        """Hops whose mail was tried before wait behind those of fresh mail: their name servers are slow, mostly."""
        self.want(AT_ONCE)
        tried, fresh = Hop("smtp:tried.example.com"), Hop("smtp:fresh.example.com")
        for hop, retry in ((tried, True), (fresh, False)):
            hop.unrouted = [Job(message=message("Q1"), hop=hop.text, retry=retry, since=0.0)]
            self.lookups.want(hop)
        for answer in self.answers[:2]:
            answer.callback(None)
        self.assertEqual(self.begun[AT_ONCE:], [fresh.text, tried.text])

    def test_answered_from_memory(self) -> None:
        """Thousands that need not wait do not pile up on the stack."""
        self.want(AT_ONCE)
        names = self.want(5000)
        self.sync = True
        self.answers[0].callback(None)
        self.assertEqual(self.begun[AT_ONCE:], names)

    def test_fault(self) -> None:
        """One that fails takes no other along."""
        self.want(AT_ONCE)
        self.want(1)
        for answer in self.answers[:AT_ONCE]:
            answer.errback(RuntimeError("a fault of ours"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), AT_ONCE)
        self.assertEqual(len(self.begun), AT_ONCE + 1)
        self.answers[-1].callback(None)
        self.want(1)
        self.assertEqual(len(self.begun), AT_ONCE + 2)
