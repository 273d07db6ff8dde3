"""
The order in which a client may say things to a server (RFC 5321 section 4.1.4), as a table.

It does not know what is said; L{Server<smtpreuse.smtp.server.Server>} follows it. The texts are Postfix's.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """How far the client has come."""

    SILENT = "before the greeting"
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

    __hash__ = object.__hash__


# Where an accepted request leads. What is not here is refused with the text below, and never asked about.
TABLE: dict[tuple[State, Asked], State] = {
    (State.IDLE, Asked.MAIL): State.MAIL,
    (State.MAIL, Asked.RCPT): State.RCPT,
    (State.RCPT, Asked.RCPT): State.RCPT,
    (State.RCPT, Asked.DATA): State.CONTENT,
    (State.CONTENT, Asked.CONTENT): State.IDLE,
}
OUT_OF_ORDER: dict[tuple[State, Asked], str] = {
    (State.MAIL, Asked.MAIL): "503 5.5.1 Error: nested MAIL command",
    (State.RCPT, Asked.MAIL): "503 5.5.1 Error: nested MAIL command",
    (State.IDLE, Asked.RCPT): "503 5.5.1 Error: need MAIL command",
    (State.IDLE, Asked.DATA): "503 5.5.1 Error: need RCPT command",
    (State.MAIL, Asked.DATA): "554 5.5.1 Error: no valid recipients",
}
