"""
What came to a destination: counts, and who was seen before. It knows neither connections nor grammar.
"""

from __future__ import annotations

import re

from attrs import define, field

_IDENTITY = re.compile(rb"^(x-smtpreuse-id|message-id):[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


def identity_of(content: bytes) -> bytes:
    """What names a message: its field C{X-Smtpreuse-Id}, else C{Message-ID}, else nothing."""
    header, _, _ = content.partition(b"\r\n\r\n")
    found = {match[1].lower(): match[2].strip() for match in _IDENTITY.finditer(header)}
    return found.get(b"x-smtpreuse-id") or found.get(b"message-id", b"")


@define
class Tally:
    """
    What came, since the start. The public names are what C{smtpreuse sink} prints.

    @ivar doubled: messages of which an earlier one had the same identity and one of the same recipients. A message
        without an identity is never doubled.
    @ivar octets: of content, without dot-stuffing.
    @ivar last: UNIX time of the last message; L{None} before there is one.
    """

    messages: int = 0
    recipients: int = 0
    connections: int = 0
    tls_handshakes: int = 0
    tls_resumed: int = 0
    doubled: int = 0
    octets: int = 0
    last: float | None = None
    _seen: set[tuple[bytes, bytes]] = field(factory=set, repr=False)

    def count(self, recipients: list[bytes], content: bytes, now: float) -> None:
        """A message came, at this UNIX time."""
        self.last = now
        self.messages += 1
        self.recipients += len(recipients)
        self.octets += len(content)
        identity = identity_of(content)
        if not identity:
            return
        keys = {(identity, recipient.lower()) for recipient in recipients}
        if not self._seen.isdisjoint(keys):
            self.doubled += 1
        self._seen |= keys

    def counts(self) -> dict[str, float | None]:
        """All counts by name."""
        return {
            "messages": self.messages,
            "recipients": self.recipients,
            "connections": self.connections,
            "tls_handshakes": self.tls_handshakes,
            "tls_resumed": self.tls_resumed,
            "doubled": self.doubled,
            "octets": self.octets,
            "last": self.last,
        }
