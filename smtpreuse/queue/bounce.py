"""
Makes non-delivery notifications (RFC 3464 in a multipart/report of RFC 6522), as Postfix's bounce(8) sends them.

Pure: it gets values and the head of the message, and gives back a message. It knows nothing of the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate

from attrs import frozen

from smtpreuse.model.content import Content, FileContent, MemoryContent
from smtpreuse.model.delivery import Outcome
from smtpreuse.model.message import Body

# Postfix returns up to bounce_size_limit octets of the message; the header alone of anything larger.
RETURNED_OCTETS = 50000
# Of what a server said of one recipient people get no more than this: replies may have 64 KiB (smtp.reply), and a
# message a thousand recipients.
_TOLD = 2000


@frozen(kw_only=True)
class Notice:
    """
    What a notification tells.

    @ivar queue_id: of the notification itself.
    @ivar original_id: of the message that failed.
    @ivar arrived: of that message, UNIX time by the clock on the wall.
    @ivar now: likewise.
    """

    queue_id: str
    original_id: str
    sender: str
    arrived: float
    now: float
    reporter: str
    relay: str
    body: Body
    failed: Sequence[Outcome]


def excerpt(content: Content) -> tuple[bytes, bool]:
    """
    What is returned of a message.

    @return: the octets, and whether they are the whole message (else its header only).
    """
    if isinstance(content, FileContent):
        with open(content.path, "rb") as file:
            octets = file.read(RETURNED_OCTETS + 1)
    else:
        octets = content.octets
    if content.size <= RETURNED_OCTETS:
        return octets, True
    header, found, _ = octets[:RETURNED_OCTETS].partition(b"\r\n\r\n")
    return (header + b"\r\n" if found else header.rpartition(b"\r\n")[0] + b"\r\n"), False


def compose(notice: Notice, returned: bytes, *, whole: bool) -> MemoryContent:
    """
    The notification's content.

    @param returned: from L{excerpt}.
    """
    boundary = f"{notice.queue_id}.{int(notice.now)}/{notice.reporter}"
    encoding = "7bit" if returned.isascii() else "8bit"
    lines = [*_header(notice, boundary, encoding)]
    for part in (_for_people(notice), _for_programs(notice), _attached(encoding, whole=whole)):
        lines += [f"--{boundary}", *part]
    text = "\r\n".join(lines).encode("ascii", "replace")
    return MemoryContent(b"%s%s\r\n--%s--\r\n" % (text, returned, boundary.encode()))


def _header(notice: Notice, boundary: str, encoding: str) -> list[str]:
    return [
        f"Date: {formatdate(notice.now, localtime=True)}",
        f"From: MAILER-DAEMON@{notice.reporter} (Mail Delivery System)",
        "Subject: Undelivered Mail Returned to Sender",
        f"To: {notice.sender}",
        "Auto-Submitted: auto-replied",
        f"Message-Id: <{notice.queue_id}@{notice.reporter}>",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "This is a MIME-encapsulated message.",
        "",
    ]


def _for_people(notice: Notice) -> list[str]:
    return [
        "Content-Description: Notification",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is the mail system at host {notice.reporter}.",
        "",
        "Your message could not be delivered to one or more recipients. It is",
        "attached below, or its header where it is large.",
        "",
        *(line for outcome in notice.failed for line in _told(outcome)),
    ]


def _for_programs(notice: Notice) -> list[str]:
    """RFC 3464: fields of the message, then a group of fields for each recipient."""
    return [
        "Content-Description: Delivery report",
        "Content-Type: message/delivery-status",
        "",
        f"Reporting-MTA: dns; {notice.reporter}",
        f"X-Smtpreuse-Queue-ID: {notice.original_id}",
        f"X-Smtpreuse-Sender: rfc822; {notice.sender}",
        f"Arrival-Date: {formatdate(notice.arrived, localtime=True)}",
        "",
        *(line for outcome in notice.failed for line in _status(outcome, notice.relay)),
    ]


def _attached(encoding: str, *, whole: bool) -> list[str]:
    """The head of the part that the returned octets follow."""
    return [
        f"Content-Description: Undelivered Message{'' if whole else ' Headers'}",
        f"Content-Type: {'message/rfc822' if whole else 'text/rfc822-headers'}",
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "",
    ]


def _told(outcome: Outcome) -> list[str]:
    """For people, folded to lines of at most 76 octets where words allow."""
    words, lines, line = _printable(outcome.text)[:_TOLD].split(), [], f"<{outcome.recipient.address}>:"
    for word in words:
        # RFC 5321 section 4.5.3.1.6: a line has up to 998 octets, whatever a server says.
        word = word[:900]
        if len(line) + 1 + len(word) > 76:
            lines.append(line)
            line = f"   {word}"
        else:
            line = f"{line} {word}"
    return [*lines, line, ""]


def _status(outcome: Outcome, relay: str) -> list[str]:
    recipient, fields = outcome.recipient, []
    fields.append(f"Final-Recipient: rfc822; {recipient.address}")
    if recipient.original:
        fields.append(f"Original-Recipient: rfc822; {recipient.original}")
    # Postfix likewise: what was tried for too long failed for good, for a reason that was not.
    fields += ["Action: failed", f"Status: {outcome.status}"]
    if outcome.reply is not None:
        host = relay.partition("[")[0]
        fields += [f"Remote-MTA: dns; {host}", f"Diagnostic-Code: smtp; {_printable(outcome.reply.text)[:900]}"]
    else:
        fields.append(f"Diagnostic-Code: X-Smtpreuse; {_printable(outcome.text)[:900]}")
    return [*fields, ""]


def _printable(text: str) -> str:
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)
