"""
Tests of L{smtpreuse.smtp.server}: STARTTLS.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.smtp.command import MailFrom, RcptTo
from smtpreuse.smtp.event import ContentEnd, DataBegun, Hello, Quit, Reset, TLSBegun
from smtpreuse.smtp.order import Encryption, State
from smtpreuse.smtp.server import ERROR_LIMIT, Server
from tests.smtp.test_server import GROUP, codes, done


class STARTTLSTests(SynchronousTestCase):
    """
    STARTTLS is offered where there is TLS to be had, and nothing from before it is there behind it.
    """

    def server(self, encryption: Encryption = Encryption.MAY) -> Server:
        """One whose greeting was taken."""
        server = Server("mx.example.com", 1000, 100, encryption)
        server.greet()
        server.taken()
        return server

    def started(self, *before: bytes, encryption: Encryption = Encryption.MAY) -> Server:
        """One that has said yes to STARTTLS, behind these lines, and whose replies were taken."""
        server = self.server(encryption)
        events = done(server, *before, b"STARTTLS\r\n")
        self.assertEqual((events[-1], server.state), (TLSBegun(), State.HANDSHAKE))
        self.assertTrue(server.taken().endswith(b"220 2.0.0 Ready to start TLS\r\n"))
        return server

    def test_offered(self) -> None:
        """EHLO and HELP have it while there is TLS to be had; the reply to HELO has nothing."""
        for encryption, offered in (
            (Encryption.NONE, False), (Encryption.MAY, True), (Encryption.MUST, True), (Encryption.ACTIVE, False)
        ):
            server = self.server(encryption)
            done(server, b"EHLO x\r\n")
            self.assertEqual(b"250-SIZE 1000\r\n250-STARTTLS\r\n250-" in server.taken(), offered)
            done(server, b"HELO x\r\n")
            self.assertEqual(server.taken(), b"250 mx.example.com\r\n")
        server = self.server()
        done(server, b"HELP\r\n")
        self.assertTrue(server.taken().endswith(b" QUIT STARTTLS\r\n"))

    def test_refused(self) -> None:
        """Postfix's replies where there is none; with a parameter it is no STARTTLS at all. Each is an error."""
        for encryption, line, reply in (
            (Encryption.NONE, b"STARTTLS", b"502 5.5.1 Error: command not implemented"),
            (Encryption.ACTIVE, b"STARTTLS", b"503 5.5.1 Error: TLS already active"),
            *((any_, b"starttls now", b"501 5.5.4 Syntax: STARTTLS") for any_ in Encryption),
        ):
            server = self.server(encryption)
            self.assertEqual(done(server, line + b"\r\n"), [])
            self.assertEqual((server.taken(), server.state), (reply + b"\r\n", State.IDLE))
            done(server, *[line + b"\r\n"] * ERROR_LIMIT)
            self.assertEqual(codes(server)[-1], "421")

    def test_not_now(self) -> None:
        """What cannot be had now may be had later, and the session goes on as it was."""
        server = self.server()
        events = done(server, b"EHLO x\r\n", b"MAIL FROM:<a@x>\r\nSTARTTLS\r\n", refuse="TLSBegun")
        self.assertEqual(events, [Hello("x", True), MailFrom("a@x"), TLSBegun()])
        self.assertEqual((server.state, server.encryption), (State.MAIL, Encryption.MAY))
        self.assertEqual(done(server, b"RCPT TO:<b@x>\r\nSTARTTLS\r\n"), [RcptTo("b@x"), TLSBegun()])

    def test_behind_tls(self) -> None:
        """The client has to say its name again, and begins as it did; STARTTLS is not offered again."""
        for before in ((), (b"EHLO x\r\n",), (b"EHLO x\r\n", GROUP[:27]), (b"EHLO x\r\n", GROUP[:-6])):
            server = self.started(*before)
            server.secured()
            lines = b"MAIL FROM:<a@x>\r\nRSET\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nNOOP\r\nDATA\r\n"
            self.assertEqual(done(server, lines), [Reset()])
            self.assertEqual(server.taken().splitlines(), [
                b"503 5.5.1 Error: send HELO/EHLO first", b"250 2.0.0 Ok", b"503 5.5.1 Error: send HELO/EHLO first",
                b"503 5.5.1 Error: need MAIL command", b"250 2.0.0 Ok", b"503 5.5.1 Error: need RCPT command",
            ])  # fmt: skip
            self.assertEqual(done(server, b"STARTTLS\r\n"), [])
            self.assertEqual(codes(server), ["503"])
            for hello in (b"HELO y\r\n", b"EHLO y\r\n"):
                done(server, hello)
            self.assertNotIn(b"STARTTLS", server.taken())
            events = done(server, GROUP, b"x\r\n.\r\n")
            self.assertEqual([type(event) for event in events], [MailFrom, RcptTo, DataBegun, ContentEnd])

    def test_injected(self) -> None:
        """What is pipelined behind STARTTLS ends the session, whatever its answer would be; nothing of it is obeyed."""
        for encryption in Encryption:
            for line in (b"STARTTLS\r\n", b"STARTTLS x\r\n"):
                for behind in (b"MAIL FROM:<c@x>\r\n", b"E", b"\r\n", b"\x16\x03\x01", b"EHLO x\r\n" + GROUP):
                    server = self.server(encryption)
                    (event,) = done(server, line + behind)
                    assert isinstance(event, Quit)
                    self.assertEqual(event.reason, "improper command pipelining after STARTTLS")
                    self.assertEqual(codes(server), ["554"])
                    self.assertEqual((done(server, GROUP), server.state), ([], State.CLOSED))

    def test_injected_while_asked(self) -> None:
        """So does what comes while it is being found out whether there is TLS: no 220 is said then."""
        server = self.server()
        server.feed(b"STARTTLS\r\n")
        self.assertEqual(server.next(), TLSBegun())
        server.feed(b"MAIL")
        server.accept()
        self.assertEqual(server.next(), Quit("improper command pipelining after STARTTLS", ": MAIL"))
        self.assertEqual(codes(server), ["554"])

    def test_injected_in_the_handshake(self) -> None:
        """And what comes between 220 and TLS, without a word to whoever sent it."""
        server = self.started()
        self.assertIsNone(server.next())
        server.feed(b"MAIL FROM:<c@x>\r\n")
        self.assertEqual(server.next(), Quit("improper command pipelining after STARTTLS", ": MAIL"))
        self.assertEqual((server.taken(), server.state, server.buffered), (b"", State.CLOSED, 0))
        self.assertRaises(AssertionError, server.secured)

    def test_ended_in_the_handshake(self) -> None:
        """A session that ends there ends as everywhere."""
        server = self.started()
        server.hang_up()
        self.assertEqual((server.next(), server.next()), (Quit(), None))

    def test_must(self) -> None:
        """Where TLS must come first only what leads to it is obeyed; behind it everything is."""
        server = self.server(Encryption.MUST)
        for line in (b"MAIL FROM:<>", b"RCPT TO:<b@x>", b"DATA", b"RSET", b"VRFY a", b"HELP", b"DATA x", b"mail"):
            self.assertEqual(done(server, line + b"\r\n"), [], line)
            self.assertEqual(server.taken(), b"530 5.7.0 Must issue a STARTTLS command first\r\n", line)
        for line, reply in (
            (b"NOOP", "250"), (b"EHLO x", "250"), (b"HELO x", "250"), (b"FOO", "500"), (b"AUTH", "502")
        ):
            done(server, line + b"\r\n")
            self.assertEqual(codes(server), [reply], line)
        done(server, b"STARTTLS\r\n", refuse="TLSBegun")
        self.assertEqual(codes(server), ["450"])
        self.assertEqual(done(server, b"MAIL FROM:<>\r\n"), [])
        self.assertEqual(codes(server), ["530"])
        self.assertEqual(done(server, b"QUIT\r\n"), [Quit()])
        server = self.started(encryption=Encryption.MUST)
        server.secured()
        self.assertEqual(done(server, b"EHLO x\r\n", b"MAIL FROM:<>\r\n"), [Hello("x", True), MailFrom("")])

    def test_must_counts(self) -> None:
        """A client that does not heed it is let go after so many errors."""
        server = self.server(Encryption.MUST)
        self.assertEqual(done(server, b"MAIL FROM:<>\r\n" * 30), [Quit("too many errors after MAIL")])

    @given(st.lists(st.sampled_from([
        b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<a@x>\r\n", b"RCPT TO:<b@x>\r\n", b"DATA\r\n", b".\r\n",
        b"RSET\r\n", b"STARTTLS\r\n", b"STARTTLS x\r\n", b"NOOP\r\n", b"junk\r\n", b"NO", b"\n",
    ]), max_size=25), st.sampled_from([Encryption.MAY, Encryption.MUST]), st.booleans())
    def test_any_sequence(self, lines: list[bytes], encryption: Encryption, yes: bool) -> None:
        """
        Whatever the order: with C{MUST} no sender is heard of in plaintext; no transaction and no name lives through a
        handshake; and TLS begins once at most.
        """
        server, named, begun = self.server(encryption), True, 0
        for line in lines:
            for event in done(server, line, refuse="" if yes else "TLSBegun"):
                named = named or isinstance(event, Hello)
                begun += isinstance(event, TLSBegun) and yes
                if isinstance(event, MailFrom | RcptTo | DataBegun):
                    self.assertTrue(named)
                    self.assertTrue(encryption is Encryption.MAY or server.encryption is Encryption.ACTIVE)
            if server.state is State.HANDSHAKE:
                server.secured()
                named = False
                self.assertIs(server.state, State.SECURED)
        self.assertLessEqual(begun, 1)
        self.assertEqual(begun, server.encryption is Encryption.ACTIVE)
