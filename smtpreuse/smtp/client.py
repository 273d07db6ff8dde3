"""
The client's side of one SMTP session, without I/O (RFC 5321; RFC 2920 for what may be outstanding together).

It says which command may follow, pairs replies with commands in the order of sending, and stops believing the server at
the first octet that does not fit. It does not know time, TLS, or what a refusal means for a message. C{_TABLE} is the
whole of its law.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from attrs import frozen

from smtpreuse.errors import ProtocolError
from smtpreuse.model.reply import Reply
from smtpreuse.smtp.command import hello_line, mail_line, rcpt_line
from smtpreuse.smtp.reply import ReplyParser


class Verb(Enum):
    """What a reply can be the answer to; C{CONTENT} is the final dot."""

    GREETING = "greeting"
    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "content"
    RSET = "RSET"
    QUIT = "QUIT"

    # Members are singletons; Enum's own hash is a Python call, and a message makes a dozen.
    __hash__ = object.__hash__


class State(Enum):
    """How far our side has gone."""

    GREETING = "waiting for the greeting"
    GREETED = "greeted"
    UNWELCOME = "refused by the greeting"
    HELLO = "waiting for the answer to EHLO or HELO"
    READY = "ready"
    STARTTLS = "waiting for the answer to STARTTLS"
    HANDSHAKE = "waiting for TLS"
    ENVELOPE = "in a transaction, without a recipient"
    RECIPIENTS = "in a transaction, with recipients"
    DATA = "waiting for the answer to DATA"
    CONTENT = "to send content"
    REFUSED = "in a transaction whose DATA was refused"
    QUIT = "waiting for the answer to QUIT"
    CLOSED = "over"
    BROKEN = "broken"

    __hash__ = object.__hash__


class Kind(Enum):
    """What a reply says, as far as the table asks."""

    YES = "2xx"
    GO_ON = "354"
    NO = "4xx or 5xx"

    __hash__ = object.__hash__


# What we send, in which state, and where that leads; then the replies that nothing may be sent before, and where those
# lead. What is not here is an error. A reply to a verb that is not in the second half changes no state.
_TABLE: dict[tuple[State, Verb] | tuple[State, Verb, Kind], State] = {
    (State.GREETED, Verb.EHLO): State.HELLO,
    (State.GREETED, Verb.HELO): State.HELLO,
    (State.GREETED, Verb.QUIT): State.QUIT,
    (State.UNWELCOME, Verb.QUIT): State.QUIT,
    (State.READY, Verb.EHLO): State.HELLO,
    (State.READY, Verb.HELO): State.HELLO,
    (State.READY, Verb.STARTTLS): State.STARTTLS,
    (State.READY, Verb.MAIL): State.ENVELOPE,
    (State.READY, Verb.RSET): State.READY,
    (State.READY, Verb.QUIT): State.QUIT,
    (State.ENVELOPE, Verb.RCPT): State.RECIPIENTS,
    (State.ENVELOPE, Verb.RSET): State.READY,
    (State.ENVELOPE, Verb.QUIT): State.QUIT,
    (State.RECIPIENTS, Verb.RCPT): State.RECIPIENTS,
    (State.RECIPIENTS, Verb.DATA): State.DATA,
    (State.RECIPIENTS, Verb.RSET): State.READY,
    (State.RECIPIENTS, Verb.QUIT): State.QUIT,
    (State.CONTENT, Verb.CONTENT): State.READY,
    (State.REFUSED, Verb.RSET): State.READY,
    (State.REFUSED, Verb.QUIT): State.QUIT,
    (State.GREETING, Verb.GREETING, Kind.YES): State.GREETED,
    (State.GREETING, Verb.GREETING, Kind.NO): State.UNWELCOME,
    (State.HELLO, Verb.EHLO, Kind.YES): State.READY,
    (State.HELLO, Verb.EHLO, Kind.NO): State.GREETED,
    (State.HELLO, Verb.HELO, Kind.YES): State.READY,
    (State.HELLO, Verb.HELO, Kind.NO): State.GREETED,
    (State.STARTTLS, Verb.STARTTLS, Kind.YES): State.HANDSHAKE,
    (State.STARTTLS, Verb.STARTTLS, Kind.NO): State.READY,
    (State.DATA, Verb.DATA, Kind.GO_ON): State.CONTENT,
    (State.DATA, Verb.DATA, Kind.NO): State.REFUSED,
    (State.QUIT, Verb.QUIT, Kind.YES): State.CLOSED,
    (State.QUIT, Verb.QUIT, Kind.NO): State.CLOSED,
}
# States in which the server may have ended our transaction by refusing MAIL, and RSET is not needed.
_IN_TRANSACTION = frozenset({State.ENVELOPE, State.RECIPIENTS, State.REFUSED})
_ENDS_TRANSACTION = frozenset({Verb.RSET, Verb.EHLO, Verb.HELO})


@frozen
class Answer:
    """
    @ivar verb: what was answered; L{None} for a reply that nobody asked for.
    """

    verb: Verb | None
    reply: Reply


class Client:
    """
    One session. Its methods named after commands return the octets to send, or raise.

    @ivar state: how far our side has gone.
    @ivar broken: why the session is not to be believed any more, or L{None}.
    """

    def __init__(self) -> None:
        self.state = State.GREETING
        self.broken: str | None = None
        self._parser = ReplyParser()
        self._expected: deque[Verb] = deque([Verb.GREETING])
        # Whether the server has, or may have, a transaction of ours open.
        self._open = False
        self._plain = True

    @classmethod
    def activated(cls) -> Client:
        """A session taken out of rest: nothing outstanding, nothing open."""
        return cls._begun(State.READY)

    @classmethod
    def secured(cls) -> Client:
        """A session whose TLS handshake is just done: what was learnt before it is void, EHLO is next."""
        return cls._begun(State.GREETED)

    @classmethod
    def _begun(cls, state: State) -> Client:
        client = cls()
        client.state = state
        client._plain = False
        client._expected.clear()
        return client

    @property
    def awaiting(self) -> Verb | None:
        """What the next reply will answer; L{None} when none is due."""
        return self._expected[0] if self._expected else None

    @property
    def outstanding(self) -> int:
        """How many replies are due."""
        return len(self._expected)

    @property
    def idle(self) -> bool:
        """Whether the session may rest, or begin a transaction without RSET."""
        return self.state is State.READY and not self._expected and not self._open and not self._parser.pending

    def ehlo(self, name: str) -> bytes:
        """
        @raise AddressError: when the name cannot be sent.
        @raise ProtocolError: when EHLO may not be sent now; likewise for the methods below.
        """
        line = hello_line("EHLO", name)
        self._send(Verb.EHLO)
        return line

    def helo(self, name: str) -> bytes:
        """
        @raise AddressError: when the name cannot be sent.
        """
        line = hello_line("HELO", name)
        self._send(Verb.HELO)
        return line

    def starttls(self) -> bytes:
        """Only on a session that was not secured before."""
        if not self._plain:
            raise ProtocolError("STARTTLS on a session that has TLS, or was taken out of rest")
        self._send(Verb.STARTTLS)
        return b"STARTTLS\r\n"

    def mail(self, address: str, parameters: str = "") -> bytes:
        """
        @param parameters: C{SIZE=4096 BODY=8BITMIME}.
        @raise AddressError: when the address cannot be sent.
        """
        line = mail_line(address, parameters)
        self._send(Verb.MAIL)
        return line

    def rcpt(self, address: str) -> bytes:
        """
        @raise AddressError: when the address cannot be sent.
        """
        line = rcpt_line(address)
        self._send(Verb.RCPT)
        return line

    def data(self) -> bytes:
        """Nothing else may be sent until it is answered."""
        self._send(Verb.DATA)
        return b"DATA\r\n"

    def content(self) -> None:
        """
        The final dot is being sent: legal when DATA was answered 354, also where no recipient was accepted (RFC 2920
        section 3.1: a lone dot then). The next transaction may follow at once.
        """
        self._send(Verb.CONTENT)

    def rset(self) -> bytes:
        """End the transaction."""
        self._send(Verb.RSET)
        return b"RSET\r\n"

    def quit(self) -> bytes:
        """Nothing may be sent after it."""
        self._send(Verb.QUIT)
        return b"QUIT\r\n"

    def receive(self, data: bytes) -> list[Answer]:
        """
        Take octets as they came; never raises.

        @return: the answers they complete, in order. Look at C{broken} afterwards: nothing after the offence is among
            them. A reply that nobody asked for comes last, with no verb.
        """
        answers: list[Answer] = []
        if self.broken is not None:
            return answers
        expected = self._expected
        for reply in self._parser.feed(data):
            if not expected:
                answers.append(Answer(None, reply))
                self._break(f"a reply that nobody asked for: {reply.text[:200]!r}")
                return answers
            verb = expected[0]
            if not self._judge(verb, reply.code):
                self._break(f"{verb.value} answered out of order: {reply.text[:200]!r}")
                return answers
            expected.popleft()
            answers.append(Answer(verb, reply))
            if not expected and not self._open and self.state in _IN_TRANSACTION:
                self.state = State.READY
        if self._parser.broken is not None:
            self._break(self._parser.broken)
        elif self.state is State.HANDSHAKE and self._parser.pending:
            # CVE-2011-0411: what came in plaintext must not count as said under TLS.
            self._break("octets behind the reply to STARTTLS")
        elif self._parser.pending and not expected and self.state is not State.CONTENT:
            # The beginning of a reply that nobody asked for. In the middle of content it may be a refusal of that.
            self._break("octets that nobody asked for")
        return answers

    def _send(self, verb: Verb) -> None:
        state = _TABLE.get((self.state, verb))
        if state is None:
            raise ProtocolError(f"{verb.value} may not be sent: the session is {self.state.value}")
        self.state = state
        self._expected.append(verb)

    def _judge(self, verb: Verb, code: int) -> bool:
        """Whether this code can answer this verb; moves the state where our side waited for it."""
        if code >= 400:
            kind = Kind.NO
        elif code < 300:
            kind = Kind.YES
        else:
            kind = Kind.GO_ON
        # 354 is for DATA, and DATA has no 2xx (RFC 5321 section 4.3.2).
        if (kind is Kind.GO_ON) != (verb is Verb.DATA) and kind is not Kind.NO:
            return False
        if kind is Kind.GO_ON and code != 354:
            return False
        state = _TABLE.get((self.state, verb, kind))
        if state is not None:
            self.state = state
        if kind is Kind.YES:
            if verb is Verb.MAIL or verb is Verb.RCPT:
                self._open = True
            elif verb in _ENDS_TRANSACTION:
                self._open = False
        elif verb is Verb.RSET:
            # It may have thrown away nothing: the session cannot rest.
            self._open = True
        if verb is Verb.CONTENT:
            self._open = False
        return True

    def _break(self, reason: str) -> None:
        self.broken = reason
        self.state = State.BROKEN
        self._expected.clear()
