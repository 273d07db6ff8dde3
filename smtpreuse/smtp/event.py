"""
What L{Server<smtpreuse.smtp.server.Server>} tells of its client.

Those that ask are L{MailFrom<smtpreuse.smtp.command.MailFrom>}, L{RcptTo<smtpreuse.smtp.command.RcptTo>},
L{DataBegun}, L{ContentEnd} and L{TLSBegun}; the others are told and want nothing.
"""

from __future__ import annotations

from attrs import frozen

from smtpreuse.smtp.command import MailFrom, RcptTo


@frozen
class Hello:
    """EHLO or HELO, answered already; it ended what transaction there was."""

    name: str
    esmtp: bool


@frozen
class DataBegun:
    """DATA: asks whether content may be sent."""


@frozen
class TLSBegun:
    """STARTTLS: asks whether the handshake may begin. With a yes all that the client said before is forgotten."""


@frozen
class ContentPart:
    """Content, decoded; more will come."""

    octets: bytes


@frozen
class ContentEnd:
    """
    The last of the content; asks what became of it.

    @ivar offence: what was in the content that must not be (C{bare <LF>}), or L{None}; such content is to be refused.
    """

    octets: bytes
    offence: str | None


@frozen
class Reset:
    """RSET, answered already."""


@frozen
class Quit:
    """
    The session is over, by QUIT or by an offence; what is to be written is there to be taken.

    @ivar reason: why we ended it, as the operator's log has it before the client's name; empty where there is no more
        to say of it than the client's QUIT.
    @ivar detail: what the log has behind the client's name.
    """

    reason: str = ""
    detail: str = ""


Event = Hello | MailFrom | RcptTo | DataBegun | ContentPart | ContentEnd | Reset | Quit | TLSBegun
