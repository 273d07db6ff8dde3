"""
Tests of L{smtpreuse.agent.transaction}: the envelope, and the replies to it.
"""

from __future__ import annotations

from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.delivery import Blame
from smtpreuse.model.message import Body
from tests.agent.transaction_case import DELIVERED, REFUSED, UNTOUCHED, TransactionCase
from tests.agent.world import PIPELINING, PLAIN, RELAY

ENVELOPE = b"MAIL FROM:<from@example.com> SIZE=25\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n"


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
