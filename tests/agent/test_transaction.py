"""
Tests of L{smtpreuse.agent.transaction}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.agent.session import OpenSession
from smtpreuse.agent.transaction import Result, Transaction
from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.content import Content, FileContent, MemoryContent
from smtpreuse.model.delivery import Blame, Ending
from smtpreuse.model.message import Body
from tests.agent.world import CONTENT, PIPELINING, PLAIN, RELAY, open_session, request, started
from tests.fakes import FakeEnd

ENVELOPE = b"MAIL FROM:<from@example.com> SIZE=25\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n"
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


class PipelinedTests(TransactionCase):
    """With PIPELINING the envelope is one group, the content another."""

    def test_delivered(self) -> None:
        """Two flights; the session is good for another."""
        running = self.begin()
        self.assertEqual(self.end.taken(), ENVELOPE)
        self.end.say("250 2.1.0 sender ok", "250 2.1.5 recipient ok", "354 go on")
        self.assertEqual(self.end.taken(), b"Subject: hello\r\n\r\nhello\r\n.\r\n")
        self.assertNoResult(running)
        self.end.say("250 2.0.0 Ok: queued as 12345")
        (outcome,) = self.ends(running, DELIVERED).outcomes
        self.assertEqual((outcome.status, outcome.text), ("2.0.0", "250 2.0.0 Ok: queued as 12345"))
        assert outcome.reply is not None
        self.assertEqual(outcome.reply.code, 250)
        self.assertEqual((self.open.uses, self.open.usable, self.open.unclean), (1, True, False))

    def test_reused_needs_no_rset(self) -> None:
        """A session at rest begins at once with MAIL."""
        running = self.begin(uses=3)
        self.assertEqual(self.end.taken(), ENVELOPE)
        self.end.say("250 ok", "250 ok", "354 go on")
        self.end.say("250 done")
        self.ends(running, DELIVERED)
        self.assertEqual(self.open.uses, 4)
        self.assertEqual(self.open.facts.uses, 4)

    def test_replies_in_pieces(self) -> None:
        """Replies may come octet by octet."""
        running = self.begin("ann", "bob")
        assert self.end.receiver is not None
        for octet in b"250-ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n":
            self.end.receiver.received(bytes((octet,)))
        self.assertTrue(self.end.taken().endswith(b"\r\n.\r\n"))
        self.end.say("250 done")
        self.ends(running, DELIVERED, DELIVERED)

    def test_parameters(self) -> None:
        """SIZE and BODY are declared where they are offered."""
        for capabilities, body, expected in (
            (PLAIN, Body.EIGHT_BIT, b"MAIL FROM:<from@example.com>\r\n"),
            (PIPELINING, Body.EIGHT_BIT, b"MAIL FROM:<from@example.com> SIZE=25 BODY=8BITMIME\r\n"),
            (PIPELINING, Body.SEVEN_BIT, b"MAIL FROM:<from@example.com> SIZE=25 BODY=7BIT\r\n"),
            (PIPELINING, Body.UNKNOWN, b"MAIL FROM:<from@example.com> SIZE=25\r\n"),
            (Capabilities(eight_bit=True), Body.EIGHT_BIT, b"MAIL FROM:<from@example.com> BODY=8BITMIME\r\n"),
        ):
            self.begin(capabilities=capabilities, body=body)
            self.assertEqual(self.end.taken().split(b"\n")[0] + b"\n", expected)

    def test_null_sender(self) -> None:
        """A bounce has no sender."""
        self.begin(sender="", capabilities=PLAIN)
        self.assertEqual(self.end.taken(), b"MAIL FROM:<>\r\n")

    def test_partial_refusal(self) -> None:
        """Recipients that are refused have their own reply; the others are delivered."""
        running = self.begin("ann", "bob", "cat")
        self.end.say("250 ok", "250 ok", "550 5.1.1 no bob", "450 4.2.0 later", "354 go on")
        self.end.say("250 done")
        result = self.ends(running, DELIVERED, REFUSED, REFUSED)
        self.assertEqual([each.status for each in result.outcomes], ["2.0.0", "5.1.1", "4.2.0"])
        self.assertEqual(
            result.outcomes[1].text, f"host {RELAY} said: 550 5.1.1 no bob (in reply to RCPT TO command)"
        )
        self.assertTrue(self.open.usable)
        self.assertFalse(self.open.unclean)

    def test_all_refused_354(self) -> None:
        """Nobody accepted and 354 all the same: a lone dot, whose reply decides nothing (RFC 2920 section 3.1)."""
        for reply in ("250 empty", "554 5.5.1 no valid recipients"):
            running = self.begin("ann", "bob")
            self.end.say("250 ok", "550 5.1.1 no", "550 5.1.1 no", "354 go on")
            self.assertTrue(self.end.taken().endswith(b"DATA\r\n.\r\n"))
            self.end.say(reply)
            self.ends(running, REFUSED, REFUSED)
            self.assertEqual((self.open.usable, self.open.unclean), (True, False))

    def test_all_refused_lone_dot_421(self) -> None:
        """A 421 to the lone dot ends the session."""
        running = self.begin()
        self.end.say("250 ok", "550 5.1.1 no", "354 go on")
        self.end.say("421 4.3.2 bye")
        self.ends(running, REFUSED, blame=Blame.THROTTLED)
        self.assertFalse(self.open.usable)

    def test_all_refused_data_refused(self) -> None:
        """Nobody accepted and DATA refused: RSET before the next MAIL."""
        running = self.begin()
        self.end.say("250 ok", "550 5.1.1 no", "503 5.5.1 no recipients")
        result = self.ends(running, REFUSED)
        self.assertEqual(result.outcomes[0].status, "5.1.1")
        self.assertEqual((self.open.unclean, self.open.usable), (True, True))

    def test_all_refused_data_421(self) -> None:
        """But 421 ends the session there, too."""
        running = self.begin()
        self.end.say("250 ok", "550 5.1.1 no", "421 4.3.2 bye")
        self.ends(running, REFUSED, blame=Blame.THROTTLED)
        self.assertFalse(self.open.usable)

    def test_refused_mail(self) -> None:
        """The sender is refused: that outcome for all, and the session stays usable."""
        running = self.begin("ann", "bob", uses=1)
        self.end.say("550 5.7.1 not from you", "503 5.5.1 MAIL first", "503 5.5.1 MAIL first", "503 5.5.1 MAIL first")
        result = self.ends(running, REFUSED, REFUSED)
        self.assertEqual(
            result.outcomes[1].text, f"host {RELAY} said: 550 5.7.1 not from you (in reply to MAIL FROM command)"
        )
        self.assertTrue(self.open.usable)
        self.assertFalse(result.full)

    def test_refused_mail_354(self) -> None:
        """A server that refuses the sender and asks for content all the same gets a lone dot."""
        running = self.begin()
        self.end.say("451 4.3.0 no", "250 ok", "354 go on")
        self.assertTrue(self.end.taken().endswith(b"DATA\r\n.\r\n"))
        self.end.say("250 empty")
        self.ends(running, REFUSED)
        self.assertFalse(self.open.unclean)

    def test_data_refused(self) -> None:
        """DATA is refused: so is everybody whom RCPT accepted."""
        running = self.begin("ann", "bob")
        self.end.say("250 ok", "550 5.1.1 no", "250 ok", "451 4.3.0 disk")
        result = self.ends(running, REFUSED, REFUSED)
        self.assertEqual([each.status for each in result.outcomes], ["5.1.1", "4.3.0"])
        self.assertIn("(in reply to DATA command)", result.outcomes[1].text)
        self.assertEqual((self.open.usable, self.open.unclean), (True, True))

    def test_content_refused(self) -> None:
        """The content is refused: for everybody accepted, and the session ends (a failed content phase)."""
        running = self.begin("ann", "bob")
        self.end.say("250 ok", "250 ok", "550 5.1.1 no", "354 go on")
        self.end.say("554 5.7.1 spam")
        result = self.ends(running, REFUSED, REFUSED)
        self.assertEqual([each.status for each in result.outcomes], ["5.7.1", "5.1.1"])
        self.assertIn("(in reply to end of DATA command)", result.outcomes[0].text)
        self.assertFalse(self.open.usable)

    def test_syntax_error_spoils(self) -> None:
        """A syntax-class error anywhere ends the session after this transaction."""
        running = self.begin("ann", "bob")
        self.end.say("250 ok", "501 5.1.3 bad address", "250 ok", "354 go on")
        self.end.say("250 done")
        self.ends(running, REFUSED, DELIVERED)
        self.assertFalse(self.open.usable)

    def test_throttling_reply(self) -> None:
        """4.7.x narrows the site's window."""
        running = self.begin("ann", "bob")
        self.end.say("250 ok", "450 4.7.1 slow down", "250 ok", "354 go on")
        self.end.say("250 done")
        self.ends(running, REFUSED, DELIVERED, blame=Blame.THROTTLED)
        self.assertTrue(self.open.usable)

    def test_enhanced_status_of_another_class(self) -> None:
        """A status that contradicts its code is not believed."""
        running = self.begin()
        self.end.say("250 ok", "550 4.1.1 what", "503 no")
        self.assertEqual(self.ends(running, REFUSED).outcomes[0].status, "5.0.0")


class OneByOneTests(TransactionCase):
    """Without PIPELINING each command waits for its reply."""

    def test_delivered(self) -> None:
        """One command at a time."""
        running = self.one_by_one("ann", "bob")
        for command, reply in (
            (b"MAIL FROM:<from@example.com>\r\n", "250 ok"),
            (b"RCPT TO:<ann@example.com>\r\n", "250 ok"),
            (b"RCPT TO:<bob@example.com>\r\n", "251 will forward"),
            (b"DATA\r\n", "354 go on"),
            (b"Subject: hello\r\n\r\nhello\r\n.\r\n", "250 done"),
        ):
            self.assertEqual(self.end.taken(), command)
            self.end.say(reply)
        self.ends(running, DELIVERED, DELIVERED)

    def test_refused_mail(self) -> None:
        """After a refused MAIL nothing more is said."""
        running = self.one_by_one("ann")
        self.end.taken()
        self.end.say("451 4.3.0 not now")
        self.ends(running, REFUSED)
        self.assertEqual(self.end.taken(), b"")
        self.assertEqual((self.open.usable, self.open.unclean), (True, False))

    def test_all_refused(self) -> None:
        """Nobody accepted: no DATA; RSET before the next MAIL."""
        running = self.one_by_one("ann", "bob")
        self.end.say("250 ok")
        self.end.say("550 5.1.1 no")
        self.end.taken()
        self.end.say("450 4.2.0 no")
        self.ends(running, REFUSED, REFUSED)
        self.assertEqual(self.end.taken(), b"")
        self.assertEqual((self.open.usable, self.open.unclean), (True, True))

    def test_closed_between(self) -> None:
        """A close between two recipients: those who have a reply keep it."""
        running = self.one_by_one("ann", "bob", "cat")
        self.end.say("250 ok")
        self.end.say("550 5.1.1 no")
        self.end.hang_up()
        result = self.ends(running, REFUSED, REFUSED, REFUSED, blame=Blame.SITE)
        self.assertEqual([each.status for each in result.outcomes], ["5.1.1", "4.4.2", "4.4.2"])
        self.assertEqual(result.outcomes[2].text, f"lost connection with {RELAY} while sending RCPT TO")

    def test_a_reply_too_many_in_the_envelope(self) -> None:
        """A second reply to MAIL is not taken for that to RCPT, nor for a verdict."""
        running = self.one_by_one("ann", "bob")
        self.end.say("250 ok", "550 5.1.1 surprise")
        result = self.ends(running, REFUSED, REFUSED, blame=Blame.SITE)
        self.assertEqual({each.status for each in result.outcomes}, {"4.4.2"})
        self.assertIn("protocol error", result.outcomes[0].text)
        self.assertFalse(self.open.usable)

    def test_a_reply_too_many_before_data(self) -> None:
        """The same behind the last RCPT."""
        running = self.one_by_one("ann")
        self.end.say("250 ok")
        self.end.say("250 ok", "354 early")
        self.ends(running, REFUSED, blame=Blame.SITE)


class UncleanTests(TransactionCase):
    """RSET goes first where a transaction may still be open."""

    def test_rset(self) -> None:
        """It costs no round trip of its own where the server has PIPELINING."""
        running = self.begin(uses=1, unclean=True)
        self.assertEqual(self.end.taken(), b"RSET\r\n" + ENVELOPE)
        self.end.say("250 flushed", "250 ok", "250 ok", "354 go on")
        self.end.say("250 done")
        self.ends(running, DELIVERED)

    def test_rset_one_by_one(self) -> None:
        """Without PIPELINING its reply is awaited before MAIL."""
        running = self.begin(uses=1, unclean=True, capabilities=PLAIN)
        self.assertEqual(self.end.taken(), b"RSET\r\n")
        self.end.say("250 flushed")
        self.assertTrue(self.end.taken().startswith(b"MAIL FROM:"))
        self.end.say("421 4.3.2 bye")
        self.assertTrue(self.ends(running, UNTOUCHED).full)

    def test_rset_refused(self) -> None:
        """Any other answer to RSET is never a bounce: the request goes to another session, untouched."""
        for reply, full in (("503 5.5.1 what", False), ("421 4.3.2 bye", True), ("450 4.0.0 no", False)):
            running = self.begin("ann", "bob", uses=1, unclean=True)
            self.end.taken()
            self.end.say(reply, "250 ok", "250 ok", "250 ok", "354 go on")
            result = self.ends(running, UNTOUCHED, UNTOUCHED)
            self.assertEqual((result.full, self.open.usable), (full, False))
            self.assertEqual(self.end.taken(), b"")

    def test_rset_refused_and_closed(self) -> None:
        """The same when nothing follows the refusal but the end."""
        running = self.begin(uses=1, unclean=True)
        self.end.say("421 4.3.2 bye")
        self.end.hang_up()
        self.assertTrue(self.ends(running, UNTOUCHED).full)

    def test_rset_closed(self) -> None:
        """Closed instead: untouched, and the site may have a limit."""
        running = self.begin(uses=1, unclean=True)
        self.end.hang_up()
        self.assertTrue(self.ends(running, UNTOUCHED).full)

    def test_rset_stalls(self) -> None:
        """No answer: the limit of RSET."""
        running = self.begin(uses=1, unclean=True)
        self.clock.advance(19.9)
        self.assertNoResult(running)
        self.clock.advance(0.1)
        self.assertFalse(self.ends(running, UNTOUCHED).full)


class ServerEndsFreshSessionTests(TransactionCase):
    """421 or a close on a fresh session before the dot: refused for now, other hosts may be tried."""

    def test_421_to_mail(self) -> None:
        """Throttled; the session is over."""
        running = self.begin("ann", "bob")
        self.end.say("421 4.3.2 too busy")
        self.end.hang_up()
        result = self.ends(running, REFUSED, REFUSED, blame=Blame.THROTTLED)
        self.assertEqual({each.status for each in result.outcomes}, {"4.3.2"})
        self.assertEqual((result.full, self.open.usable), (False, False))

    def test_421_to_mail_one_by_one(self) -> None:
        """The same without PIPELINING."""
        running = self.one_by_one("ann")
        self.end.say("421 4.3.2 too busy")
        self.ends(running, REFUSED, blame=Blame.THROTTLED)
        self.assertFalse(self.open.usable)

    def test_421_to_rcpt(self) -> None:
        """Everybody behind it, and everybody accepted before it, is deferred with that reply."""
        for begin in (self.begin, self.one_by_one):
            running = begin("ann", "bob", "cat", "dan")
            self.end.say("250 ok")
            self.end.say("550 5.1.1 no")
            self.end.say("250 ok")
            self.end.say("421 4.7.0 enough")
            self.end.hang_up()
            result = self.ends(running, REFUSED, REFUSED, REFUSED, REFUSED, blame=Blame.THROTTLED)
            self.assertEqual([each.status for each in result.outcomes], ["5.1.1", "4.7.0", "4.7.0", "4.7.0"])
            self.assertFalse(self.open.usable)

    def test_nothing_after_421(self) -> None:
        """Without PIPELINING nothing more is said after 421."""
        running = self.one_by_one("ann", "bob")
        self.end.say("250 ok")
        self.end.taken()
        self.end.say("421 4.3.2 bye")
        self.ends(running, REFUSED, REFUSED, blame=Blame.THROTTLED)
        self.assertEqual(self.end.taken(), b"")

    def test_421_to_data(self) -> None:
        """Deferred."""
        running = self.begin()
        self.end.say("250 ok", "250 ok", "421 4.3.2 enough")
        self.ends(running, REFUSED, blame=Blame.THROTTLED)
        self.assertFalse(self.open.usable)

    def test_421_to_content(self) -> None:
        """It is the reply to the message: refused for now, not unknown."""
        running = self.begin()
        self.end.say("250 ok", "250 ok", "354 go on")
        self.end.say("421 4.3.2 enough")
        self.ends(running, REFUSED, blame=Blame.THROTTLED)
        self.assertFalse(self.open.usable)

    def test_closed_at_mail(self) -> None:
        """Lost: the site is to blame."""
        running = self.begin()
        self.end.hang_up()
        (outcome,) = self.ends(running, REFUSED, blame=Blame.SITE).outcomes
        self.assertEqual(outcome.status, "4.4.2")
        self.assertEqual(outcome.text, f"lost connection with {RELAY} while sending MAIL FROM")
        self.assertEqual((self.open.usable, self.end.aborted), (False, True))

    def test_closed_at_rcpt(self) -> None:
        """Lost in the middle of the group."""
        running = self.begin("ann", "bob")
        self.end.say("250 ok", "250 ok")
        self.end.hang_up()
        result = self.ends(running, REFUSED, REFUSED, blame=Blame.SITE)
        self.assertEqual(result.outcomes[0].text, f"lost connection with {RELAY} while sending RCPT TO")

    def test_closed_at_data(self) -> None:
        """Lost before DATA was answered."""
        running = self.begin()
        self.end.say("250 ok", "250 ok")
        self.end.hang_up()
        (outcome,) = self.ends(running, REFUSED, blame=Blame.SITE).outcomes
        self.assertEqual(outcome.text, f"lost connection with {RELAY} while sending DATA command")


class ServerEndsReusedSessionTests(TransactionCase):
    """421 or a close on a reused session before the dot: untouched, the session had its share."""

    def test_421_to_mail(self) -> None:
        """The same request goes at once to another session; nobody is to blame; the site may have a limit."""
        running = self.begin("ann", "bob", uses=20)
        self.end.say("421 4.3.2 closing")
        self.end.hang_up()
        result = self.ends(running, UNTOUCHED, UNTOUCHED)
        self.assertEqual((result.full, self.open.usable, self.open.uses), (True, False, 21))

    def test_too_many_messages(self) -> None:
        """4xx "too many messages" in its various forms is no judgement of the message."""
        for text in (
            "451 4.4.2 too many messages in this connection", "452 4.5.3 Too many transactions",
            "450 Messages per session exceeded", "452 mail count limit per connection reached",
        ):  # fmt: skip
            running = self.begin(uses=5)
            self.end.say(text, "503 no", "503 no")
            self.assertTrue(self.ends(running, UNTOUCHED).full)
            self.assertFalse(self.open.usable)

    def test_too_many_messages_fresh(self) -> None:
        """On a fresh session it is a reply like any other."""
        running = self.begin()
        self.end.say("452 4.5.3 too many messages", "503 no", "503 no")
        self.assertFalse(self.ends(running, REFUSED).full)

    def test_other_4xx(self) -> None:
        """4xx to MAIL for other reasons is an outcome."""
        running = self.begin(uses=5)
        self.end.say("451 4.3.0 greylisted", "503 no", "503 no")
        self.assertFalse(self.ends(running, REFUSED).full)

    def test_5xx_to_mail(self) -> None:
        """5xx for this sender is that outcome, whatever words it has."""
        running = self.begin(uses=5)
        self.end.say("552 5.3.4 too many messages from you", "503 no", "503 no")
        self.ends(running, REFUSED)
        self.assertTrue(self.open.usable)

    def test_421_to_rcpt(self) -> None:
        """Those who have a reply keep it; the others are untouched."""
        for begin in (self.begin, self.one_by_one):
            running = begin("ann", "bob", "cat", uses=2)
            self.end.say("250 ok")
            self.end.say("550 5.1.1 no")
            self.end.say("421 bye")
            self.end.hang_up()
            self.ends(running, REFUSED, UNTOUCHED, UNTOUCHED)

    def test_421_to_data(self) -> None:
        """Untouched."""
        running = self.begin(uses=2)
        self.end.say("250 ok", "250 ok", "421 bye")
        self.ends(running, UNTOUCHED)

    def test_421_to_content(self) -> None:
        """A complete message had that reply: refused."""
        running = self.begin(uses=2)
        self.end.say("250 ok", "250 ok", "354 go on")
        self.end.say("421 4.3.2 bye")
        self.ends(running, REFUSED, blame=Blame.THROTTLED)

    def test_closed_at_mail(self) -> None:
        """Untouched; a server that closes instead of taking another message may have a limit."""
        running = self.begin(uses=2)
        self.end.hang_up()
        result = self.ends(running, UNTOUCHED)
        self.assertEqual((result.full, self.open.usable), (True, False))

    def test_closed_later(self) -> None:
        """Untouched, but no lesson about the number of messages."""
        running = self.begin(uses=2)
        self.end.say("250 ok")
        self.end.hang_up()
        self.assertFalse(self.ends(running, UNTOUCHED).full)

    def test_stalls(self) -> None:
        """A stall is no lesson about the number of messages."""
        running = self.begin(uses=2)
        self.clock.pump([10.0] * 4)
        self.assertFalse(self.ends(running, UNTOUCHED).full)

    def test_closed_in_content(self) -> None:
        """Closed while the content was under way, before the dot: nothing was decided."""
        self.end.full = True
        running = self.begin(uses=2, content=self.file(b"x\r\n" * 50000))
        self.end.say("250 ok", "250 ok", "354 go on")
        self.end.hang_up()
        self.ends(running, UNTOUCHED)

    def test_lost_before_it_began(self) -> None:
        """A session that ended between look-up and use: untouched, and nothing is written."""
        self.open = open_session(self.end, self.clock, uses=2)
        self.end.say("421 4.4.2 idle for too long")
        self.transaction = Transaction(self.open, request())
        self.ends(started(self.transaction.run()), UNTOUCHED)
        self.assertEqual(self.end.taken(), b"")

    def file(self, octets: bytes) -> FileContent:
        """Content in a file."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(octets)
        return FileContent(path, len(octets))


class AfterTheDotTests(TransactionCase):
    """Once the dot is sent and no reply seen, nobody knows."""

    def dot(self, uses: int = 0) -> Deferred[Result]:
        """One that waits for the final reply; Bob was refused."""
        running = self.begin("ann", "bob", uses=uses)
        self.end.say("250 ok", "250 ok", "550 5.1.1 no", "354 go on")
        self.assertTrue(self.end.taken().endswith(b"\r\n.\r\n"))
        return running

    def test_closed(self) -> None:
        """Unknown: deferred, at least once; fresh and reused alike."""
        for uses in (0, 7):
            running = self.dot(uses)
            self.end.hang_up()
            result = self.ends(running, UNKNOWN, REFUSED, blame=Blame.SITE)
            self.assertEqual(
                result.outcomes[0].text,
                f"lost connection with {RELAY} while sending end of data -- message may be sent more than once",
            )
            self.assertEqual((result.outcomes[0].status, result.full), ("4.4.2", False))
            self.assertFalse(self.open.usable)

    def test_stalls(self) -> None:
        """The same when the reply does not come in time."""
        running = self.dot()
        self.clock.pump([1.0] * 37)
        self.assertNoResult(running)
        self.clock.advance(1.0)
        result = self.ends(running, UNKNOWN, REFUSED, blame=Blame.SITE)
        self.assertIn(f"conversation with {RELAY} timed out while sending end of data", result.outcomes[0].text)

    def test_file(self) -> None:
        """Content from a file is no different."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"hello\r\n")
        running = self.begin(content=FileContent(path, 7), uses=3)
        self.end.say("250 ok", "250 ok", "354 go on")
        self.end.hang_up()
        self.ends(running, UNKNOWN, blame=Blame.SITE)

    def test_garbage(self) -> None:
        """And when what comes is no reply."""
        running = self.dot()
        self.end.say("hello there")
        self.ends(running, UNKNOWN, REFUSED, blame=Blame.SITE)

    def test_354_again(self) -> None:
        """Or a reply that cannot be one to the dot."""
        running = self.dot()
        self.end.say("354 go on")
        self.ends(running, UNKNOWN, REFUSED, blame=Blame.SITE)


class RepliesTooManyTests(TransactionCase):
    """A reply that nobody asked for ends the session; what was decided stands."""

    def test_behind_the_final_reply(self) -> None:
        """Delivered stays delivered; the session is retired."""
        running = self.begin()
        self.end.say("250 ok", "250 ok", "354 go on")
        self.end.say("250 done", "250 really")
        self.ends(running, DELIVERED)
        self.assertEqual((self.open.usable, self.end.aborted), (False, True))

    def test_after_the_transaction(self) -> None:
        """The same when it comes later."""
        running = self.begin()
        self.end.say("250 ok", "250 ok", "354 go on")
        self.end.say("250 done")
        self.assertTrue(self.open.usable)
        self.end.say("421 4.4.2 idle")
        self.ends(running, DELIVERED)
        self.assertFalse(self.open.usable)

    def test_behind_354(self) -> None:
        """With the 354: no content goes to such a server."""
        running = self.begin()
        self.end.taken()
        self.end.say("250 ok", "250 ok", "354 go on", "554 5.7.1 surprise")
        self.ends(running, REFUSED, blame=Blame.SITE)
        self.assertEqual(self.end.taken(), b"")

    def test_in_the_content(self) -> None:
        """A refusal that comes while the content is under way is its reply; a 2xx there means nothing."""
        octets = b"x\r\n" * 50000
        for said, status in (("552 5.3.4 too big", "5.3.4"), ("421 4.3.2 bye", "4.3.2"), ("250 thanks", "4.4.2")):
            path = self.mktemp()
            with open(path, "wb") as file:
                file.write(octets)
            self.end = FakeEnd()
            self.end.full = True
            running = self.begin(content=FileContent(path, len(octets)))
            self.end.say("250 ok", "250 ok", "354 go on")
            self.end.say(said)
            result = self.successResultOf(running)
            self.assertEqual((result.outcomes[0].ending, result.outcomes[0].status), (REFUSED, status))
            self.assertFalse(self.open.usable)

    def test_garbage(self) -> None:
        """What is no reply ends it where it stands, and the words say where."""
        running = self.begin()
        self.end.say("what?")
        (outcome,) = self.ends(running, REFUSED, blame=Blame.SITE).outcomes
        self.assertIn(f"protocol error from {RELAY}", outcome.text)
        self.assertIn("while sending MAIL FROM", outcome.text)


class StallTests(TransactionCase):
    """Each phase has its limit; a session that stalled is retired."""

    def stalls(self, seconds: float, *replies: str, capabilities: Capabilities = PLAIN) -> str:
        """After these replies nothing more comes, and so many seconds later it is over."""
        self.end = FakeEnd()
        running = self.begin(capabilities=capabilities)
        for reply in replies:
            self.end.say(reply)
        self.clock.pump([0.5] * int(seconds * 2 - 1))
        self.assertNoResult(running)
        self.clock.advance(0.5)
        (outcome,) = self.ends(running, REFUSED, blame=Blame.SITE).outcomes
        self.assertEqual((outcome.status, self.open.usable, self.end.aborted), ("4.4.2", False, True))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return outcome.text

    def test_phases(self) -> None:
        """MAIL, RCPT and DATA, pipelined or not."""
        told = f"conversation with {RELAY} timed out while "
        for capabilities in (PLAIN, PIPELINING):
            self.assertEqual(self.stalls(35.0, capabilities=capabilities), told + "sending MAIL FROM")
            self.assertEqual(self.stalls(36.0, "250 ok", capabilities=capabilities), told + "sending RCPT TO")
            self.assertEqual(
                self.stalls(37.0, "250 ok", "250 ok", capabilities=capabilities), told + "sending DATA command"
            )

    def test_body(self) -> None:
        """A server that takes no octets has the body's limit."""
        self.end.full = True
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"x\r\n" * 50000)
        running = self.begin(content=FileContent(path, 150000))
        self.end.say("250 ok", "250 ok", "354 go on")
        self.clock.pump([1.0] * 39)
        self.assertNoResult(running)
        self.clock.advance(1.0)
        (outcome,) = self.ends(running, REFUSED, blame=Blame.SITE).outcomes
        self.assertEqual(outcome.text, f"conversation with {RELAY} timed out while sending message body")


class ContentTests(TransactionCase):
    """Content arrives as it is, its dots doubled."""

    def sent(self, content: Content) -> bytes:
        """What goes over the wire between 354 and the final reply."""
        self.end = FakeEnd()
        running = self.begin(content=content)
        self.end.taken()
        self.end.say("250 ok", "250 ok", "354 go on")
        wire = self.end.taken()
        self.end.say("250 done")
        self.ends(running, DELIVERED)
        return wire

    def test_dots(self) -> None:
        """A dot that begins a line is doubled, from memory and from a file."""
        for octets, wire in (
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.\r\n..\r\nb.\r\n", b"a\r\n..\r\n...\r\nb.\r\n.\r\n"),
            (b"", b".\r\n"),
            (b"no end", b"no end\r\n.\r\n"),
        ):
            self.assertEqual(self.sent(MemoryContent(octets)), wire)
            path = self.mktemp()
            with open(path, "wb") as file:
                file.write(octets)
            self.assertEqual(self.sent(FileContent(path, len(octets))), wire)

    def test_large_file(self) -> None:
        """A file goes in pieces; one that begins with a dot is no end of data."""
        octets = b"x" * 65534 + b"\r\n.\r\n" + b"y" * 100000 + b"\r\n"
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(octets)
        self.assertEqual(self.sent(FileContent(path, len(octets))), octets.replace(b"\r\n.", b"\r\n..") + b".\r\n")

    def test_full_end(self) -> None:
        """Not more than a piece is written while the end is full: content is not held in memory."""
        octets = b"0123456789abcd\r\n" * 12288
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(octets)
        self.end.fills = True
        running = self.begin(content=FileContent(path, len(octets)))
        self.end.taken()
        self.end.drain()
        self.end.say("250 ok", "250 ok", "354 go on")
        taken = b""
        for _ in range(3):
            piece = self.end.taken()
            self.assertEqual(len(piece), 65536)
            taken += piece
            # Each piece has the time that a piece may take.
            self.clock.advance(39.0)
            self.end.drain()
        self.assertEqual(taken + self.end.taken(), octets + b".\r\n")
        self.end.say("250 done")
        self.ends(running, DELIVERED)

    def test_no_file(self) -> None:
        """A file that is gone: the fault is ours, and no dot follows what was not sent."""
        running = self.begin(content=FileContent(self.mktemp(), 10))
        self.end.taken()
        self.end.say("250 ok", "250 ok", "354 go on")
        self.failureResultOf(running, OSError)
        result = self.transaction.interrupted()
        self.assertEqual((result.outcomes[0].ending, result.outcomes[0].status), (REFUSED, "4.3.0"))
        self.assertIs(result.blame, Blame.OURSELVES)
        self.assertEqual((self.end.taken(), self.open.usable), (b"", False))


class InterruptedTests(TransactionCase):
    """A fault of our own leaves no recipient without outcome."""

    def test_before_the_dot(self) -> None:
        """Deferred, the fault is ours; who had an outcome keeps it."""
        running = self.begin("ann", "bob", content=FileContent(self.mktemp(), 10))
        self.end.say("250 ok", "550 5.1.1 no", "250 ok", "354 go on")
        self.failureResultOf(running, OSError)
        result = self.transaction.interrupted()
        self.assertEqual([each.status for each in result.outcomes], ["5.1.1", "4.3.0"])
        self.assertEqual([each.ending for each in result.outcomes], [REFUSED, REFUSED])

    def test_after_the_dot(self) -> None:
        """Unknown."""
        self.begin("ann")
        self.end.say("250 ok", "250 ok", "354 go on")
        self.assertEqual(self.transaction.interrupted().outcomes[0].ending, UNKNOWN)

    def test_address_that_cannot_be_sent(self) -> None:
        """An address with a line end in it never reaches the wire."""
        running = self.begin(sender="a\r\nRCPT TO:<x@example.com>")
        self.failureResultOf(running)
        self.assertEqual(self.end.taken(), b"")
