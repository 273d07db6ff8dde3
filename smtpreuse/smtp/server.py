"""
The server's side of one SMTP session, without I/O (RFC 5321, RFC 2920, RFC 3207).

Octets go in with C{feed}, events come out of C{next}, one at a time; those that ask are answered with C{accept} or
C{refuse} before the next comes out, however long that takes. Replies gather until they are taken, so that a pipelined
group is one write. It does not know who may relay, or what becomes of a message. The texts are those of Postfix's
smtpd(8).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from smtpreuse.smtp.answers import OUT_OF_STEP, TLS_FIRST, commands, extensions, line, no_starttls, unknown
from smtpreuse.smtp.command import MailFrom, RcptTo, first_word, parse_mail, parse_rcpt
from smtpreuse.smtp.content import ContentDecoder
from smtpreuse.smtp.event import ContentEnd, ContentPart, DataBegun, Event, Hello, Quit, Reset, TLSBegun
from smtpreuse.smtp.lines import BARE_LF, Lines
from smtpreuse.smtp.order import (
    ACCEPTED,
    BEFORE_TLS,
    JUNK,
    LAST_OF_GROUP,
    NO_ARGUMENT,
    OUT_OF_ORDER,
    TABLE,
    Asked,
    Encryption,
    State,
    is_foreign,
)

# Postfix's smtpd_hard_error_limit.
ERROR_LIMIT = 20

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9._:\[\]-]")


class Server:
    """
    One session.

    @ivar state: how far the client has come.
    @ivar encryption: what there is of TLS.
    """

    def __init__(self, name: str, size_limit: int, junk_limit: int, encryption: Encryption = Encryption.NONE) -> None:
        """
        @param name: our own, in greeting, EHLO and parting words.
        @param size_limit: octets announced with SIZE; 0 for no limit.
        @param junk_limit: how many commands that bring it no further a client may send until its next message; more
            count as errors.
        """
        self.state = State.SILENT
        self.encryption = encryption
        self._name = name
        self._size_limit = size_limit
        self._junk_limit = junk_limit
        self._lines = Lines()
        self._asked: Asked | None = None
        self._decoder: ContentDecoder | None = None
        self._replies: list[bytes] = []
        self._errors = 0
        self._junk = 0
        self._where = b"CONNECT"
        self._received = 0
        self._end: Quit | None = Quit()

    # what goes in and out

    def greet(self) -> None:
        """Say the greeting; whoever spoke before is turned away."""
        if self._lines:
            self.close("554 5.5.0 Error: data received before the greeting", *self._improper())
        else:
            self.state = State.IDLE
            self._say(f"220 {self._name} ESMTP smtpreuse")

    def feed(self, data: bytes) -> None:
        """Take octets as they came."""
        if self.state is not State.CLOSED:
            self._lines.feed(data)
        if self.state is State.HANDSHAKE:
            # It did not come through TLS, and must not be taken for what does.
            self._end = Quit(*self._improper())
            self.hang_up()

    def taken(self) -> bytes:
        """Replies not yet taken; empty when there are none."""
        replies, self._replies = self._replies, []
        return replies[0] if len(replies) == 1 else b"".join(replies)

    def secured(self) -> None:
        """TLS is there: what is fed from now on came through it. The client has to say its name again."""
        assert self.state is State.HANDSHAKE and not self._lines, "TLS without STARTTLS"
        self.state, self.encryption = State.SECURED, Encryption.ACTIVE

    @property
    def buffered(self) -> int:
        """Octets that were fed and are not looked at yet."""
        return len(self._lines)

    @property
    def waiting(self) -> bool:
        """Whether an event has asked and is not answered yet."""
        return self._asked is not None

    @property
    def where(self) -> str:
        """What the client did last, in the words of Postfix's log: C{RCPT}, C{DATA (4096 bytes)}."""
        where = self._where.decode("ascii")
        return where if self._decoder is None else f"{where} ({self._received} bytes)"

    # answers

    def accept(self, text: str = "") -> None:
        """
        Say yes to what was asked last.

        @param text: the reply; Postfix's by default.
        """
        asked = self._answered()
        if asked is Asked.TLS and self._lines:
            self.close(OUT_OF_STEP, *self._improper())
            return
        self.state = TABLE[self.state, asked]
        if asked is Asked.DATA:
            self._decoder = ContentDecoder()
            self._received = 0
        elif asked is Asked.CONTENT:
            self._errors = self._junk = 0
        if text:
            self._say(text)
        else:
            self._replies.append(ACCEPTED[asked])

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

    def close(self, text: str, reason: str = "", detail: str = "") -> None:
        """
        End the session with this reply, whatever is going on.

        @param text: the reply, C{421 4.4.2 ...}.
        @param reason: for L{Quit}, as C{detail}.
        """
        self._say(text)
        self._end = Quit(reason, detail)
        self.hang_up()

    def hang_up(self) -> None:
        """End the session without a word: the client says no more."""
        self.state = State.CLOSED
        self._asked = None
        self._decoder = None
        self._lines = Lines()

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
                end, self._end = self._end, None
                return end
            if self._errors >= ERROR_LIMIT:
                self.close(f"421 4.7.0 {self._name} Error: too many errors", f"too many errors after {self.where}")
                continue
            if self.state is State.SILENT or self.state is State.HANDSHAKE:
                return None
            said = self._lines.next()
            if said is None:
                return None
            if isinstance(said, str):
                self._no_line(said)
            elif (event := self._command(said)) is not None:
                return event
        return None

    def _content(self) -> ContentPart | ContentEnd | None:
        if not self._lines:
            return None
        assert self._decoder is not None, "content without DATA"
        octets, rest = self._decoder.feed(self._lines.rest())
        self._received += len(octets)
        if rest is None:
            return ContentPart(octets)
        self._lines.feed(rest)
        self._asked = Asked.CONTENT
        self._where = b"END-OF-MESSAGE"
        offence, self._decoder = self._decoder.offence, None
        return ContentEnd(octets, offence)

    def _no_line(self, wrong: str) -> None:
        if wrong == BARE_LF:
            # What one side takes for a line end and the other does not is how mail is smuggled.
            self.close(f"521 5.5.2 {self._name} Error: {wrong}", f"{wrong} after {self.where}")
        else:
            self._error(f"500 5.5.2 Error: {wrong}")

    def _command(self, said: bytes) -> Event | None:
        verb, _, argument = said.partition(b" ")
        obey = _COMMANDS.get(verb)
        if obey is None:
            # In small letters, with a tab or with blanks before it; or none of ours.
            words = said.split(None, 1)
            verb = words[0].upper() if words else b""
            argument = words[1] if len(words) > 1 else b""
            obey = _COMMANDS.get(verb)
            if obey is None:
                self._where = b"UNKNOWN"
                self._unknown(verb)
                return None
        self._where = verb
        if verb in LAST_OF_GROUP and self._lines:
            # Content behind a DATA that is refused would be obeyed, whoever wrote it.
            self.close(OUT_OF_STEP, *self._improper())
            return None
        if self.encryption is Encryption.MUST and verb not in BEFORE_TLS:
            self._error(TLS_FIRST)
            return None
        if verb in JUNK:
            self._junk += 1
            if self._junk > self._junk_limit:
                self._errors += 1
        argument = argument.strip(b" \t")
        if argument and verb in NO_ARGUMENT:
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

    def _ask(self, asked: Asked, event: MailFrom | RcptTo | DataBegun | TLSBegun | str) -> Event | None:
        if isinstance(event, str):
            self._error(event)
            return None
        self._asked = asked
        return event

    def _ehlo(self, argument: bytes) -> Event | None:
        text = extensions(self._name, self._size_limit, self.encryption)
        return self._hello("EHLO", argument, text)

    def _helo(self, argument: bytes) -> Event | None:
        return self._hello("HELO", argument, line(f"250 {self._name}"))

    def _hello(self, verb: str, argument: bytes, reply: bytes) -> Event | None:
        if not argument:
            self._error(f"501 5.5.4 Syntax: {verb} hostname")
            return None
        self.state = State.IDLE
        self._replies.append(reply)
        name = argument.split()[0][:255].decode("ascii", "replace")
        return Hello(_NOT_IN_NAME.sub("?", name), verb == "EHLO")

    def _starttls(self, argument: bytes) -> Event | None:
        return self._ask(Asked.TLS, no_starttls(self.encryption) or TLSBegun())

    def _rset(self, argument: bytes) -> Event | None:
        if self.state is not State.SECURED:
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
        self._say(commands(self.encryption))
        return None

    def _quit(self, argument: bytes) -> Event | None:
        self.close("221 2.0.0 Bye")
        return None

    def _unknown(self, verb: bytes) -> None:
        if is_foreign(verb):
            text = "221 2.7.0 Error: I can break rules, too. Goodbye."
            self.close(text, "warning: non-SMTP command", first_word(verb))
        else:
            self._error(unknown(verb))

    def _improper(self) -> tuple[str, str]:
        """For the log: the client sent more where it had to wait for a reply."""
        return f"improper command pipelining after {self.where}", first_word(self._lines.rest())

    # replies

    def _error(self, text: str) -> None:
        self._errors += 1
        self._say(text)

    def _say(self, text: str) -> None:
        self._replies.append(line(text))


_COMMANDS: dict[bytes, Callable[[Server, bytes], Event | None]] = {
    b"EHLO": Server._ehlo,
    b"HELO": Server._helo,
    b"MAIL": Server._mail,
    b"RCPT": Server._rcpt,
    b"DATA": Server._data,
    b"STARTTLS": Server._starttls,
    b"RSET": Server._rset,
    b"NOOP": Server._noop,
    b"VRFY": Server._vrfy,
    b"HELP": Server._help,
    b"QUIT": Server._quit,
}
