"""
Tests of L{smtpreuse.smtp.server}.
"""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.message import Body
from smtpreuse.smtp.command import MailFrom, RcptTo
from smtpreuse.smtp.event import ContentEnd, ContentPart, DataBegun, Event, Hello, Quit, Reset, TLSBegun
from smtpreuse.smtp.lines import LINE_LIMIT
from smtpreuse.smtp.order import State
from smtpreuse.smtp.server import ERROR_LIMIT, Server

GROUP = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
IMPROPER = Quit("improper command pipelining after DATA", ": x")
ASKING = (MailFrom, RcptTo, DataBegun, ContentEnd, TLSBegun)


def greeted(size: int = 1000, junk: int = 100) -> Server:
    """A server whose greeting was taken."""
    server = Server("mx.example.com", size, junk)
    server.greet()
    server.taken()
    return server


def done(server: Server, *parts: bytes, refuse: str = "") -> list[Event]:
    """Feed these, say yes to all that is asked (or no to this kind), and tell what happened."""
    events: list[Event] = []
    for part in parts:
        server.feed(part)
        while (event := server.next()) is not None:
            events.append(event)
            if type(event).__name__ == refuse:
                server.refuse("450 4.0.0 no")
            elif isinstance(event, ASKING):
                server.accept()
    return events


def codes(server: Server) -> list[str]:
    """The codes of the replies not yet taken."""
    return [line[:3] for line in server.taken().decode("ascii").splitlines() if line[3:4] == " "]


class CommandTests(SynchronousTestCase):
    """
    Each command in its place has its event and its reply, each out of place its refusal.
    """

    def test_greeting(self) -> None:
        """The greeting names us."""
        server = Server("mx.example.com", 0, 100)
        self.assertIsNone(server.next())
        server.greet()
        self.assertEqual(server.taken(), b"220 mx.example.com ESMTP smtpreuse\r\n")
        self.assertEqual(server.taken(), b"")

    def test_early_talker(self) -> None:
        """Who speaks before the greeting is turned away, however much it said."""
        for early in (b"EHLO x\r\n", b"x", b"x" * 5000, b"x" * 5000 + b"\r\n"):
            server = Server("mx.example.com", 0, 100)
            server.feed(early)
            self.assertIsNone(server.next())
            server.greet()
            self.assertEqual(server.taken(), b"554 5.5.0 Error: data received before the greeting\r\n")
            reason = "improper command pipelining after CONNECT"
            shown = f": {early[:100].split()[0].decode()}"
            self.assertEqual((server.next(), server.next()), (Quit(reason, shown), None))

    def test_ehlo(self) -> None:
        """EHLO announces what there is; SIZE has no number where there is no limit."""
        for size, word in ((1000, b"SIZE 1000"), (0, b"SIZE")):
            server = greeted(size)
            self.assertEqual(done(server, b"ehlo client.example.com\r\n"), [Hello("client.example.com", True)])
            self.assertEqual(
                server.taken(),
                b"250-mx.example.com\r\n250-PIPELINING\r\n250-" + word
                + b"\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 HELP\r\n",
            )

    def test_helo(self) -> None:
        """HELO announces nothing; of a name only what a name may have is kept, and not without end."""
        server = greeted()
        self.assertEqual(done(server, b"HELO  [192.0.2.1] more\r\n"), [Hello("[192.0.2.1]", False)])
        self.assertEqual(server.taken(), b"250 mx.example.com\r\n")
        self.assertEqual(done(server, b"HELO a(b)\xff;c_d-e\r\n"), [Hello("a?b???c_d-e", False)])
        self.assertEqual(done(server, b"HELO " + b"x" * 300 + b"\r\n"), [Hello("x" * 255, False)])

    def test_transaction(self) -> None:
        """A whole transaction, in any case of its verbs."""
        server = greeted()
        self.assertEqual(
            done(
                server,
                b"mail from:<a@example.com> size=5 body=8bitmime\r\n",
                b"Rcpt To:<b@example.com>\r\n",
                b"data\r\n",
            ),
            [MailFrom("a@example.com", 5, Body.EIGHT_BIT), RcptTo("b@example.com"), DataBegun()],
        )
        self.assertEqual(
            server.taken(), b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
        )
        self.assertEqual(done(server, b"..x\r\n.\r\n"), [ContentEnd(b".x\r\n", None)])
        self.assertEqual((server.taken(), server.state), (b"250 2.0.0 Ok\r\n", State.IDLE))

    def test_pipelined(self) -> None:
        """Content shares its piece with the next envelope, or with QUIT; what follows QUIT is nothing."""
        server = greeted()
        last = b"y\r\n.\r\nQUIT\r\nMAIL FROM:<c@example.com>\r\n"
        events = done(server, GROUP, b"x\r\n.\r\n" + GROUP, last)
        envelope = [MailFrom("a@example.com"), RcptTo("b@example.com"), DataBegun()]
        self.assertEqual(events, [*envelope, ContentEnd(b"x\r\n", None), *envelope, ContentEnd(b"y\r\n", None), Quit()])
        self.assertEqual(codes(server), ["250", "250", "354", "250", "250", "250", "354", "250", "221"])
        server.feed(b"NOOP\r\n")
        self.assertEqual((server.next(), server.taken(), server.buffered), (None, b"", 0))

    @given(st.lists(st.integers(0, 200), max_size=6))
    def test_every_cut(self, cuts: list[int]) -> None:
        """Cuts make no difference, but to the parts that content comes in."""
        groups = [
            b"EHLO x\r\n", GROUP, b"..a\r\n\r\n.b\r\n.\r\nNOOP\r\nFOO\r\n" + GROUP, b".\r\nRSET\r\nQUIT\r\n"
        ]
        ends = list(itertools.accumulate(map(len, groups)))
        stream = b"".join(groups)
        places = sorted({0, *ends, *(min(place, len(stream)) for place in cuts)})
        server, other = greeted(), greeted()
        parted = done(server, *(stream[a:b] for a, b in itertools.pairwise(places)))
        whole = done(other, *groups)

        def known(events: list[Event]) -> tuple[list[Event], bytes]:
            content = b"".join(event.octets for event in events if isinstance(event, ContentPart | ContentEnd))
            return [event for event in events if not isinstance(event, ContentPart | ContentEnd)], content

        self.assertEqual(known(parted), known(whole))
        self.assertEqual(server.taken(), other.taken())

    def test_byte_by_byte(self) -> None:
        """One octet at a time."""
        server = greeted()
        stream = GROUP + b"x\r\n.\r\nQUIT\r\n"
        events = done(server, *(stream[place : place + 1] for place in range(len(stream))))
        self.assertEqual(b"".join(e.octets for e in events if isinstance(e, ContentPart | ContentEnd)), b"x\r\n")
        self.assertEqual(codes(server), ["250", "250", "354", "250", "221"])

    def test_waits_for_the_answer(self) -> None:
        """Nothing comes out behind a question until it is answered; what is fed meanwhile waits in order."""
        server = greeted()
        server.feed(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n")
        self.assertEqual(server.next(), MailFrom("a@example.com"))
        self.assertTrue(server.waiting)
        self.assertIsNone(server.next())
        server.feed(b"NOOP\r\n")
        self.assertEqual(server.buffered, len(b"RCPT TO:<b@example.com>\r\nNOOP\r\n"))
        server.accept("250 2.1.0 fine")
        self.assertFalse(server.waiting)
        self.assertEqual(server.taken(), b"250 2.1.0 fine\r\n")
        self.assertEqual(done(server, b""), [RcptTo("b@example.com")])
        self.assertEqual(codes(server), ["250", "250"])

    def test_refused(self) -> None:
        """What is refused did not happen."""
        for kind, expected in (
            ("MailFrom", ["450", "503", "503"]), ("RcptTo", ["250", "450", "554"]),
            ("DataBegun", ["250", "250", "450"]),
        ):
            server = greeted()
            done(server, GROUP, refuse=kind)
            self.assertEqual(codes(server), expected, kind)
        server = greeted()
        done(server, GROUP, b".\r\n", refuse="ContentEnd")
        self.assertEqual((codes(server)[-1], server.state), ("450", State.IDLE))

    def test_data_refused(self) -> None:
        """DATA refused leaves the transaction as it was."""
        server = greeted()
        done(server, GROUP, refuse="DataBegun")
        server.taken()
        done(server, b"DATA\r\n")
        self.assertEqual(codes(server), ["354"])

    def test_out_of_order(self) -> None:
        """Postfix's replies to what is out of order."""
        server = greeted()
        self.assertEqual(done(server, b"RCPT TO:<b@example.com>\r\nDATA\r\n"), [])
        self.assertEqual(
            server.taken(), b"503 5.5.1 Error: need MAIL command\r\n503 5.5.1 Error: need RCPT command\r\n"
        )
        done(server, b"MAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n", b"RCPT TO:<b@example.com>\r\nMAIL FROM:<>\r\n")
        self.assertEqual(
            server.taken().split(b"\r\n")[1:],
            [b"503 5.5.1 Error: nested MAIL command", b"554 5.5.1 Error: no valid recipients", b"250 2.1.5 Ok",
             b"503 5.5.1 Error: nested MAIL command", b""],
        )

    def test_reset(self) -> None:
        """RSET, EHLO and HELO end a transaction."""
        for line, event in ((b"RSET", Reset()), (b"EHLO x", Hello("x", True)), (b"HELO x", Hello("x", False))):
            server = greeted()
            events = done(server, b"MAIL FROM:<>\r\n" + line + b"\r\n", b"MAIL FROM:<>\r\n")
            self.assertEqual(events, [MailFrom(""), event, MailFrom("")])
            self.assertEqual(codes(server), ["250", "250", "250"])
        server = greeted()
        done(server, b"RSET\r\n")
        self.assertEqual(server.taken(), b"250 2.0.0 Ok\r\n")

    def test_others(self) -> None:
        """Commands without an event."""
        for line, reply in (
            (b"NOOP", b"250 2.0.0 Ok"), (b"NOOP x", b"250 2.0.0 Ok"), (b"noop", b"250 2.0.0 Ok"),
            (b"VRFY a", b"252 2.0.0 Cannot verify, but will take mail for it"),
            (b"VRFY", b"501 5.5.4 Syntax: VRFY address"),
            (b"HELP", b"214 2.0.0 Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT"),
            (b"EHLO", b"501 5.5.4 Syntax: EHLO hostname"), (b"HELO  ", b"501 5.5.4 Syntax: HELO hostname"),
            (b"DATA x", b"501 5.5.4 Syntax: DATA"), (b"rset x", b"501 5.5.4 Syntax: RSET"),
            (b"", b"500 5.5.2 Error: bad syntax"), (b" \t", b"500 5.5.2 Error: bad syntax"),
            (b"X1", b"500 5.5.2 Error: command not recognized"), (b"FOO", b"500 5.5.2 Error: command not recognized"),
            (b"STARTTLS", b"502 5.5.1 Error: command not implemented"),
            (b"bdat 5", b"502 5.5.1 Error: command not implemented"),
            (b"MAILX", b"500 5.5.2 Error: command not recognized"),
            (b"MAIL", b"501 5.5.4 Syntax: MAIL FROM:<address>"),
            ("FOO\u00e4".encode(), b"500 5.5.2 Error: command not recognized"),
        ):
            server = greeted()
            self.assertEqual(done(server, line + b"\r\n"), [], line)
            self.assertEqual(server.taken(), reply + b"\r\n", line)
            self.assertIs(server.state, State.IDLE)

    def test_blanks(self) -> None:
        """A tab is a blank, and blanks before a command do not count; but a command is no other for them."""
        events = done(greeted(), b"MAIL\tFROM:<a@x>\tSIZE=5\r\n  rcpt \t TO:<b@x>\t\r\n\tDATA \t\r\n")
        self.assertEqual(events, [MailFrom("a@x", 5), RcptTo("b@x"), DataBegun()])
        for line in (b" GET / HTTP/1.1\r\n", b" Subject: x\r\n"):
            self.assertIsInstance(done(greeted(), line)[-1], Quit)

    def test_argument_as_it_is(self) -> None:
        """Blanks around an argument are not part of it; all else is."""
        self.assertEqual(done(greeted(), b"EHLO   ?host?  \r\n"), [Hello("?host?", True)])

    def test_nothing_buffered(self) -> None:
        """Nothing was fed yet."""
        self.assertEqual(Server("mx.example.com", 0, 100).buffered, 0)

    def test_quit(self) -> None:
        """QUIT is answered, whatever stands behind it, and is the end."""
        for line in (b"QUIT\r\n", b"quit foo\r\n"):
            server = greeted()
            self.assertEqual(done(server, line), [Quit()])
            self.assertEqual((server.taken(), server.state), (b"221 2.0.0 Bye\r\n", State.CLOSED))

    def test_bad_arguments(self) -> None:
        """The grammar of arguments is that of L{smtpreuse.smtp.command}."""
        server = greeted()
        self.assertEqual(done(server, b"MAIL FROM:<a@>\r\nMAIL FROM:<>\r\nRCPT TO:<>\r\n"), [MailFrom("")])
        self.assertEqual(codes(server), ["501", "250", "501"])


class SynchronizationTests(SynchronousTestCase):
    """
    What must be the last of its group is, or the session ends and nothing behind it is obeyed.
    """

    def test_behind_a_group(self) -> None:
        """Whatever stands behind EHLO, HELO or DATA in the same piece, however those would be answered."""
        for line in (b"EHLO x", b"HELO x", b"EHLO", b"DATA", b"data x"):
            for behind in (b"MAIL FROM:<c@example.com>\r\n", b"Subject: x\r\n\r\nx\r\n.\r\n", b"\r\n", b"x"):
                server = greeted()
                (event,) = done(server, line + b"\r\n" + behind)
                verb = line[:4].decode().upper()
                assert isinstance(event, Quit)
                self.assertEqual(event.reason, f"improper command pipelining after {verb}")
                self.assertEqual(server.taken(), b"554 5.5.0 Error: SMTP protocol synchronization\r\n")
                self.assertEqual(done(server, b"MAIL FROM:<c@example.com>\r\n"), [])

    def test_content_behind_a_refusal(self) -> None:
        """Content sent ahead of an envelope that is refused is no commands."""
        server = greeted()
        events = done(server, GROUP + b"x y\r\n.\r\n", refuse="RcptTo")
        self.assertEqual(events, [MailFrom("a@example.com"), RcptTo("b@example.com"), IMPROPER])
        self.assertEqual(codes(server), ["250", "450", "554"])

    def test_content_behind_data(self) -> None:
        """Content sent ahead of 354 is not taken either: the client did not know that it would be."""
        server = greeted()
        events = done(server, GROUP + b"x\r\n.\r\n")
        self.assertEqual(events, [MailFrom("a@example.com"), RcptTo("b@example.com"), IMPROPER])

    def test_behind_the_final_dot(self) -> None:
        """An envelope may follow the final dot, and is held to the same."""
        server = greeted()
        done(server, GROUP, b"x\r\n.\r\n" + GROUP)
        self.assertEqual(codes(server)[3:], ["250", "250", "250", "354"])
        server = greeted()
        done(server, GROUP, b"x\r\n.\r\n" + GROUP + b"y")
        self.assertEqual(codes(server)[3:], ["250", "250", "250", "554"])

    def test_sent_while_waiting(self) -> None:
        """What comes in while an answer is due counts as sent behind."""
        server = greeted()
        server.feed(b"MAIL FROM:<>\r\nDATA\r\n")
        server.next()
        server.feed(b"x\r\n")
        server.accept()
        self.assertEqual(server.next(), IMPROPER)
        self.assertEqual(codes(server), ["250", "554"])

    def test_what_is_shown(self) -> None:
        """The log gets the first word of what was sent, and not all of that: further on there may be anything."""
        for behind, shown in (
            (b"AUTH PLAIN AGEAYg==\r\n", ": AUTH"), (b"\r\n  \r\n", ""), (b"x" * 200, ": " + "x" * 100),
            (b"\xe4\0b", ": \ufffd\0b"),
        ):
            self.assertEqual(
                done(greeted(), b"EHLO x\r\n" + behind), [Quit("improper command pipelining after EHLO", shown)]
            )


class LineTests(SynchronousTestCase):
    """
    What is no command line has its reply, and splits nothing.
    """

    def test_long_line(self) -> None:
        """A line over the limit is dropped, whole or in parts, and what follows is understood."""
        for size, expected in ((LINE_LIMIT, ["250", "250"]), (LINE_LIMIT + 1, ["500", "250"]), (9000, ["500", "250"])):
            line = b"NOOP " + b"x" * (size - 5) + b"\r\nNOOP\r\n"
            for parts in ([line], [line[:2049], line[2049:]], [line[:size], line[size:]], [line[:-7], line[-7:]],
                          [line[place : place + 1] for place in range(len(line))]):
                server = greeted()
                done(server, *parts)
                self.assertEqual(codes(server), expected, (size, len(parts)))

    def test_endless_line(self) -> None:
        """A line that never ends is not kept."""
        server = greeted()
        for _ in range(10):
            done(server, b"x" * 1000)
            self.assertLessEqual(server.buffered, LINE_LIMIT + 1)
        self.assertEqual(server.buffered, 0)
        done(server, b"\r\n")
        self.assertEqual(server.taken(), b"500 5.5.2 Error: line too long\r\n")

    def test_bare_lf(self) -> None:
        """A bare LF ends the session, and nothing behind it is looked at."""
        for line in (b"NOOP\n", b"\n", b"NOOP\r\n\n"):
            server = greeted()
            after = "NOOP" if line.startswith(b"NOOP\r") else "CONNECT"
            reason = f"bare <LF> received after {after}"
            self.assertEqual(done(server, line + b"MAIL FROM:<>\r\n"), [Quit(reason)])
            reply = server.taken().splitlines()[-1]
            self.assertEqual(reply, b"521 5.5.2 mx.example.com Error: bare <LF> received")

    def test_bare_cr_and_nul(self) -> None:
        """A bare CR or a NUL makes it no command."""
        for line, reply in (
            (b"NO\rOP", b"500 5.5.2 Error: bare <CR> received"), (b"NOOP\r", b"500 5.5.2 Error: bare <CR> received"),
            (b"NOOP \0", b"500 5.5.2 Error: NUL received"),
        ):
            server = greeted()
            done(server, line + b"\r\nNOOP\r\n")
            self.assertEqual(server.taken(), reply + b"\r\n250 2.0.0 Ok\r\n")

    def test_too_many_errors(self) -> None:
        """After so many errors the session ends; refusals with 5xx count, 4xx do not."""
        server = greeted()
        self.assertEqual(done(server, b"FOO\r\n" * (ERROR_LIMIT - 1) + b"NOOP\r\n"), [])
        self.assertEqual(codes(server)[-1], "250")
        self.assertEqual(done(server, b"MAIL FROM:<>\r\n" * 9, refuse="MailFrom")[-1], MailFrom(""))
        server.feed(b"MAIL FROM:<>\r\nNOOP\r\n")
        self.assertEqual(server.next(), MailFrom(""))
        server.taken()
        server.refuse("550 5.7.1 no")
        self.assertEqual(server.next(), Quit("too many errors after MAIL"))
        self.assertEqual(server.taken(), b"550 5.7.1 no\r\n421 4.7.0 mx.example.com Error: too many errors\r\n")

    def test_refusal_is_one_error(self) -> None:
        """A refusal counts once, as an error does."""
        server = greeted()
        for _ in range(ERROR_LIMIT - 1):
            server.feed(b"MAIL FROM:<>\r\n")
            server.next()
            server.refuse("550 5.7.1 no")
        self.assertEqual(done(server, b"MAIL FROM:<>\r\n"), [MailFrom("")])

    def test_errors_of_lines_count(self) -> None:
        """Lines that are none count too."""
        for line, after in (
            (b"\0\r\n", "CONNECT"), (b"a\rb\r\n", "CONNECT"), (b"x" * 3000 + b"\r\n", "CONNECT"),
            (b"VRFY\r\n", "VRFY"), (b"FOO\r\n", "UNKNOWN"),
        ):
            server = greeted()
            self.assertEqual(done(server, line * (ERROR_LIMIT + 1)), [Quit(f"too many errors after {after}")])
            self.assertEqual(len(codes(server)), ERROR_LIMIT + 1)

    def test_errors_are_forgiven(self) -> None:
        """A message taken makes good for the errors before it, an envelope does not."""
        server = greeted()
        errors = b"FOO\r\n" * (ERROR_LIMIT - 1)
        done(server, errors + GROUP, b".\r\n" + errors + b"NOOP\r\n")
        self.assertEqual(codes(server)[-1], "250")
        server = greeted()
        done(server, errors + GROUP.replace(b"DATA", b"FOO"))
        self.assertEqual(codes(server)[-1], "421")

    def test_junk(self) -> None:
        """So many commands that lead nowhere are free, more are errors each; all are answered as ever."""
        for line in (b"NOOP", b"VRFY x", b"RSET", b"EHLO x", b"HELO x", b"noop"):
            server = greeted(junk=5)
            events = done(server, *[line + b"\r\n"] * (5 + ERROR_LIMIT))
            self.assertEqual(events[-1], Quit(f"too many errors after {line.split()[0].upper().decode()}"))
            answered = codes(server)
            self.assertEqual((len(answered), answered[-1]), (5 + ERROR_LIMIT + 1, "421"))
            self.assertEqual(len(set(answered[:-1])), 1)

    def test_junk_is_forgiven(self) -> None:
        """It counts together, and anew from the next message that is taken on; other commands are none."""
        server = greeted(junk=5)
        some = b"NOOP\r\nVRFY x\r\nRSET\r\n" * 3
        for _ in range(5):
            done(server, some + b"HELP\r\n" * 30 + GROUP, b".\r\n")
        self.assertEqual(codes(server)[-1], "250")
        server = greeted(junk=5)
        for _ in range(ERROR_LIMIT):
            done(server, some + GROUP, b"\n\r\n.\r\n", refuse="ContentEnd")
        self.assertEqual(codes(server)[-1], "421")

    def test_limits(self) -> None:
        """The limits are Postfix's."""
        self.assertEqual((LINE_LIMIT, ERROR_LIMIT), (2048, 20))

    def test_not_implemented(self) -> None:
        """Commands that exist and are not offered."""
        for verb in (b"AUTH", b"ETRN", b"EXPN", b"TURN", b"BDAT", b"SEND", b"SOML", b"SAML"):
            server = greeted()
            done(server, verb + b" x\r\n")
            self.assertEqual(server.taken(), b"502 5.5.1 Error: command not implemented\r\n")

    def test_no_smtp(self) -> None:
        """A web browser made to talk to us is told goodbye, whatever its method, and so is what reads like mail."""
        for line in (
            b"GET / HTTP/1.1", b"POST / HTTP/1.1", b"connect x", b"POST", b"PUT / HTTP/1.1\r\nHost: mx.example.com",
            b"Label:", b"Subject: x", b"MAILFROM:<a@example.com>", b"mail: x", b":", b"{", b"\x16\x03\x01", b"\xe4",
            b"--x", b"1", b"<html>",
        ):
            server = greeted()
            (event,) = done(server, line + b"\r\nMAIL FROM:<>\r\n")
            word = line.splitlines()[-1].split()[0].upper().decode("ascii", "replace")
            self.assertEqual(event, Quit("warning: non-SMTP command", f": {word}"))
            self.assertEqual(server.taken().splitlines()[-1], b"221 2.7.0 Error: I can break rules, too. Goodbye.")


class ContentTests(SynchronousTestCase):
    """
    Content streams, and its offences are told at its end.
    """

    def test_streams(self) -> None:
        """Each part comes out as it comes in; nothing is held but what may begin the end."""
        server = greeted()
        done(server, GROUP)
        self.assertEqual(done(server, b"abc\r\n", b"def", b"\r\n.\r\n"), [
            ContentPart(b"abc"), ContentPart(b"\r\ndef"), ContentEnd(b"\r\n", None),
        ])
        self.assertIs(server.state, State.IDLE)

    def test_offence(self) -> None:
        """Commands hidden behind a false end are content; the offence is told, and counts when refused so."""
        server = greeted()
        done(server, GROUP)
        server.feed(b"a\n.\r\nMAIL FROM:<x@example.com>\r\n.\r\nNOOP\r\n")
        self.assertEqual(server.next(), ContentEnd(b"a\n.\r\nMAIL FROM:<x@example.com>\r\n", "bare <LF>"))
        server.refuse("550 5.5.2 Error: bare <LF> received")
        self.assertEqual((server.next(), server.state), (None, State.IDLE))
        self.assertEqual(codes(server), ["250", "250", "354", "550", "250"])

    def test_each_message_anew(self) -> None:
        """An offence of one message is none of the next."""
        server = greeted()
        events = done(server, GROUP, b"a\nb\r\n.\r\n" + GROUP, b"c\r\n.\r\n")
        self.assertEqual([e.offence for e in events if isinstance(e, ContentEnd)], ["bare <LF>", None])

    def test_closed_in_content(self) -> None:
        """A session can be ended in the middle of content, and while an answer is due."""
        server = greeted()
        done(server, GROUP, b"abc")
        server.close("421 4.4.2 mx.example.com Error: timeout exceeded", "timeout", ", alas")
        self.assertEqual(done(server, b"\r\n.\r\n"), [Quit("timeout", ", alas")])
        self.assertEqual(codes(server)[-1], "421")
        server = greeted()
        server.feed(b"MAIL FROM:<>\r\n")
        server.next()
        server.close("421 4.3.2 bye")
        self.assertFalse(server.waiting)
        self.assertEqual((server.next(), server.next()), (Quit(), None))


class WhereTests(SynchronousTestCase):
    """
    What the client did last has Postfix's words.
    """

    def test_where(self) -> None:
        """Before any command, behind each, in content, behind it, and behind what is no command."""
        server = greeted()
        self.assertEqual(server.where, "CONNECT")
        for octets, where in (
            (b"NO", "CONNECT"), (b"OP\r\n", "NOOP"), (b"ehlo x\r\n", "EHLO"), (b"FOO x\r\n", "UNKNOWN"),
            (b"STARTTLS\r\n", "STARTTLS"), (b"RCPT TO:<>\r\n", "RCPT"), (b"DATA\r\n", "DATA"),
            (GROUP, "DATA (0 bytes)"), (b"abc\r\n", "DATA (3 bytes)"), (b"..d\r\n", "DATA (7 bytes)"),
            (b".\r\n", "END-OF-MESSAGE"), (GROUP + b"", "DATA (0 bytes)"), (b"\r\n.\r\nRSET\r\n", "RSET"),
        ):
            done(server, octets)
            self.assertEqual(server.where, where, octets)

    def test_hung_up(self) -> None:
        """A client that is gone needs no reply; whatever was going on is over, and nobody is blamed."""
        server = greeted()
        done(server, GROUP, b"abc")
        server.taken()
        server.hang_up()
        self.assertEqual((done(server, b"\r\n.\r\n"), server.taken()), ([Quit()], b""))
        self.assertIs(server.state, State.CLOSED)


class ReplyTests(SynchronousTestCase):
    """
    What we say is one line of printable ASCII, of at most 512 octets.
    """

    def test_cleaned(self) -> None:
        """What does not print becomes a question mark; what is too long is cut."""
        server = greeted()
        server.feed(b"MAIL FROM:<>\r\n")
        server.next()
        server.refuse("450 4.0.0 a\r\nb\u00e4\0\x7f~ c")
        self.assertEqual(server.taken(), b"450 4.0.0 a??b???~ c\r\n")
        for text, reply in (("450 a\tb", b"450 a?b\r\n"), ("450 \u00e4", b"450 ?\r\n")):
            server.feed(b"MAIL FROM:<>\r\n")
            server.next()
            server.refuse(text)
            self.assertEqual(server.taken(), reply)
        server.close("421 " + "x" * 600)
        self.assertEqual(server.taken(), b"421 " + b"x" * 506 + b"\r\n")
