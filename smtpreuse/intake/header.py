"""
The header of a message on its way in: what is read of it, and the trace field that is put before it (RFC 5321 section
4.4).

It changes nothing and reads no more than the hops and the message's own name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate

from attrs import frozen

# What is kept of a line that is cut: enough for its name and a message-id.
_LINE_KEPT = 4096
# White space before the colon is obsolete, and understood (RFC 5322 section 4.5).
_HOP = re.compile(rb"\r\nreceived[ \t]*:")
# RFC 5321 section 4.5.3.1.3: a longer recipient would only make a line that others must not accept.
_RECIPIENT_SHOWN = 256


class HeaderReader:
    """
    Looks at content as it streams by, until its header ends.

    @ivar hops: how many C{Received} fields there were.
    @ivar message_id: as the C{Message-ID} field has it; empty when there was none.
    """

    def __init__(self) -> None:
        self.hops = 0
        self.message_id = ""
        self._over = False
        self._carry = b"\r\n"

    def feed(self, octets: bytes) -> None:
        """Take content in parts; none of them ends between CR and LF."""
        if self._over:
            return
        text = self._carry + octets
        end = text.find(b"\r\n\r\n")
        if end >= 0:
            self._over = True
            text = text[: end + 2]
        else:
            cut = text.rfind(b"\r\n")
            self._carry = text[cut : cut + _LINE_KEPT]
            text = text[:cut]
        lower = text.lower()
        self.hops += len(_HOP.findall(lower))
        name = lower.find(b"\r\nmessage-id:") if not self.message_id else -1
        if name >= 0:
            words = text[name + 13 : name + 13 + _LINE_KEPT].split(None, 1)
            self.message_id = printable(words[0].decode("ascii", "replace")) if words else ""


def printable(text: str) -> str:
    """As the operator's log has it: what does not print becomes C{?}."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


@frozen(kw_only=True)
class Trace:
    """
    What a C{Received} field says.

    @ivar helo: the name the client gave itself; empty when it gave none.
    @ivar host: the client's name as we know it.
    @ivar address: the client's address, or C{unix}.
    @ivar by: our own name.
    @ivar tls: whether it came over TLS; shown only beside C{esmtp} (RFC 3848 has no word for the other).
    @ivar recipient: of the message, where it has only one; else empty.
    @ivar date: from L{Dates}.
    """

    helo: str
    host: str
    address: str
    by: str
    esmtp: bool
    tls: bool
    queue_id: str
    recipient: str
    date: str

    def field(self) -> bytes:
        """The field, with the line ends that it needs."""
        address = f"IPv6:{self.address}" if ":" in self.address else self.address
        protocol = ("ESMTPS" if self.tls else "ESMTP") if self.esmtp else "SMTP"
        # One recipient only: the others must not learn of each other (RFC 5321 section 7.2).
        last = f"; {self.date}"
        if self.recipient and len(self.recipient) <= _RECIPIENT_SHOWN:
            last = f"\r\n\tfor <{self.recipient}>; {self.date}"
        return (
            f"Received: from {self.helo or self.host} ({self.host} [{address}])\r\n"
            f"\tby {self.by} (smtpreuse) with {protocol} id {self.queue_id}{last}\r\n"
        ).encode("ascii", "replace")


class Dates:
    """Dates as header fields have them (RFC 5322 section 3.3), in local time; one second is written out once."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """
        @param wall: UNIX time by the clock on the wall, which is what those who read the field compare it with.
        """
        self._wall = wall
        self._second = -1
        self._text = ""

    def text(self) -> str:
        """The date now."""
        second = int(self._wall())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, localtime=True)
        return self._text
