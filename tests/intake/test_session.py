"""
Tests of L{smtpreuse.intake.session}.
"""

from __future__ import annotations

import os

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.config.load import settings_of
from smtpreuse.config.tables import Networks
from smtpreuse.errors import SpoolError, SpoolFull, TableError
from smtpreuse.intake.session import Peer, Services, Session
from smtpreuse.interfaces import IMailLog, IRouter, ISpool
from smtpreuse.model.content import Content, FileContent
from smtpreuse.model.message import Body, Message, Recipient
from smtpreuse.model.queueid import QueueIds
from smtpreuse.smtp.order import State
from tests.intake.fakes import FakeMailLog, FakeRouter, FakeSpool

LOCAL = Peer(host="localhost", address="127.0.0.1")
STRANGER = Peer(host="unknown", address="192.0.2.1")
ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"


class SessionTests(SynchronousTestCase):
    """
    Mail of those who may relay is taken, 250 is said when the spool has it, and everything else has its proper reply.
    """

    def setUp(self) -> None:
        directory = self.mktemp()
        os.mkdir(directory)
        self.spool = FakeSpool(directory)
        self.router = FakeRouter()
        self.maillog = FakeMailLog()
        self.clock = Clock()
        self.clock.advance(1700000000.123456)
        self.accepted: list[tuple[Message, Content]] = []
        self.stopped: str | None = None
        self.ending = False
        self.went_on = 0

    def session(self, peer: Peer = LOCAL, **values: str) -> Session:
        """A greeted one."""

        def go_on() -> None:
            self.went_on += 1

        services = Services(
            spool=self.spool,
            router=self.router,
            accepted=lambda message, content: self.accepted.append((message, content)),
            maillog=self.maillog,
            clock=self.clock,
            ids=QueueIds(self.clock.seconds, 51**4 + 50),
            paused=lambda: self.stopped,
            draining=lambda: self.ending,
        )
        session = Session(services, settings_of(myhostname="mx.example.com", **values), peer, go_on)
        session.machine.greet()
        session.work()
        return session

    def said(self, session: Session, *parts: bytes) -> list[str]:
        """The replies to these octets, each part of them read by itself."""
        replies = b""
        for part in parts:
            session.machine.feed(part)
            replies += session.work()
        return replies.decode("ascii").splitlines()

    def test_fakes(self) -> None:
        """The fakes offer what the seams ask for."""
        verifyObject(ISpool, self.spool)
        verifyObject(IRouter, self.router)
        verifyObject(IMailLog, self.maillog)

    def test_message(self) -> None:
        """A whole message: what is stored, said, logged and told."""
        session = self.session()
        self.said(session, b"EHLO client.example.com\r\n")
        self.assertEqual(
            self.said(
                session,
                b"MAIL FROM:<a@example.com> BODY=8BITMIME\r\nRCPT TO:<b@example.org>\r\nDATA\r\n",
                b"Message-ID: <1@example.com>\r\n\r\n..\r\n.\r\n",
            ),
            ["250 2.1.0 Ok", "250 2.1.5 Ok", "354 End data with <CR><LF>.<CR><LF>",
             "250 2.0.0 Ok: queued as 4SVLCh0sf8z1000y"],
        )
        [(message, content)] = self.spool.kept
        self.assertEqual(
            message,
            Message(
                queue_id="4SVLCh0sf8z1000y",
                arrived=1700000000.123456,
                sender="a@example.com",
                size=len(content),
                body=Body.EIGHT_BIT,
                client="localhost[127.0.0.1]",
                recipients=(Recipient(address="b@example.org", hop="smtp:example.org"),),
            ),
        )
        trace, _, rest = content.partition(b"Message-ID")
        begin = b"Received: from client.example.com (localhost [127.0.0.1])\r\n\tby mx.example.com "
        self.assertEqual(trace[: len(begin)], begin)
        self.assertIn(b" with ESMTP id 4SVLCh0sf8z1000y\r\n\tfor <b@example.org>; ", trace)
        self.assertEqual(rest, b": <1@example.com>\r\n\r\n.\r\n")
        self.assertEqual(
            self.maillog.lines,
            ["smtpd: 4SVLCh0sf8z1000y: client=localhost[127.0.0.1]",
             "cleanup: 4SVLCh0sf8z1000y: message-id=<1@example.com>"],
        )
        self.assertEqual([known for known, _ in self.accepted], [message])
        self.assertEqual(self.went_on, 0)

    def test_slow_spool(self) -> None:
        """No 250 before the spool has the message; what the client sent behind the dot is done after it, in order."""
        self.spool.slow = True
        session = self.session()
        self.assertEqual(len(self.said(session, ENVELOPE, b"x\r\n.\r\n" + ENVELOPE)), 3)
        self.assertEqual((self.accepted, self.maillog.lines), ([], []))
        self.spool.finish()
        self.assertEqual((self.went_on, len(self.accepted)), (1, 1))
        replies = self.said(session, b"")
        self.assertEqual([reply[:3] for reply in replies], ["250", "250", "250", "354"])
        self.assertEqual(self.said(session, b"y\r\n.\r\nQUIT\r\n"), [])
        self.spool.finish()
        self.assertEqual([reply[:3] for reply in self.said(session, b"")], ["250", "221"])
        self.assertTrue(self.spool.kept[0][1].endswith(b"x\r\n"))
        self.assertTrue(self.spool.kept[1][1].endswith(b"y\r\n"))
        self.assertNotEqual(self.spool.kept[0][0].queue_id, self.spool.kept[1][0].queue_id)

    def test_client_gone_while_storing(self) -> None:
        """A message whose client is gone is in the queue all the same, and the queue is told."""
        self.spool.slow = True
        session = self.session()
        self.said(session, ENVELOPE, b"x\r\n.\r\n")
        session.abandon()
        session.machine.close("421 4.4.2 gone")
        session.machine.taken()
        self.spool.finish()
        self.assertEqual((len(self.accepted), session.machine.taken()), (1, b""))
        self.spool.error = SpoolError("broken")
        session = self.session()
        self.said(session, ENVELOPE, b"x\r\n.\r\n")
        session.machine.close("421 4.4.2 gone")
        session.machine.taken()
        self.spool.finish()
        self.assertEqual(session.machine.taken(), b"")

    def test_spool_fails(self) -> None:
        """What was not stored is not accepted; a fault of ours is logged."""
        for error, reply in (
            (SpoolFull("full"), "452 4.3.1 Insufficient system storage"),
            (SpoolError("broken"), "451 4.3.0 Error: queue file write error"),
            (KeyError("a fault"), "451 4.3.0 Error: queue file write error"),
        ):
            self.spool.error = error
            session = self.session()
            self.assertEqual(self.said(session, ENVELOPE, b"x\r\n.\r\n")[-1], reply)
            self.assertEqual(self.accepted, [])
            line = f"END-OF-MESSAGE from localhost[127.0.0.1]: {reply}; from=<a@example.com>"
            self.assertIn(line, self.maillog.lines[-1])
            self.assertEqual(self.said(session, ENVELOPE)[-1][:3], "354")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_fault_behind_the_spool(self) -> None:
        """A message that the spool has is answered 250, whatever goes wrong with us after that."""
        self.spool.slow = True
        session = self.session()
        self.said(session, ENVELOPE, b"x\r\n.\r\n")
        self.patch(self, "accepted", None)
        self.spool.finish()
        self.assertEqual(self.went_on, 1)
        self.assertEqual([reply[:3] for reply in self.said(session, b"NOOP\r\n")], ["250", "250"])
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_large(self) -> None:
        """Large content is in a file; when it was not stored the file is gone."""
        octets = b"x" * 300_000 + b"\r\n.\r\n"
        self.said(self.session(), ENVELOPE, octets)
        [(message, content)] = self.accepted
        assert isinstance(content, FileContent)
        self.assertEqual(content.size, message.size)
        self.assertTrue(os.path.exists(content.path))
        self.spool.error = SpoolError("broken")
        self.said(self.session(), ENVELOPE, octets)
        self.assertFalse(os.path.exists(self.spool.scratches[1]))

    def test_transaction_ends_early(self) -> None:
        """RSET, EHLO and QUIT leave no file behind; nor does a refusal of the content."""
        large = b"x" * 300_000
        for end in (b"\r\n.\r\n", b"\n\r\n.\r\n"):
            session = self.session(message_size_limit="400000")
            self.said(session, ENVELOPE, large)
            self.assertTrue(os.path.exists(self.spool.scratches[-1]))
            self.said(session, (large if end == b"\r\n.\r\n" else b"") + end)
            self.assertFalse(os.path.exists(self.spool.scratches[-1]))
        for command in (b"RSET", b"EHLO x", b"QUIT"):
            session = self.session()
            self.said(session, b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n" + command + b"\r\n")
            self.assertIsNone(session._arrival)

    def test_strangers(self) -> None:
        """Only mynetworks and UNIX sockets may relay."""
        session = self.session(STRANGER)
        replies = self.said(session, b"HELO x\r\n", ENVELOPE)
        self.assertEqual(replies[2], "554 5.7.1 <b@example.com>: Relay access denied")
        self.assertEqual(replies[3][:3], "554")
        self.assertEqual(
            self.maillog.lines,
            ["smtpd: NOQUEUE: reject: RCPT from unknown[192.0.2.1]: 554 5.7.1 <b@example.com>: Relay access denied; "
             "from=<a@example.com> to=<b@example.com> proto=SMTP helo=<x>"],
        )
        self.assertEqual(self.said(self.session(STRANGER, mynetworks="192.0.2.0/24"), ENVELOPE)[-1][:3], "354")
        self.assertEqual(self.said(self.session(LOCAL, mynetworks="192.0.2.0/24"), ENVELOPE)[1][:3], "554")
        unix = Peer(host="localhost", address="unix")
        self.assertEqual(self.said(self.session(unix, mynetworks=""), ENVELOPE)[-1][:3], "354")

    def recipients(self, session: Session, *addresses: str, sender: str = "a@example.com") -> Message:
        """The message as stored for these recipients."""
        commands = "".join(f"RCPT TO:<{address}>\r\n" for address in addresses)
        self.said(session, f"MAIL FROM:<{sender}>\r\n{commands}DATA\r\n".encode(), b".\r\n")
        return self.spool.kept[-1][0]

    def test_unqualified(self) -> None:
        """An address without a domain gets ours; what was given is kept where it differs by more than case."""
        found = self.recipients(self.session(myorigin="example.net"), "root", '"a@b"', "C@Example.com", sender="bob")
        self.assertEqual(found.sender, "bob@example.net")
        self.assertEqual(
            found.recipients,
            (
                Recipient(address="root@example.net", original="root", hop="smtp:example.net"),
                Recipient(address='"a@b"@example.net', original='"a@b"', hop="smtp:example.net"),
                Recipient(address="C@Example.com", original="", hop="smtp:Example.com"),
            ),
        )
        found = self.recipients(self.session(append_at_myorigin="no"), "root", sender="bob")
        self.assertEqual((found.sender, found.recipients[0].address, found.recipients[0].original), ("bob", "root", ""))

    def test_quoted(self) -> None:
        """A quoted local part with a domain is left as it is."""
        found = self.recipients(self.session(), '"a@b"@example.com', sender="")
        self.assertEqual((found.sender, found.recipients[0].address), ("", '"a@b"@example.com'))

    def test_duplicates(self) -> None:
        """A recipient named twice gets one copy, and both are told Ok."""
        session = self.session(myorigin="example.com")
        replies = self.said(
            session,
            b"MAIL FROM:<>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<b@EXAMPLE.com>\r\nRCPT TO:<b>\r\nDATA\r\n", b".\r\n",
        )
        self.assertEqual([reply[:9] for reply in replies[1:4]], ["250 2.1.5"] * 3)
        message, content = self.spool.kept[0]
        self.assertEqual(len(message.recipients), 1)
        self.assertIn(b"for <b@example.com>", content)

    def test_several_recipients(self) -> None:
        """With several recipients none is named in the trace."""
        self.recipients(self.session(), "b@example.com", "c@example.com")
        self.assertNotIn(b"for <", self.spool.kept[0][1])

    def test_recipient_limit(self) -> None:
        """Over the limit 452, for those that are new only."""
        session = self.session(smtpd_recipient_limit="2")
        commands = b"".join(b"RCPT TO:<%b@example.com>\r\n" % name for name in (b"a", b"b", b"c", b"a"))
        replies = self.said(session, b"MAIL FROM:<>\r\n" + commands)
        self.assertEqual(replies[1:], ["250 2.1.5 Ok"] * 2 + ["452 4.5.3 Error: too many recipients", "250 2.1.5 Ok"])

    def test_routing_refuses(self) -> None:
        """What routing sends to error: is refused at RCPT with its text; a table that fails defers."""
        for hop, reply in (
            ("error:5.1.2 no such domain", "550 5.1.2 <b@example.com>: Recipient address rejected: no such domain"),
            ("error:4.3.5 come later", "450 4.3.5 <b@example.com>: Recipient address rejected: come later"),
            ("error:not taken here", "550 5.0.0 <b@example.com>: Recipient address rejected: not taken here"),
            ("error:5.1.1", "550 5.1.1 <b@example.com>: Recipient address rejected: undeliverable"),
            ("error:", "550 5.0.0 <b@example.com>: Recipient address rejected: undeliverable"),
            ("error:2.0.0 odd", "550 5.0.0 <b@example.com>: Recipient address rejected: 2.0.0 odd"),
            (TableError("cannot be read"), "451 4.3.0 <b@example.com>: Temporary lookup failure"),
        ):
            self.router.hops["b@example.com"] = hop
            self.assertEqual(self.said(self.session(), ENVELOPE)[1:], [reply, "554 5.5.1 Error: no valid recipients"])
            self.assertIn(reply, self.maillog.lines[-1])
        self.router.hops["b@example.com"] = "hold:"
        self.assertEqual(self.said(self.session(), ENVELOPE, b"x\r\n.\r\n")[1], "250 2.1.5 Ok")
        self.assertEqual([message.held for message, _ in self.spool.kept], [True])

    def test_size(self) -> None:
        """SIZE over the limit is refused at MAIL, content over it at its end; no limit refuses nothing."""
        session = self.session(message_size_limit="2000")
        envelope = ENVELOPE.replace(b"<a@example.com>", b"<> SIZE=2000")
        replies = self.said(session, b"MAIL FROM:<> SIZE=2001\r\n" + envelope)
        self.assertEqual(replies[:2], ["552 5.3.4 Message size exceeds fixed limit", "250 2.1.0 Ok"])
        self.assertIn("MAIL from localhost[127.0.0.1]: 552", self.maillog.lines[0])
        self.assertEqual(self.said(session, b"x" * 1998 + b"\r\n.\r\n")[0][:3], "250")
        self.assertEqual(
            self.said(session, ENVELOPE, b"x" * 1999 + b"\r\n.\r\n")[-1], "552 5.3.4 Error: message too big"
        )
        session = self.session(message_size_limit="0")
        self.assertEqual(self.said(session, b"MAIL FROM:<> SIZE=99999999999\r\n"), ["250 2.1.0 Ok"])

    def test_low_disk(self) -> None:
        """Where there is no room for what the client declares it hears so at MAIL, before it sends the content."""
        self.spool.free = 5000
        session = self.session()
        full = "452 4.3.1 Insufficient system storage"
        self.assertEqual(self.said(session, b"MAIL FROM:<> SIZE=5001\r\n"), [full])
        self.assertIn(f"NOQUEUE: reject: MAIL from localhost[127.0.0.1]: {full}; proto=", self.maillog.lines[-1])
        self.assertEqual(self.said(session, b"MAIL FROM:<> SIZE=5000\r\n"), ["250 2.1.0 Ok"])
        self.spool.free = -1
        self.assertEqual(self.said(session, b"RSET\r\nMAIL FROM:<>\r\n")[1:], [full])

    def test_hops(self) -> None:
        """A message that goes in circles is refused."""
        replies = self.said(self.session(), ENVELOPE, b"Received: x\r\n" * 51 + b".\r\n")
        self.assertEqual(replies[-1], "554 5.4.6 Error: too many hops")

    def test_smuggling(self) -> None:
        """Content that could be split into two messages is refused whole, and what was hidden in it is not obeyed."""
        for end, name in ((b"\n.\r\n", "bare <LF>"), (b"\r.\r\n", "bare <CR>"), (b"\r\n\0\r\n", "NUL")):
            replies = self.said(self.session(), ENVELOPE, b"x" + end + ENVELOPE, b"y\r\n.\r\n")
            self.assertEqual(replies[3:], [f"550 5.5.2 Error: {name} received"])
            self.assertEqual(self.spool.kept, [])

    def test_paused(self) -> None:
        """While nothing can be recorded no mail is taken."""
        self.stopped = "the queue cannot be written"
        session = self.session()
        self.assertEqual(self.said(session, b"MAIL FROM:<>\r\n"), ["452 4.3.1 the queue cannot be written"])
        self.stopped = None
        self.assertEqual(self.said(session, b"MAIL FROM:<>\r\n"), ["250 2.1.0 Ok"])

    def test_no_message_id(self) -> None:
        """A message without an id of its own is logged so."""
        self.said(self.session(), ENVELOPE, b".\r\n")
        self.assertTrue(self.maillog.lines[1].endswith(": message-id=<>"))

    def test_junk(self) -> None:
        """Postfix's limit of junk commands, and ours where it is set."""
        self.assertEqual(self.said(self.session(), b"NOOP\r\n" * 119)[-1], "250 2.0.0 Ok")
        full = "421 4.7.0 mx.example.com Error: too many errors"
        self.assertEqual(self.said(self.session(), b"NOOP\r\n" * 120)[-1], full)
        self.assertEqual(self.said(self.session(smtpd_junk_command_limit="0"), b"NOOP\r\n" * 20)[-1], full)

    def test_ended_by_us(self) -> None:
        """The operator's log has why a session was ended, with the client's name; nothing of it where that was QUIT."""
        for octets, line in (
            (b"FOO\r\n" * 20, "too many errors after UNKNOWN from localhost[127.0.0.1]"),
            (b"NOOP\r\nNOOP\n", "bare <LF> received after NOOP from localhost[127.0.0.1]"),
            (b"EHLO x\r\nMAIL\r\n", "improper command pipelining after EHLO from localhost[127.0.0.1]: MAIL"),
            (ENVELOPE + b"\xe4\0", "improper command pipelining after DATA from localhost[127.0.0.1]: ??"),
            (b"GET / HTTP/1.1\r\n", "warning: non-SMTP command from localhost[127.0.0.1]: GET"),
            (b"QUIT\r\n", None),
        ):
            self.maillog.lines.clear()
            self.said(self.session(), octets)
            self.assertEqual(self.maillog.lines, [f"smtpd: {line}"] if line else [])

    def test_draining(self) -> None:
        """When the service ends the transaction in progress is done, the next is not begun."""
        session = self.session()
        self.said(session, b"MAIL FROM:<a@example.com>\r\n")
        self.ending = True
        replies = self.said(session, b"RCPT TO:<b@example.com>\r\nDATA\r\n", b"x\r\n.\r\nMAIL FROM:<>\r\n")
        self.assertEqual([reply[:3] for reply in replies], ["250", "354", "250", "421"])
        self.assertEqual(replies[-1], "421 4.3.2 mx.example.com Service is shutting down")
        self.assertIs(session.machine.state, State.CLOSED)
        self.ending = False
        session = self.session()
        self.ending = True
        self.assertEqual([reply[:3] for reply in self.said(session, b"")], ["421"])
        self.assertEqual(self.said(session, b""), [])

    def test_draining_waits_for_the_spool(self) -> None:
        """A message that is being stored is waited for."""
        self.spool.slow = True
        session = self.session()
        self.said(session, ENVELOPE, b".\r\n")
        self.ending = True
        self.assertEqual(self.said(session, b""), [])
        self.spool.finish()
        self.assertEqual([reply[:3] for reply in self.said(session, b"")], ["250", "421"])


class PeerTests(SynchronousTestCase):
    """
    Who connected, by address alone.
    """

    def test_addresses(self) -> None:
        """Each kind."""
        for address, text in (
            (IPv4Address("TCP", "127.0.0.2", 5), "localhost[127.0.0.2]"),
            (IPv4Address("TCP", "192.0.2.1", 5), "unknown[192.0.2.1]"),
            (IPv6Address("TCP", "::1", 5), "localhost[::1]"),
            (IPv6Address("TCP", "2001:db8::1", 5), "unknown[2001:db8::1]"),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 5), "localhost[127.0.0.1]"),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 5), "unknown[192.0.2.1]"),
            (UNIXAddress("/run/x"), "localhost[unix]"),
            (None, "unknown[unknown]"),
        ):
            self.assertEqual(str(Peer.of(address)), text)

    def test_networks(self) -> None:
        """Who is in the networks, and who reached a UNIX socket; nobody else."""
        networks = Networks.parse("127.0.0.0/8")
        for address, known in ((IPv4Address("TCP", "127.0.0.2", 5), True), (IPv4Address("TCP", "192.0.2.1", 5), False),
                               (UNIXAddress(None), True), (None, False)):
            self.assertEqual(Peer.of(address).among(networks), known)
