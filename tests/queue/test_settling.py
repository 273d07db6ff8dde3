"""
Tests of L{smtpreuse.queue.settling}.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.content import MemoryContent
from smtpreuse.model.delivery import Blame, DeliveryReport, Ending, Outcome
from smtpreuse.model.message import Message
from smtpreuse.model.nexthop import Candidate, Nexthop
from smtpreuse.model.queueview import Recorded
from smtpreuse.model.route import Route, Site
from smtpreuse.queue.contentcache import ContentCache
from smtpreuse.queue.ledger import Ledger
from smtpreuse.queue.line import Job
from smtpreuse.queue.returns import Returns
from smtpreuse.queue.settling import Settling, SettlingRules, own_report
from tests.fakes import FakeLog, FakeRouter, FakeSpool, candidate
from tests.queue.world import RULES, START, message

ONE = candidate("mx1.example.com", "192.0.2.1")
TWO = candidate("mx2.example.com", "192.0.2.2")
DELIVERED, REFUSED, UNKNOWN, UNTOUCHED = Ending.DELIVERED, Ending.REFUSED, Ending.UNKNOWN, Ending.UNTOUCHED


class SettlingCase(SynchronousTestCase):
    """Settling with a ledger whose commits the test sees."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.log = FakeLog()
        self.contents = ContentCache(1000)
        self.recorded: list[Recorded] = []
        self.returned: list[tuple[Message, MemoryContent]] = []
        self.make()

    def make(self, *, sessions: int = 0, soft_bounce: bool = False) -> None:
        """With these rules."""
        spool = FakeSpool(self.clock.seconds)
        ledger = Ledger(spool, self.clock, lambda *_: None, lambda: None)
        self.patch(ledger, "enter", self.enter)
        returns = Returns(spool, FakeRouter(), self.log, lambda: "B1", "mail.example.com")
        rules = SettlingRules(retry=evolve(RULES.retry, soft_bounce=soft_bounce), sessions=sessions)
        self.settling = Settling(ledger, returns, self.log, self.contents, Random(1), rules)

    def enter(
        self, done: Sequence[Recorded], new: Sequence[tuple[Message, MemoryContent]] = (),
        instead: Sequence[Recorded] | None = None,
    ) -> None:  # fmt: skip
        """What the ledger is told."""
        self.recorded += done
        self.returned += new

    def job(self, *names: str, candidates: tuple[Candidate, ...] = (ONE, TWO), **values: object) -> Job:
        """A message to these recipients, at a site with two hosts."""
        given = message("Q1", *(f"{name}@example.com" for name in names or ("ann",)), **values)
        rows = tuple(evolve(each, row=row) for row, each in enumerate(given.recipients, start=1))
        route = Route(
            nexthop=Nexthop(host="example.com"), site=Site(name="example.com"), good_until=1e12, candidates=candidates
        )
        return Job(
            message=evolve(given, recipients=rows), hop="smtp:example.com", retry=False, since=START, route=route
        )

    def report(self, job: Job, *ended: tuple[Ending, str], **values: object) -> DeliveryReport:
        """So it ended for each recipient, on a fresh session with the first host."""
        outcomes = tuple(
            Outcome(recipient=each, ending=ending, status=status, text=f"host said: {status}")
            for each, (ending, status) in zip(job.message.recipients, ended, strict=True)
        )
        plain = DeliveryReport(
            ticket=1, outcomes=outcomes, started=START, ready=START + 1, finished=START + 2, uses=1,
            endpoint=ONE.endpoint, relay=ONE.relay,
        )  # fmt: skip
        return evolve(plain, **values)

    def finish(self, job: Job, *ended: tuple[Ending, str], **values: object) -> bool:
        """It ended like this; whether it is to be given out again."""
        return self.settling.finish(job, self.report(job, *ended, **values))

    def counted(self) -> tuple[int, int, int, int]:
        """Delivered, deferred, bounced, reused."""
        counters = self.settling.counters()
        return counters.delivered, counters.deferred, counters.bounced, counters.reused


class RecordTests(SettlingCase):
    """What was decided is recorded, logged and counted: once for each recipient."""

    def test_delivered(self) -> None:
        """Done; nobody is told, nothing is left."""
        self.assertFalse(self.finish(self.job(), (DELIVERED, "2.0.0")))
        self.assertEqual(self.recorded, [Recorded(queue_id="Q1", row=1, hop="smtp:example.com")])
        self.assertEqual(self.returned, [])
        self.assertEqual(self.log.lines, [
            "smtp: Q1: to=<ann@example.com>, relay=mx1.example.com[192.0.2.1]:25, delay=2, delays=0/0/1/1, dsn=2.0.0,"
            " status=sent (host said: 2.0.0)"
        ])  # fmt: skip
        self.assertEqual(self.counted(), (1, 0, 0, 0))

    def test_deferred(self) -> None:
        """Due again later, with the reason and one attempt more."""
        self.assertFalse(self.finish(self.job(candidates=(ONE,)), (REFUSED, "4.2.0")))
        (recorded,) = self.recorded
        assert recorded.next_attempt is not None
        self.assertTrue(START + 2 + 270 <= recorded.next_attempt <= START + 2 + 330)
        self.assertEqual((recorded.reason, recorded.attempts), ("host said: 4.2.0", 1))
        self.assertEqual(self.counted(), (0, 1, 0, 0))

    def test_unknown(self) -> None:
        """An unknown end goes nowhere at once, though another host is left."""
        self.assertFalse(self.finish(self.job(), (UNKNOWN, "4.4.2"), blame=Blame.SITE))
        self.assertEqual(([each.attempts for each in self.recorded], self.counted()), ([1], (0, 1, 0, 0)))

    def test_program(self) -> None:
        """The operator's log has it under the name of the transport."""
        job = self.job()
        self.settling.finish(job, self.report(job, (DELIVERED, "2.0.0")), "discard")
        self.assertTrue(self.log.lines[0].startswith("discard: Q1: "))

    def test_reused(self) -> None:
        """A transaction on a reused session is one, however many recipients it has."""
        self.finish(self.job("ann", "bob"), (DELIVERED, "2.0.0"), (DELIVERED, "2.0.0"), uses=2)
        self.assertEqual(self.counted(), (2, 0, 0, 1))
        self.assertEqual(len(self.log.having("conn_use=2")), 2)

    def test_counters_are_values(self) -> None:
        """What was read does not change."""
        before = self.settling.counters()
        self.finish(self.job(), (DELIVERED, "2.0.0"))
        self.assertEqual((before.delivered, self.settling.counters().delivered), (0, 1))


class ReturnTests(SettlingCase):
    """Who sent what failed is told."""

    def test_bounced(self) -> None:
        """The notification and the outcome are entered together, with the content from memory."""
        self.contents.put("Q1", b"Subject: hello\r\n\r\nhello\r\n")
        self.assertFalse(self.finish(self.job(sender="me@example.test"), (REFUSED, "5.1.1")))
        self.assertEqual([each.next_attempt for each in self.recorded], [None])
        ((notice, content),) = self.returned
        self.assertEqual((notice.queue_id, notice.recipients[0].address), ("B1", "me@example.test"))
        self.assertIn(b"Subject: hello\r\n", content.octets)
        self.assertEqual(self.counted(), (0, 0, 1, 0))

    def test_some_of_them(self) -> None:
        """One notification, for the recipients that failed; the others are recorded with it."""
        job = self.job("ann", "bob", "cat")
        self.finish(job, (DELIVERED, "2.0.0"), (REFUSED, "5.1.1"), (REFUSED, "5.2.1"))
        ((_, content),) = self.returned
        told = [content.octets.count(b"Final-Recipient: rfc822; %s@" % name) for name in (b"ann", b"bob", b"cat")]
        self.assertEqual((told, [each.row for each in self.recorded]), ([0, 1, 1], [1, 2, 3]))
        self.assertEqual(self.counted(), (1, 0, 2, 0))

    def test_null_sender(self) -> None:
        """Nobody sent it: it is recorded, and nobody is told."""
        self.finish(self.job(sender=""), (REFUSED, "5.1.1"))
        self.assertEqual(([each.row for each in self.recorded], self.returned), ([1], []))
        self.assertEqual(len(self.log.having("status=bounced")), 1)

    def test_expired(self) -> None:
        """4xx of a message whose time is over: returned, logged as expired, and counted as bounced."""
        self.finish(self.job(candidates=(ONE,), arrived=START - 432000), (REFUSED, "4.2.0"))
        self.assertEqual(self.log.having("qmgr"), [
            "qmgr: Q1: from=<from@example.com>, status=expired, returned to sender"
        ])  # fmt: skip
        self.assertEqual((len(self.returned), self.counted()), (1, (0, 0, 1, 0)))

    def test_soft_bounce(self) -> None:
        """With C{soft_bounce} what would bounce is deferred, and logged and counted so."""
        self.make(soft_bounce=True)
        self.finish(self.job(candidates=(ONE,)), (REFUSED, "5.1.1"))
        self.assertEqual(len(self.log.having("dsn=4.1.1, status=deferred")), 1)
        self.assertEqual(([each.attempts for each in self.recorded], self.returned), ([1], []))
        self.assertEqual(self.counted(), (0, 1, 0, 0))

    def test_soft_bounce_expired(self) -> None:
        """But not for ever: when its time is over it is returned, and counted as bounced."""
        self.make(soft_bounce=True)
        self.finish(self.job(candidates=(ONE,), arrived=START - 432000), (REFUSED, "5.1.1"))
        self.assertEqual((len(self.returned), self.counted()), (1, (0, 0, 1, 0)))


class AgainTests(SettlingCase):
    """What nothing was decided of is given out once more; no attempt is recorded, logged or counted for it."""

    def test_elsewhere(self) -> None:
        """A soft refusal goes to the next host, not to this one again; the operator sees why."""
        job = self.job()
        self.assertTrue(self.finish(job, (REFUSED, "4.2.0")))
        self.assertEqual((job.tried, job.sessions, job.fresh), (frozenset({ONE.endpoint}), 1, False))
        self.assertEqual((self.recorded, self.counted()), ([], (0, 0, 0, 0)))
        self.assertEqual(self.log.lines, ["smtp: Q1: host said: 4.2.0"])

    def test_nowhere_else(self) -> None:
        """When all hosts were tried it is deferred."""
        job = self.job()
        job.tried = frozenset({TWO.endpoint})
        self.assertFalse(self.finish(job, (REFUSED, "4.2.0")))
        self.assertEqual(len(self.log.having("status=deferred")), 1)

    def test_exhausted(self) -> None:
        """So it is when the agent has tried them all."""
        self.assertFalse(self.finish(self.job(), (REFUSED, "4.2.0"), exhausted=True))

    def test_no_route(self) -> None:
        """And what was never routed has nowhere else to go."""
        job = self.job()
        job.route = None
        self.assertFalse(self.finish(job, (REFUSED, "4.2.0")))

    def test_session_limit(self) -> None:
        """Not more sessions for one request than C{smtp_mx_session_limit}."""
        self.make(sessions=2)
        job = self.job()
        self.assertTrue(self.finish(job, (REFUSED, "4.2.0")))
        self.assertFalse(self.finish(job, (REFUSED, "4.2.0"), endpoint=TWO.endpoint))
        self.make(sessions=1)
        self.assertFalse(self.finish(self.job(), (REFUSED, "4.2.0")))

    def test_those_refused_only(self) -> None:
        """Only recipients that were refused go elsewhere; the others are done with."""
        job = self.job("ann", "bob", "cat")
        self.assertTrue(self.finish(job, (DELIVERED, "2.0.0"), (REFUSED, "4.2.0"), (REFUSED, "5.1.1")))
        self.assertEqual([each.address for each in job.message.recipients], ["bob@example.com"])
        self.assertEqual(([each.row for each in self.recorded], self.counted()), ([1, 3], (1, 0, 1, 0)))
        self.assertEqual(self.log.having("bob@example.com"), [])

    def test_untouched(self) -> None:
        """What a reused session failed asks for a new one, at any host."""
        job = self.job()
        given = job.message
        self.assertTrue(self.finish(job, (UNTOUCHED, "4.4.2"), uses=5))
        self.assertEqual((job.fresh, job.tried, job.sessions), (True, frozenset(), 1))
        self.assertIs(job.message, given)
        self.assertEqual((self.recorded, self.log.having("status=")), ([], []))

    def test_no_session(self) -> None:
        """Where there was no session none is counted, and there is nothing to log."""
        job = self.job()
        self.assertTrue(self.finish(job, (UNTOUCHED, "4.4.2"), uses=0, endpoint=None, relay="none"))
        self.assertEqual((job.sessions, self.log.lines), (0, []))


class AdoptTests(SettlingCase):
    """Other rules are for what is reported from then on."""

    def test_adopt(self) -> None:
        """Whether what fails bounces, and how many sessions a request may have."""
        self.settling.adopt(SettlingRules(retry=evolve(RULES.retry, soft_bounce=True), sessions=1))
        self.assertFalse(self.finish(self.job(), (REFUSED, "4.2.0")))
        self.assertFalse(self.finish(self.job(), (REFUSED, "5.1.1")))
        self.assertEqual(self.counted(), (0, 2, 0, 0))


class OwnReportTests(SynchronousTestCase):
    """A report of what needed no session."""

    def test_ending(self) -> None:
        """The status decides; it is final, it took no time, and no site is to blame."""
        recipients = message("Q1", "ann@example.com", "bob@example.com").recipients
        for status, ending in (("2.0.0", DELIVERED), ("4.3.0", REFUSED), ("5.1.1", REFUSED)):
            report = own_report(recipients, status, "so it is", START)
            self.assertEqual([each.recipient for each in report.outcomes], list(recipients))
            told = {(each.ending, each.status, each.text) for each in report.outcomes}
            self.assertEqual(told, {(ending, status, "so it is")})
            self.assertEqual((report.started, report.ready, report.finished), (START, START, START))
            self.assertEqual((report.uses, report.endpoint, report.relay), (0, None, "none"))
            self.assertEqual((report.exhausted, report.blame), (True, Blame.OURSELVES))
