"""
Tests of L{smtpreuse.smtp.command}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import AddressError
from smtpreuse.model.message import Body
from smtpreuse.smtp.command import (
    MailFrom,
    RcptTo,
    first_word,
    hello_line,
    mail_line,
    parse_mail,
    parse_rcpt,
    rcpt_line,
)

GOOD = (
    "a@example.com", "a.b+c@sub.example.com", "a..b.@example.com", "!#$%&'*+/=?^_`{|}~-@example.com",
    "a@x_y.example.com",
    '"a b"@example.com', '"a\\"b"@example.com', '"a>b@c"@example.com', '""@example.com', "postmaster", '"post master"',
    "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@[ipv6:::1]", "a@x", "1@2.c3",
    f"a@{'b' * 63}.example.com", f"a@{'b.' * 126}com",
)
BAD = (
    "a b@example.com", "@example.com", "a@", "a@b@c", "a@-b.example.com", "a@b-.example.com", "a@b..example.com",
    "a@.example.com", '"a@example.com', 'a"b"@example.com', '"a"b@example.com', "a@[192.0.2]",
    "a@[2001:db8::1]", "a@[IPv6:192.0.2.1]", "a@[example.com]", "a@[300.0.0.1]", "a\t@example.com", "a@exa,mple.com",
    "a(b)@example.com", '"\x01"@example.com', "a@[192.0.2.1", "<a@example.com>", "a>b@example.com", '"a\\"@example.com',
    "a@example.com..", "a@.", "a@[192.0.2.1].", '"a".',
)
# No domains, in all that we read; what is in a queue may have one.
NO_DOMAINS = (
    f"a@{'b' * 64}.example.com", f"a@x.{'b' * 64}", f"a@{'b.' * 127}co", "a@127.0.0.1", "a@example.1", "a@5", "1@2.3",
)


class ParseMailTests(SynchronousTestCase):
    """
    MAIL's argument is read, or refused with its proper reply.
    """

    def test_addresses(self) -> None:
        """Every form of address, kept as it stands."""
        for address in GOOD:
            self.assertEqual(parse_mail(f"FROM:<{address}>".encode()), MailFrom(address), address)
            self.assertEqual(parse_mail(f"from: {address}".encode()), MailFrom(address), address)

    def test_bad_addresses(self) -> None:
        """What is no address."""
        for address in (*BAD, *NO_DOMAINS):
            reply = parse_mail(f"FROM:<{address}>".encode())
            self.assertEqual(reply, "501 5.1.7 Bad sender address syntax", address)

    def test_final_dot(self) -> None:
        """A domain with a dot at its end is the same without; a local part keeps its own."""
        for path, address in (
            ("<a@example.com.>", "a@example.com"), ("a@example.com.", "a@example.com"), ("<a.@x.>", "a.@x"),
            ("<a.>", "a."), ('<"a"@example.com.>', '"a"@example.com'), ("<@x.:a@example.com.>", "a@example.com"),
        ):
            self.assertEqual(parse_mail(f"FROM:{path}".encode()), MailFrom(address))
            self.assertEqual(parse_rcpt(f"TO:{path}".encode()), RcptTo(address))

    def test_tabs(self) -> None:
        """A tab is a blank."""
        self.assertEqual(parse_mail(b"FROM:\t<a@x>\tSIZE=5\t BODY=7BIT"), MailFrom("a@x", 5, Body.SEVEN_BIT))
        self.assertEqual(parse_mail(b"FROM:\t<>\tSIZE=5"), MailFrom("", 5))
        self.assertEqual(parse_rcpt(b"TO: \ta@x\t"), RcptTo("a@x"))

    def test_null_sender(self) -> None:
        """The null sender, with and without parameters."""
        self.assertEqual(parse_mail(b"FROM:<>"), MailFrom(""))
        self.assertEqual(parse_mail(b"From:  <> SIZE=5"), MailFrom("", 5))

    def test_source_route(self) -> None:
        """Source routes are dropped (RFC 5321 appendix C)."""
        self.assertEqual(parse_mail(b"FROM:<@a.example.com,@b.example.com:c@example.com>"), MailFrom("c@example.com"))

    def test_parameters(self) -> None:
        """SIZE and BODY in any case and order."""
        self.assertEqual(parse_mail(b"FROM:<a@x> SIZE=4096 BODY=8BITMIME"), MailFrom("a@x", 4096, Body.EIGHT_BIT))
        self.assertEqual(parse_mail(b"FROM:<a@x>  body=7bit  size=0"), MailFrom("a@x", 0, Body.SEVEN_BIT))
        self.assertEqual(parse_mail(b"FROM:<a@x> BODY=7BIT"), MailFrom("a@x", 0, Body.SEVEN_BIT))

    def test_nothing_declared(self) -> None:
        """Without parameters the size is 0 and the body unknown."""
        read = parse_mail(b"FROM:<a@x>")
        assert isinstance(read, MailFrom)
        self.assertEqual((read.size, read.body), (0, Body.UNKNOWN))

    def test_bad_parameters(self) -> None:
        """Those that are unknown or say nothing."""
        for words, code in (
            ("SIZE=", "501"), ("SIZE=x", "501"), ("SIZE=-1", "501"), ("SIZE", "501"), (f"SIZE={'1' * 21}", "501"),
            ("BODY=BINARYMIME", "555"), ("BODY", "555"), ("AUTH=<>", "555"), ("SMTPUTF8", "555"), ("\u00e4", "555"),
        ):
            reply = parse_mail(f"FROM:<a@x> {words}".encode())
            assert isinstance(reply, str)
            self.assertEqual(reply[:9], f"{code} 5.5.4", words)
        self.assertEqual(parse_mail(b"FROM:<a@x> SIZE=x"), "501 5.5.4 Bad message size syntax")
        self.assertEqual(parse_mail(b"FROM:<a@x> BODY=x"), "555 5.5.4 Unsupported option: BODY=x")
        self.assertEqual(parse_mail(b"FROM:<a@x> RET=HDRS"), "555 5.5.4 Unsupported option: RET=HDRS")
        self.assertEqual(parse_mail(b"FROM:<a@x> SIZE=%s" % (b"1" * 20)), MailFrom("a@x", int("1" * 20)))

    def test_syntax(self) -> None:
        """What is not FROM: and a path."""
        for argument in (b"", b"<a@x>", b"TO:<a@x>", b"FROM <a@x>", b"FROM:", b"from: \t "):
            self.assertEqual(parse_mail(argument), "501 5.5.4 Syntax: MAIL FROM:<address>")
        for argument in (b"FROM:<a@x>SIZE=1", b"FROM:<>x", b"FROM:<a@x", b"FROM:a@x>", b"FROM:<a@x>>"):
            self.assertEqual(parse_mail(argument), "501 5.1.7 Bad sender address syntax", argument)

    def test_unicode(self) -> None:
        """An address beyond ASCII needs what we do not offer."""
        reply = parse_mail("FROM:<\u00e4@example.com>".encode())
        self.assertEqual(reply, "553 5.6.7 Must declare SMTPUTF8 to send unicode address")


class ParseRcptTests(SynchronousTestCase):
    """
    RCPT's argument is read, or refused with its proper reply.
    """

    def test_addresses(self) -> None:
        """Every form of address, kept as it stands."""
        for address in GOOD:
            self.assertEqual(parse_rcpt(f"TO:<{address}>".encode()), RcptTo(address), address)
        self.assertEqual(parse_rcpt(b"to: <a@x>  "), RcptTo("a@x"))
        self.assertEqual(parse_rcpt(b"TO:a"), RcptTo("a"))

    def test_bad(self) -> None:
        """What is no address, the null one included."""
        for address in ("", *BAD, *NO_DOMAINS):
            self.assertEqual(parse_rcpt(f"TO:<{address}>".encode()), "501 5.1.3 Bad recipient address syntax", address)
        for argument in (b"<a@x>", b"TO:", b"to: ", b""):
            self.assertEqual(parse_rcpt(argument), "501 5.5.4 Syntax: RCPT TO:<address>")
        self.assertEqual(parse_rcpt(b"TO:<a@x> NOTIFY=NEVER x"), "555 5.5.4 Unsupported option: NOTIFY=NEVER")
        reply = parse_rcpt("TO:<a@\u00e4.example.com>".encode())
        self.assertEqual(reply, "553 5.6.7 Must declare SMTPUTF8 to send unicode address")


class FirstWordTests(SynchronousTestCase):
    """
    Of what is no command in its place the log has the first word, and never more.
    """

    def test_first_word(self) -> None:
        """Behind a colon; of a hundred octets at most, and nothing where there is no word."""
        for octets, shown in (
            (b"AUTH PLAIN AGEAYg==\r\n", ": AUTH"), (b" \r\n\tx\r\n", ": x"), (b"\xe4\0", ": \ufffd\0"),
            (b"x" * 101, ": " + "x" * 100), (b"", ""), (b"\r\n", ""),
        ):
            self.assertEqual(first_word(octets), shown)


class BuildingTests(SynchronousTestCase):
    """
    A line that is built is one line and says what was meant.
    """

    def test_lines(self) -> None:
        """Each command."""
        self.assertEqual(mail_line("a@x"), b"MAIL FROM:<a@x>\r\n")
        self.assertEqual(mail_line("", "SIZE=5 BODY=8BITMIME"), b"MAIL FROM:<> SIZE=5 BODY=8BITMIME\r\n")
        self.assertEqual(rcpt_line("a@x"), b"RCPT TO:<a@x>\r\n")
        self.assertEqual(hello_line("EHLO", "host.example.com"), b"EHLO host.example.com\r\n")

    def test_what_is_read_can_be_sent(self) -> None:
        """Every address that we accept, we can pass on."""
        for address in GOOD:
            self.assertEqual(parse_mail(mail_line(address)[5:-2]), MailFrom(address))
            self.assertEqual(parse_rcpt(rcpt_line(address)[5:-2]), RcptTo(address))

    def test_queued_before(self) -> None:
        """An address that would not be taken any more is sent all the same: its mail may be in a queue."""
        for address in NO_DOMAINS:
            self.assertEqual(rcpt_line(address), f"RCPT TO:<{address}>\r\n".encode())

    def test_bad(self) -> None:
        """Addresses that would not be read as one, names that are not one word, parameters that do not print."""
        for address in (*BAD, "a@example.com.", "a@x\r\nDATA", "a\n@x", "a\0@x", "\u00e4@x", "a@x\n", "a@x> SIZE=1"):
            self.assertRaises(AddressError, mail_line, address)
            self.assertRaises(AddressError, rcpt_line, address)
        self.assertRaises(AddressError, rcpt_line, "")
        for name in ("", "a b", "a\r\n", "\u00e4", "a\0"):
            self.assertRaises(AddressError, hello_line, "EHLO", name)
        for parameters in ("SIZE=1\r\n", "SIZE=\0", "\u00e4", "a\nb"):
            self.assertRaises(AddressError, mail_line, "a@x", parameters)

    @given(st.text(max_size=20), st.text(max_size=10))
    def test_never_two_lines(self, address: str, parameters: str) -> None:
        """Whatever is asked for, one line comes out, or an error."""
        try:
            line = mail_line(address, parameters)
        except AddressError:
            return
        self.assertEqual((line.count(b"\r"), line.count(b"\n"), line.count(b"\0")), (1, 1, 0))
        self.assertTrue(line.endswith(b"\r\n"))
