"""
Tests of L{smtpreuse.agent.transaction}: sessions that end or stall under it.
"""

from __future__ import annotations

from smtpreuse.agent.transaction import Transaction
from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.content import FileContent
from smtpreuse.model.delivery import Blame
from tests.agent.transaction_case import DELIVERED, REFUSED, UNTOUCHED, TransactionCase
from tests.agent.world import PIPELINING, PLAIN, RELAY, open_session, request, started
from tests.fakes import FakeEnd


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
