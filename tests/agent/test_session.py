"""
Tests of L{smtpreuse.agent.session}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.agent.session import Limits, Session
from smtpreuse.config.load import settings_of
from smtpreuse.errors import SessionLost
from smtpreuse.interfaces import IStreamReceiver
from smtpreuse.model.reply import Reply
from smtpreuse.model.reuse import Plaintext
from smtpreuse.smtp.client import Client, Verb
from tests.agent.world import RELAY, limits, open_session, started
from tests.fakes import FakeEnd


class LimitsTests(SynchronousTestCase):
    """The limits are those of main.cf."""

    def test_of(self) -> None:
        """Each phase has its parameter."""
        of = Limits.of(settings_of(
            smtp_helo_timeout="1s", smtp_starttls_timeout="2s", smtp_mail_timeout="3s", smtp_rcpt_timeout="4s",
            smtp_data_init_timeout="5s", smtp_data_xfer_timeout="6s", smtp_data_done_timeout="7s",
            smtp_rset_timeout="8s", smtp_quit_timeout="9s", smtp_per_request_deadline="yes",
        ))  # fmt: skip
        self.assertEqual(
            [of.replies[verb] for verb in Verb], [1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 8.0, 9.0], list(Verb)
        )
        self.assertEqual((of.body, of.whole, of.shortest), (6.0, True, 1.0))

    def test_shortest(self) -> None:
        """The body's limit counts, too."""
        self.assertEqual(Limits.of(settings_of(smtp_data_xfer_timeout="1s")).shortest, 1.0)


class SessionTests(SynchronousTestCase):
    """Replies come in order, and every wait has its limit."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.end = FakeEnd()

    def session(self, client: Client | None = None, *, whole: bool = False) -> Session:
        """One that waits for its greeting, or with another grammar."""
        return Session(self.end, client or Client(), self.clock, limits(whole=whole), RELAY)

    def lost(self, running: Deferred[Reply]) -> SessionLost:
        """Why it failed."""
        return self.failureResultOf(running, SessionLost).value  # type: ignore[no-any-return]  # Failure has no type for it

    def test_interface(self) -> None:
        """It can listen to a stream end."""
        verifyObject(IStreamReceiver, self.session())

    def test_answer(self) -> None:
        """A reply comes when it is complete."""
        session = self.session()
        running = started(session.answer())
        self.end.say("220-mx.example.com")
        self.assertNoResult(running)
        self.end.say("220 ready")
        self.assertEqual(self.successResultOf(running).code, 220)

    def test_answer_was_there(self) -> None:
        """A reply that came before it was asked for is not waited for."""
        session = self.session()
        self.end.say("220 ready")
        self.assertEqual(self.successResultOf(started(session.answer())).code, 220)

    def test_closed(self) -> None:
        """The peer closes: the words say with whom, and what was going on."""
        running = started(self.session().answer())
        self.end.hang_up()
        lost = self.lost(running)
        self.assertEqual(str(lost), f"lost connection with {RELAY} while receiving the initial server greeting")
        self.assertEqual(lost.stage, "receiving the initial server greeting")
        self.assertTrue(self.end.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_first_reason_stays(self) -> None:
        """What follows a loss does not change its reason."""
        session = self.session()
        session.fail("first")
        session.ended("second")
        assert session.lost is not None
        self.assertEqual(session.lost.reason, "first")

    def test_fewer_answers(self) -> None:
        """What came before the loss is given."""
        session = self.session(Client.activated())
        session.send(session.client.mail("") + session.client.rcpt("ann@example.com"))
        running = started(session.answers(2))
        self.end.say("250 ok")
        self.end.hang_up()
        self.assertEqual([each.reply.code for each in self.successResultOf(running)], [250])

    def test_each_piece_has_its_time(self) -> None:
        """Without C{smtp_per_request_deadline} the limit begins anew with each piece of a reply."""
        running = started(self.session().answer())
        for _ in range(5):
            self.clock.advance(30.0)
            self.end.say("220-still")
        self.clock.advance(30.0)
        self.end.say("220 ready")
        self.assertEqual(self.successResultOf(running).code, 220)

    def test_each_piece_is_waited_for(self) -> None:
        """And no longer than that."""
        running = started(self.session().answer())
        self.clock.advance(30.0)
        self.end.say("220-still")
        self.clock.pump([0.5] * 61)
        self.assertNoResult(running)
        self.clock.advance(0.5)
        self.assertEqual(
            str(self.lost(running)), f"conversation with {RELAY} timed out while receiving the initial server greeting"
        )

    def test_whole(self) -> None:
        """With it, the limit is that of the whole reply: one octet at a time does not hold a session for ever."""
        running = started(self.session(whole=True).answer())
        for _ in range(3):
            self.clock.advance(10.0)
            self.end.say("220-still")
        self.assertNoResult(running)
        self.clock.advance(1.0)
        self.assertIn("timed out", str(self.lost(running)))

    def test_whole_is_of_each_reply(self) -> None:
        """Each reply of a group has its own limit even so."""
        session = self.session(Client.activated(), whole=True)
        session.send(session.client.mail("") + session.client.rcpt("ann@example.com"))
        running = started(session.answers(2))
        self.clock.advance(34.0)
        self.end.say("250 ok")
        self.clock.advance(35.0)
        self.assertNoResult(running)
        self.end.say("250 ok")
        self.assertEqual(len(self.successResultOf(running)), 2)

    def test_first_reply_after_rest(self) -> None:
        """Whoever comes from a rest is waited for no longer than C{smtp_rset_timeout}."""
        session = self.session(Client.activated())
        session.doubtful = True
        session.send(session.client.mail(""))
        running = started(session.answer())
        self.clock.advance(19.5)
        self.assertNoResult(running)
        self.clock.advance(0.5)
        self.assertEqual(str(self.lost(running)), f"conversation with {RELAY} timed out while sending MAIL FROM")

    def test_second_reply_after_rest(self) -> None:
        """Once it was heard it has the time of any other."""
        session = self.session(Client.activated())
        session.doubtful = True
        session.send(session.client.mail("") + session.client.rcpt("ann@example.com"))
        running = started(session.answers(2))
        self.end.say("250 ok")
        self.clock.advance(35.0)
        self.assertNoResult(running)

    def test_nothing_wanted_nothing_timed(self) -> None:
        """While nobody waits, time is no reason to end."""
        session = self.session()
        self.end.say("220 ready")
        self.successResultOf(started(session.answer()))
        self.clock.advance(1e6)
        self.assertIsNone(session.lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_timer(self) -> None:
        """One wait after the other, never more than one timer."""
        session = self.session(Client.activated())
        for _ in range(3):
            session.send(session.client.rset())
            running = started(session.answer())
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.end.say("250 ok")
            self.successResultOf(running)
            self.clock.advance(5)

    def test_late_timer(self) -> None:
        """A timer left from an earlier wait does not cut a later one short, nor let it run too long."""
        session = self.session(Client.activated())
        session.send(session.client.rset())
        running = started(session.answer())
        self.clock.advance(19.0)
        self.end.say("250 ok")
        self.successResultOf(running)
        session.send(session.client.mail(""))
        running = started(session.answer())
        self.clock.pump([0.5] * 69)
        self.assertNoResult(running)
        self.clock.advance(0.5)
        self.lost(running)

    def test_shorter_limit(self) -> None:
        """A wait with a shorter limit than the one before ends in time."""
        session = self.session(Client.activated())
        session.send(session.client.mail(""))
        running = started(session.answer())
        self.end.say("250 ok")
        self.successResultOf(running)
        session.send(session.client.rset())
        running = started(session.answer())
        self.clock.advance(20.0)
        self.lost(running)

    def test_hung_up(self) -> None:
        """It is known who ended it."""
        session = self.session()
        self.end.hang_up()
        self.assertTrue(session.hung_up)

    def test_room(self) -> None:
        """Room is there at once, or when the end has drained."""
        session = self.session()
        self.successResultOf(started(session.room()))
        self.end.full = True
        running = started(session.room())
        self.assertNoResult(running)
        self.end.drain()
        self.successResultOf(running)

    def test_room_when_lost(self) -> None:
        """Nobody waits for room on a lost session."""
        session = self.session()
        self.end.full = True
        running = started(session.room())
        self.end.hang_up()
        self.successResultOf(running)
        self.successResultOf(started(session.room()))

    def test_stray(self) -> None:
        """A reply that nobody asked for ends the session and is kept."""
        session = self.session(Client.activated())
        self.end.say("421 4.4.2 idle too long")
        assert session.lost is not None and session.stray is not None
        self.assertEqual(session.stray.code, 421)
        self.assertTrue(self.end.aborted)
        self.assertFalse(session.hung_up)

    def test_protocol_error(self) -> None:
        """Garbage names the stage at which it came."""
        session = self.session()
        running = started(session.answer())
        self.end.say("HTTP/1.1 400 Bad Request")
        lost = self.lost(running)
        self.assertIn("protocol error from", lost.reason)
        self.assertEqual(lost.stage, "receiving the initial server greeting")

    def test_leave(self) -> None:
        """The stream is let go of as it is, without a timer."""
        session = self.session()
        self.end.say("220 ready")
        self.successResultOf(started(session.answer()))
        self.assertIs(session.leave(), self.end)
        self.assertEqual((self.end.closed, self.end.aborted), (False, False))
        self.assertIsNotNone(session.lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_retire(self) -> None:
        """Whoever waits learns that it is over."""
        session = self.session()
        running = started(session.answer())
        session.retire()
        self.lost(running)
        self.assertEqual((self.end.taken(), self.end.aborted), (b"", True))


class QuitTests(SynchronousTestCase):
    """Sessions end politely where that is possible."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.end = FakeEnd()
        self.session = Session(self.end, Client.activated(), self.clock, limits(), RELAY)

    def test_quit(self) -> None:
        """QUIT, its reply, close."""
        running = started(self.session.quit())
        self.assertEqual(self.end.taken(), b"QUIT\r\n")
        self.assertNoResult(running)
        self.end.say("221 bye")
        self.successResultOf(running)
        self.assertEqual((self.end.closed, self.end.aborted), (True, False))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closes_instead(self) -> None:
        """Nobody minds a server that closes at once."""
        running = started(self.session.quit())
        self.end.hang_up()
        self.successResultOf(running)

    def test_stalls(self) -> None:
        """The answer to QUIT has its limit, too."""
        running = started(self.session.quit())
        self.clock.pump([1.0] * 38)
        self.assertNoResult(running)
        self.clock.advance(1.0)
        self.successResultOf(running)
        self.assertTrue(self.end.aborted)

    def test_lost(self) -> None:
        """Nothing is said on a lost session."""
        self.session.fail("over")
        self.successResultOf(started(self.session.quit()))
        self.assertEqual(self.end.taken(), b"")

    def test_in_data(self) -> None:
        """In the middle of DATA there is no polite word."""
        client = self.session.client
        self.session.send(client.mail("") + client.rcpt("ann@example.com") + client.data())
        self.end.taken()
        self.successResultOf(started(self.session.quit()))
        self.assertEqual((self.end.taken(), self.end.aborted), (b"", True))

    def test_part(self) -> None:
        """QUIT and a close, without waiting; retiring it afterwards does not take the word back."""
        self.session.part()
        self.assertEqual((self.end.taken(), self.end.closed), (b"QUIT\r\n", True))
        self.session.retire()
        self.assertFalse(self.end.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_part_while_a_reply_is_due(self) -> None:
        """Where a reply is due there is no polite word without waiting."""
        self.session.send(self.session.client.mail(""))
        self.end.taken()
        self.session.part()
        self.assertEqual((self.end.taken(), self.end.aborted), (b"", True))


class OpenSessionTests(SynchronousTestCase):
    """A session knows what it is still good for."""

    def setUp(self) -> None:
        self.end = FakeEnd()

    def test_uses(self) -> None:
        """Its facts have the uses of now."""
        session = open_session(self.end, Clock(), uses=2)
        self.assertEqual(session.carrier.facts.uses, 2)
        self.assertIs(session.carrier, session.carrier)
        session.uses = 3
        self.assertEqual((session.carrier.facts.uses, session.facts.uses), (3, 3))
        self.assertEqual(session.carrier.key, session.key)

    def test_usable(self) -> None:
        """Usable until it is lost or spoilt."""
        session = open_session(self.end, Clock())
        self.assertTrue(session.usable)
        session.spoilt = "550"
        self.assertFalse(session.usable)
        session.spoilt = ""
        session.session.fail("gone")
        self.assertFalse(session.usable)

    def test_single(self) -> None:
        """A plaintext fallback, or a session that may not be reused, serves its one request."""
        for values in ({"plaintext": Plaintext.FAILED}, {"plaintext": Plaintext.REFUSED}, {"reusable": False}):
            self.assertFalse(open_session(self.end, Clock(), **values).usable, values)
        self.assertTrue(open_session(self.end, Clock(), plaintext=Plaintext.NOT_OFFERED).usable)
