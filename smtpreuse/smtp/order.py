"""
What a client may say to a server, and in which order (RFC 5321 section 4.1.4), as tables.

They do not know arguments; L{Server<smtpreuse.smtp.server.Server>} follows them. The texts are Postfix's.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """How far the client has come."""

    SILENT = "before the greeting"
    HANDSHAKE = "between STARTTLS and TLS"
    SECURED = "TLS, and no name yet"
    IDLE = "no transaction"
    MAIL = "a sender"
    RCPT = "a sender and recipients"
    CONTENT = "content"
    CLOSED = "over"

    __hash__ = object.__hash__  # members are singletons; Enum's own is a Python call


class Asked(Enum):
    """What an event asks about."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "content"
    TLS = "STARTTLS"

    __hash__ = object.__hash__


class Encryption(Enum):
    """What there is of TLS, for one client."""

    NONE = "not offered"
    MAY = "offered"
    MUST = "asked for before anything else"
    ACTIVE = "there"

    __hash__ = object.__hash__


# Where an accepted request leads. What is not here is refused with the text below, and never asked about.
TABLE: dict[tuple[State, Asked], State] = {
    (State.IDLE, Asked.MAIL): State.MAIL,
    (State.MAIL, Asked.RCPT): State.RCPT,
    (State.RCPT, Asked.RCPT): State.RCPT,
    (State.RCPT, Asked.DATA): State.CONTENT,
    (State.CONTENT, Asked.CONTENT): State.IDLE,
    (State.IDLE, Asked.TLS): State.HANDSHAKE,
    (State.MAIL, Asked.TLS): State.HANDSHAKE,
    (State.RCPT, Asked.TLS): State.HANDSHAKE,
}
OUT_OF_ORDER: dict[tuple[State, Asked], str] = {
    (State.SECURED, Asked.MAIL): "503 5.5.1 Error: send HELO/EHLO first",
    (State.SECURED, Asked.RCPT): "503 5.5.1 Error: need MAIL command",
    (State.SECURED, Asked.DATA): "503 5.5.1 Error: need RCPT command",
    (State.MAIL, Asked.MAIL): "503 5.5.1 Error: nested MAIL command",
    (State.RCPT, Asked.MAIL): "503 5.5.1 Error: nested MAIL command",
    (State.IDLE, Asked.RCPT): "503 5.5.1 Error: need MAIL command",
    (State.IDLE, Asked.DATA): "503 5.5.1 Error: need RCPT command",
    (State.MAIL, Asked.DATA): "554 5.5.1 Error: no valid recipients",
}
ACCEPTED: dict[Asked, bytes] = {
    Asked.MAIL: b"250 2.1.0 Ok\r\n",
    Asked.RCPT: b"250 2.1.5 Ok\r\n",
    Asked.DATA: b"354 End data with <CR><LF>.<CR><LF>\r\n",
    Asked.CONTENT: b"250 2.0.0 Ok\r\n",
    Asked.TLS: b"220 2.0.0 Ready to start TLS\r\n",
}

# RFC 2920 section 3.1: the last of their group, as their replies decide what may follow. What stands behind STARTTLS
# was written by whoever stands between the client and us (CVE-2011-0411).
LAST_OF_GROUP = frozenset({b"EHLO", b"HELO", b"DATA", b"STARTTLS"})
# What may be said where TLS must come first (RFC 3207 section 4).
BEFORE_TLS = frozenset({b"EHLO", b"HELO", b"NOOP", b"QUIT", b"STARTTLS"})
# What brings a client no further: Postfix's junk commands.
JUNK = frozenset({b"EHLO", b"HELO", b"RSET", b"NOOP", b"VRFY"})
NO_ARGUMENT = frozenset({b"DATA", b"RSET", b"STARTTLS"})
NOT_IMPLEMENTED = frozenset({b"AUTH", b"ETRN", b"EXPN", b"TURN", b"BDAT", b"SEND", b"SOML", b"SAML"})
_FORBIDDEN = frozenset({b"CONNECT", b"GET", b"POST"})


def is_foreign(verb: bytes) -> bool:
    """
    Whether an unknown verb is of another protocol, as Postfix has it (C{smtpd_forbidden_commands}, and its look for
    header fields): a browser made to talk to us, or a message's own text. Further down there may be commands in either.

    @param verb: in capital letters.
    """
    return verb in _FORBIDDEN or b":" in verb or (verb != b"" and not verb[:1].isalpha())
