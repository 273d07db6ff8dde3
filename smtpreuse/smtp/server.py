"""
The server's side of one SMTP session, without I/O (RFC 5321, RFC 2920).

Octets go in with C{feed}, events come out of C{next}, one at a time; those that ask are answered with C{accept} or
C{refuse} before the next comes out, however long that takes. Replies gather until they are taken, so that a pipelined
group is one write. It does not know who may relay, or what becomes of a message. The texts are those of Postfix's
smtpd(8).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from smtpreuse.smtp.command import MailFrom, RcptTo, parse_mail, parse_rcpt
from smtpreuse.smtp.content import ContentDecoder
from smtpreuse.smtp.event import ContentEnd, ContentPart, DataBegun, Event, Hello, Quit, Reset
from smtpreuse.smtp.order import OUT_OF_ORDER, TABLE, Asked, State

# Postfix's line_length_limit; RFC 5321 section 4.5.3.1.4 has 512.
LINE_LIMIT = 2048
# Postfix's smtpd_hard_error_limit.
ERROR_LIMIT = 20

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9._:\[\]-]")


_ACCEPTED = {
    Asked.MAIL: b"250 2.1.0 Ok\r\n",
    Asked.RCPT: b"250 2.1.5 Ok\r\n",
    Asked.DATA: b"354 End data with <CR><LF>.<CR><LF>\r\n",
    Asked.CONTENT: b"250 2.0.0 Ok\r\n",
}
# RFC 2920 section 3.1: the last of their group, as their replies decide what may follow.
_LAST = frozenset({b"EHLO", b"HELO", b"DATA"})
_NO_ARGUMENT = frozenset({b"DATA", b"RSET", b"QUIT"})
_NOT_IMPLEMENTED = frozenset({b"STARTTLS", b"AUTH", b"ETRN", b"EXPN", b"TURN", b"BDAT", b"SEND", b"SOML", b"SAML"})
# Those of Postfix's smtpd_forbidden_commands that begin with a letter.
_FORBIDDEN = frozenset({b"CONNECT", b"GET", b"POST"})
_HELP = "214 2.0.0 Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT"


class Server:
    """
    One session.

    @ivar state: how far the client has come.
    """

    def __init__(self, name: str, size_limit: int) -> None:
        """
        @param name: our own, in greeting, EHLO and parting words.
        @param size_limit: octets announced with SIZE; 0 for no limit.
        """
        self.state = State.SILENT
        self._name = name
        self._size_limit = size_limit
        self._buffer = b""
        self._at = 0
        self._too_long = False
        self._asked: Asked | None = None
        self._decoder: ContentDecoder | None = None
        self._replies: list[bytes] = []
        self._errors = 0
        self._quit_told = False

    # what goes in and out

    def greet(self) -> None:
        """Say the greeting; whoever spoke before is turned away."""
        if self._buffer or self._too_long:
            self.close("554 5.5.0 Error: data received before the greeting")
        else:
            self.state = State.IDLE
            self._say(f"220 {self._name} ESMTP smtpreuse")

    def feed(self, data: bytes) -> None:
        """Take octets as they came."""
        if self.state is State.CLOSED:
            return
        if self._at < len(self._buffer):
            data = self._buffer[self._at :] + data
        self._buffer = data
        self._at = 0

    def taken(self) -> bytes:
        """Replies not yet taken; empty when there are none."""
        replies, self._replies = self._replies, []
        return replies[0] if len(replies) == 1 else b"".join(replies)

    @property
    def buffered(self) -> int:
        """Octets that were fed and are not looked at yet."""
        return len(self._buffer) - self._at

    @property
    def waiting(self) -> bool:
        """Whether an event has asked and is not answered yet."""
        return self._asked is not None

    # answers

    def accept(self, text: str = "") -> None:
        """
        Say yes to what was asked last.

        @param text: the reply; Postfix's by default.
        """
        asked = self._answered()
        self.state = TABLE[self.state, asked]
        if asked is Asked.DATA:
            self._decoder = ContentDecoder()
        elif asked is Asked.CONTENT:
            self._errors = 0
        if text:
            self._say(text)
        else:
            self._replies.append(_ACCEPTED[asked])

    def refuse(self, text: str) -> None:
        """
        Say no to what was asked last; only C{5xx} counts as an error of the client.

        @param text: the reply, C{452 4.3.1 ...}.
        """
        asked = self._answered()
        if asked is Asked.CONTENT:
            self.state = State.IDLE
        self._say(text)
        if text[:1] == "5":
            self._errors += 1

    def close(self, text: str) -> None:
        """
        End the session with this reply, whatever is going on.

        @param text: the reply, C{421 4.4.2 ...}.
        """
        self._say(text)
        self.hang_up()

    def hang_up(self) -> None:
        """End the session without a word: the client says no more."""
        self.state = State.CLOSED
        self._asked = None
        self._decoder = None
        self._buffer = b""
        self._at = 0

    def _answered(self) -> Asked:
        asked, self._asked = self._asked, None
        assert asked is not None, "an answer without a question"
        return asked

    # events

    def next(self) -> Event | None:
        """
        @return: the next event; L{None} when more octets are needed, while an answer is due, and after C{Quit}.
        """
        while self._asked is None:
            if self.state is State.CONTENT:
                return self._content()
            if self.state is State.CLOSED:
                return self._quit_event()
            if self._errors >= ERROR_LIMIT:
                self.close(f"421 4.7.0 {self._name} Error: too many errors")
                continue
            end = self._buffer.find(b"\n", self._at)
            if end < 0 or self.state is State.SILENT:
                self._bound()
                return None
            line = self._line(end)
            event = self._command(line) if line is not None else None
            if event is not None:
                return event
        return None

    def _quit_event(self) -> Quit | None:
        if self._quit_told:
            return None
        self._quit_told = True
        return Quit()

    def _content(self) -> ContentPart | ContentEnd | None:
        if self._at >= len(self._buffer):
            return None
        assert self._decoder is not None, "content without DATA"
        octets, rest = self._decoder.feed(self._buffer[self._at :] if self._at else self._buffer)
        self._at = 0
        if rest is None:
            self._buffer = b""
            return ContentPart(octets)
        self._buffer = rest
        self._asked = Asked.CONTENT
        offence, self._decoder = self._decoder.offence, None
        return ContentEnd(octets, offence)

    def _bound(self) -> None:
        """Keep no more of a line without end than says that it is too long."""
        if self.buffered > LINE_LIMIT + 1:
            self._too_long = True
        if self._too_long:
            self._buffer, self._at = b"", 0

    def _line(self, end: int) -> bytes | None:
        """
        The next command line without its end; what is no such line is answered here.

        @param end: where its LF is.
        """
        begin, self._at = self._at, end + 1
        line = self._buffer[begin:end]
        if self._too_long or len(line) > LINE_LIMIT + 1:
            self._too_long = False
            self._error("500 5.5.2 Error: line too long")
        elif line[-1:] != b"\r":
            # What one side takes for a line end and the other does not is how mail is smuggled.
            self.close(f"521 5.5.2 {self._name} Error: bare <LF> received")
        elif b"\0" in line:
            self._error("500 5.5.2 Error: NUL received")
        elif b"\r" in line[:-1]:
            self._error("500 5.5.2 Error: bare <CR> received")
        else:
            return line[:-1]
        return None

    def _command(self, line: bytes) -> Event | None:
        verb, _, argument = line.partition(b" ")
        obey = _COMMANDS.get(verb)
        if obey is None:
            verb = verb.upper()
            obey = _COMMANDS.get(verb)
            if obey is None:
                self._unknown(verb)
                return None
        if verb in _LAST and self._at < len(self._buffer):
            # Content behind a DATA that is refused would be obeyed, whoever wrote it.
            self.close("554 5.5.0 Error: SMTP protocol synchronization")
            return None
        argument = argument.strip(b" ")
        if argument and verb in _NO_ARGUMENT:
            self._error(f"501 5.5.4 Syntax: {verb.decode('ascii')}")
            return None
        return obey(self, argument)

    # commands

    def _mail(self, argument: bytes) -> Event | None:
        return self._ask(Asked.MAIL, parse_mail(argument)) if self._in_order(Asked.MAIL) else None

    def _rcpt(self, argument: bytes) -> Event | None:
        return self._ask(Asked.RCPT, parse_rcpt(argument)) if self._in_order(Asked.RCPT) else None

    def _data(self, argument: bytes) -> Event | None:
        return self._ask(Asked.DATA, DataBegun()) if self._in_order(Asked.DATA) else None

    def _in_order(self, asked: Asked) -> bool:
        if (self.state, asked) in TABLE:
            return True
        self._error(OUT_OF_ORDER[self.state, asked])
        return False

    def _ask(self, asked: Asked, event: MailFrom | RcptTo | DataBegun | str) -> Event | None:
        if isinstance(event, str):
            self._error(event)
            return None
        self._asked = asked
        return event

    def _ehlo(self, argument: bytes) -> Event | None:
        size = f"SIZE {self._size_limit}" if self._size_limit else "SIZE"
        lines = (self._name, "PIPELINING", size, "ENHANCEDSTATUSCODES", "8BITMIME", "HELP")
        text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}"
        return self._hello("EHLO", argument, text)

    def _helo(self, argument: bytes) -> Event | None:
        return self._hello("HELO", argument, f"250 {self._name}")

    def _hello(self, verb: str, argument: bytes, text: str) -> Event | None:
        if not argument:
            self._error(f"501 5.5.4 Syntax: {verb} hostname")
            return None
        self.state = State.IDLE
        self._replies.append(text.encode("ascii", "replace") + b"\r\n")
        name = argument.split()[0][:255].decode("ascii", "replace")
        return Hello(_NOT_IN_NAME.sub("?", name), verb == "EHLO")

    def _rset(self, argument: bytes) -> Event | None:
        self.state = State.IDLE
        self._replies.append(b"250 2.0.0 Ok\r\n")
        return Reset()

    def _noop(self, argument: bytes) -> Event | None:
        self._replies.append(b"250 2.0.0 Ok\r\n")
        return None

    def _vrfy(self, argument: bytes) -> Event | None:
        if argument:
            self._say("252 2.0.0 Cannot verify, but will take mail for it")
        else:
            self._error("501 5.5.4 Syntax: VRFY address")
        return None

    def _help(self, argument: bytes) -> Event | None:
        self._say(_HELP)
        return None

    def _quit(self, argument: bytes) -> Event | None:
        self.close("221 2.0.0 Bye")
        return None

    def _unknown(self, verb: bytes) -> None:
        # A browser made to talk to us, or a message's own text: further down there may be commands in either.
        if verb in _FORBIDDEN or b":" in verb or (verb and not verb[:1].isalpha()):
            self.close("221 2.7.0 Error: I can break rules, too. Goodbye.")
        elif verb in _NOT_IMPLEMENTED:
            self._error("502 5.5.1 Error: command not implemented")
        else:
            self._error("500 5.5.1 Error: command not recognized")

    # replies

    def _error(self, text: str) -> None:
        self._errors += 1
        self._say(text)

    def _say(self, text: str) -> None:
        if not (text.isascii() and text.isprintable()):
            text = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
        # RFC 5321 section 4.5.3.1.5: a reply line has at most 512 octets.
        self._replies.append(text[:510].encode("ascii") + b"\r\n")


_COMMANDS: dict[bytes, Callable[[Server, bytes], Event | None]] = {
    b"EHLO": Server._ehlo,
    b"HELO": Server._helo,
    b"MAIL": Server._mail,
    b"RCPT": Server._rcpt,
    b"DATA": Server._data,
    b"RSET": Server._rset,
    b"NOOP": Server._noop,
    b"VRFY": Server._vrfy,
    b"HELP": Server._help,
    b"QUIT": Server._quit,
}
