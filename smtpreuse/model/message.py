"""
A message as it stands in the queue: envelope, facts of its arrival, recipients.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class Body(Enum):
    """The BODY parameter of MAIL (RFC 6152)."""

    UNKNOWN = ""
    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"


@frozen(kw_only=True)
class Recipient:
    """
    One recipient of one message.

    @ivar row: names it in the spool: positive and unique there; 0 before the spool has it.
    @ivar address: where the message goes, as RCPT has it between its brackets.
    @ivar original: as the client gave it, where that was different; else empty.
    @ivar hop: C{transport:nexthop} as routing chose it (C{smtp:example.com}, C{discard:}, C{error:5.1.1 text}).
    @ivar attempts: how many deliveries were tried before.
    """

    row: int = 0
    address: str
    original: str = ""
    hop: str
    attempts: int = 0

    @property
    def held(self) -> bool:
        """Whether routing says that its message is to wait for the operator."""
        return self.hop.startswith("hold:")


@frozen(kw_only=True)
class Message:
    """
    One message with those of its recipients that are meant.

    @ivar queue_id: Postfix's long form.
    @ivar arrived: UNIX time of its MAIL command, in seconds.
    @ivar sender: as MAIL has it between its brackets; empty for the null sender.
    @ivar size: octets of the content.
    @ivar client: C{host[address]} of who brought it, or the name of the role that made it.
    @ivar held: whether it waits for the operator.
    """

    queue_id: str
    arrived: float
    sender: str
    size: int
    body: Body = Body.UNKNOWN
    client: str
    held: bool = False
    recipients: tuple[Recipient, ...]
